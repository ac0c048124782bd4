"""The header of a safetensors file: eight bytes of length, then JSON."""

import json
import struct
from pathlib import Path

METADATA = "__metadata__"


def order_metadata(path: Path) -> None:
    """Puts a file's metadata in alphabetical order, so that the same content is the same bytes.

    The library writes it as its hash table lies, another way in each process.
    """
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header[METADATA] = dict(sorted(header[METADATA].items()))
        ordered = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(ordered) <= length, "the same entries take the same bytes"
        file.seek(8)
        file.write(ordered.ljust(length))
