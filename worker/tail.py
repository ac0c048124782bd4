"""The last lines that a runner wrote, fit to be shown to the job's owner."""

import json
import re
from collections import deque
from collections.abc import Sequence

MAX_LINES = 500
_MAX_CHARACTERS = 1000
_PATH = re.compile(r"(?<![\w/])~?/(?!/)(?:[^\s/'\",:]+/)+([^\s/'\",:]*)")
_SECRETS = re.compile(
    r"(?i)(bearer\s+|://[^\s/@:]*:(?=[^\s@]*@)|"
    r"(?:key|token|secret|password)[\"']?\s*[=:]\s*[\"']?)[^\s\"'@,]+"
)


class Tail:
    """One thread hears lines, another takes them away. ``changed`` until they were taken."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=MAX_LINES)
        self.changed = False

    def begin(self, before: Sequence[str] = ()) -> None:
        """Of another job, or of another attempt after one that left the lines ``before``."""
        self._lines = deque(before, maxlen=MAX_LINES)
        self.changed = False

    def hear(self, raw: str) -> None:
        self._lines.extend(shown(raw))
        self.changed = True

    def take(self) -> list[str]:
        self.changed = False
        return list(self._lines)


def names(raw: str, job_id: str) -> bool:
    """Whether a line of our own logs is about this job."""
    try:
        return bool(json.loads(raw)["job"] == job_id)
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def shown(raw: str) -> list[str]:
    """A line as it may be shown: sentences of our own logs, without paths or secrets."""
    return [_without_secrets(line)[:_MAX_CHARACTERS] for line in _sentences(raw.rstrip("\n"))]


def _sentences(line: str) -> list[str]:
    try:
        said = json.loads(line)
        sentence = f"{said['level']}: {said['message']}"
    except (ValueError, TypeError, KeyError, RecursionError):
        return [line] if line.strip() else []
    return [sentence, *str(said.get("exception", "")).splitlines()]


def _without_secrets(line: str) -> str:
    return _SECRETS.sub(r"\1***", _PATH.sub(r"\1", line))
