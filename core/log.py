"""Log lines on stderr: a short sentence for people, JSON for machines, ids bound once."""

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

_bound: ContextVar[Mapping[str, Any]] = ContextVar(
    "stillroom_log_ids", default=MappingProxyType({})
)
_NOT_OURS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
"""What the standard library and uvicorn put on every record."""


@contextmanager
def bind(**ids: Any) -> Iterator[None]:
    """Adds ``ids``, but for those that are None, to every line of this thread until the block
    ends."""
    known = {name: value for name, value in ids.items() if value is not None}
    token = _bound.set({**_bound.get(), **known})
    try:
        yield
    finally:
        _bound.reset(token)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    extra = {name: value for name, value in vars(record).items() if name not in _NOT_OURS}
    return {**_bound.get(), **extra}


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "from": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class PlainFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        facts = " ".join(f"{name}={value}" for name, value in fields_of(record).items())
        line = f"{at} {record.levelname.lower():<7} {record.getMessage()}"
        line = f"{line}  ({facts})" if facts else line
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure(level: str) -> None:
    """Sends everything at ``level`` and above to stderr; JSON when that is no terminal."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter() if sys.stderr.isatty() else JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("alembic", "celery", "httpcore", "httpx", "kombu"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
