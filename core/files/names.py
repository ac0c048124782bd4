"""Names of files as clients send them: text to show and keep, never a path."""

from pathlib import PurePosixPath

_MAX_NAME = 255


def shown(name: str) -> str:
    """Made fit to be shown and kept: printable, and its end when it is long. Empty for none."""
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    return printable[-_MAX_NAME:] if PurePosixPath(printable).name else ""
