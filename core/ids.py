"""Ids: a prefix that says what it names, then 26 characters that sort by time, unguessable."""

import os
import threading
import time
from typing import Literal

Prefix = Literal["job", "dst", "img", "art", "key", "wrk", "req", "whk", "dlv", "upl"]

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, in ascending order
_LENGTH = 26  # 48 bits of milliseconds and 80 of chance, as in a ULID
_lock = threading.Lock()
_last = 0


def new_id(prefix: Prefix) -> str:
    """A new id, greater than every one made before in this process."""
    global _last
    with _lock:
        fresh = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
        _last = fresh if fresh >> 80 > _last >> 80 else _last + 1
        number = _last
    digits = []
    for _ in range(_LENGTH):
        number, digit = divmod(number, 32)
        digits.append(_ALPHABET[digit])
    return f"{prefix}_{''.join(reversed(digits))}"
