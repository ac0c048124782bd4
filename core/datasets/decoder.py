"""The child that unpacks pictures of strangers, and does nothing else: `decoder_pool` starts it.

It knows no database, no store and no settings but what it is told. Files reach it as descriptors.
A request is one line of JSON with two of them, what to read and where to write; so is the answer.
"""

import errno
import json
import os
import resource
import signal
import socket
import sys
from dataclasses import asdict, dataclass
from typing import Any

from core.pictures import cleaning
from core.pictures.refusal import Refused
from core.tether import die_with_parent

MAX_MESSAGE_BYTES = 16_384
"""Names have 255 characters; a message so short is never cut."""
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Limits:
    """Those of a picture, and how much memory this process may have, in bytes."""

    max_image_bytes: int
    max_image_pixels: int
    max_image_side: int
    memory_bytes: int


def main() -> None:
    die_with_parent(with_signal=signal.SIGKILL)
    descriptor, told = sys.argv[1:]
    limits = Limits(**json.loads(told))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a picture is nobody's to find on the disk
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    with socket.socket(fileno=int(descriptor)) as line:
        while True:
            message, descriptors, _, _ = socket.recv_fds(line, MAX_MESSAGE_BYTES, 2)
            if not message:
                return
            source, target = descriptors
            answer = _answer(json.loads(message), source, target, limits)
            line.send(json.dumps(answer).encode())


def _answer(request: dict[str, Any], source: int, target: int, limits: Limits) -> dict[str, Any]:
    """Of both descriptors, which are closed then."""
    try:
        with os.fdopen(source, "rb") as file, os.fdopen(target, "wb") as out:
            if "side" in request:
                cleaning.thumbnail(file, request["side"], out)
                return {}
            return asdict(cleaning.clean(file, request["filename"], limits, out))
    except Refused as refused:
        return {"refused": asdict(refused.flaw)}
    except OSError as error:
        if error.errno not in _FULL_DISK:
            raise
        return {"errno": error.errno}


if __name__ == "__main__":
    main()
