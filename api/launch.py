"""How the command line starts the other processes of the house: by module name and settings."""

import os
import sys


def command(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def environment(**settings: object) -> dict[str, str]:
    """Ours, with each setting that is given as ``STILLROOM_*``.

    Python puts the present folder before all else for ``-m``. Where it is not on our own path a
    stranger's ``core`` or ``worker`` may lie in it, so the child must not look there either.
    """
    ours = dict(os.environ)
    if os.getcwd() not in sys.path and "" not in sys.path:
        ours["PYTHONSAFEPATH"] = "1"
    given = {name: str(value) for name, value in settings.items() if value is not None}
    return ours | {f"STILLROOM_{name.upper()}": value for name, value in given.items()}
