"""What a client would like but does not insist on: the ``Prefer`` header, RFC 7240."""

import re
from collections.abc import Sequence

MAX_WAIT_SECONDS = 30
_WAIT = re.compile(r'\s*wait\s*=\s*"?(\d{1,18})"?\s*(;.*)?', re.IGNORECASE | re.ASCII)
_NAME = re.compile(r"\s*wait\s*([=;].*)?", re.IGNORECASE)


def wait_seconds(prefer: Sequence[str]) -> int | None:
    """What ``wait`` asks for, of at most ``MAX_WAIT_SECONDS``; None where it is absent or cannot be
    read. Of several the first counts."""
    preferences = [each for line in prefer for each in line.split(",")]
    waits = [each for each in preferences if _NAME.fullmatch(each)]
    asked = _WAIT.fullmatch(waits[0]) if waits else None
    return min(int(asked[1]), MAX_WAIT_SECONDS) if asked else None
