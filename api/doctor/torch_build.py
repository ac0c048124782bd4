"""Which build of PyTorch is installed. Read from its files: to import it takes seconds, and the
front end never does."""

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

_FIELD = re.compile(r"^(__version__|cuda)\b[^=]*= *(?:'([^']*)'|None)", re.MULTILINE)


@dataclass(frozen=True)
class TorchBuild:
    """``cuda``: the version that it was built for; None: for the CPU alone."""

    version: str
    cuda: str | None


def installed() -> TorchBuild | None:
    found = find_spec("torch")
    if found is None or not found.submodule_search_locations:
        return None
    file = Path(found.submodule_search_locations[0]) / "version.py"
    return parsed(file.read_text(encoding="utf-8")) if file.is_file() else None


def parsed(source: str) -> TorchBuild:
    """Of the ``version.py`` that every build of PyTorch carries."""
    fields = dict(_FIELD.findall(source))
    return TorchBuild(fields.get("__version__", ""), fields.get("cuda") or None)
