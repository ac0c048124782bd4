"""Points at which a test makes a process die, to see what becomes of its work.

``STILLROOM_CRASH_AT`` names one. Each process tree dies there once: a file remembers that it did.
"""

import os
from pathlib import Path

_LABEL = os.environ.get("STILLROOM_CRASH_AT")
_EXIT_CODE = 137


def point(label: str) -> None:
    if label != _LABEL:
        return
    mark = Path(os.environ["STILLROOM_CRASH_MARK"])
    try:
        mark.open("x").close()
    except FileExistsError:
        return
    os._exit(_EXIT_CODE)
