"""A reader of event streams, by the standard: a stream is lines, a blank one ends an event."""

from collections.abc import Iterable, Iterator


def messages(lines: Iterable[str]) -> Iterator[dict[str, str]]:
    """``{"id", "event", "data"}`` of each event, and ``{"comment"}`` of each comment."""
    message: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if line == "" and message:
            yield message
            message = {}
        elif line:
            message[name or "comment"] = value.removeprefix(" ")
