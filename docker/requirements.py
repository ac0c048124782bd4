"""Prints what pyproject.toml asks for: the dependencies, and those of the extras that are named.

So an image installs what others wrote before our own code is copied: that layer, gigabytes of it
for a worker, stays as it is until a version changes.
"""

import sys
import tomllib
from pathlib import Path


def requirements(pyproject: Path, extras: list[str]) -> list[str]:
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    return project["dependencies"] + [each for extra in extras for each in optional[extra]]


if __name__ == "__main__":
    sys.stdout.write("\n".join(requirements(Path("pyproject.toml"), sys.argv[1:])) + "\n")
