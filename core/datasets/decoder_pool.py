"""Where pictures are unpacked: two children with limits on memory and time, replaced when they die.

A picture that a decoder chokes on costs its own file, never this process.
"""

import json
import os
import queue
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from typing import IO, Any, BinaryIO

from core.config import MIB, Settings
from core.datasets.decoder import MAX_MESSAGE_BYTES, Limits
from core.errors import Unavailable
from core.pictures import cleaning
from core.pictures.cleaning import Picture
from core.pictures.refusal import Refused
from core.tether import PARENT

DECODERS = 2
BYTES_A_PIXEL = 24
"""While it is unpacked: a WebP took 20, a PNG and a JPEG 12, of 100 million pixels each."""
_OTHER_BYTES = 256 * MIB
"""The interpreter, and the file itself more than once."""
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH")
"""All that a child is told of ours: the rest may hold secrets."""


class DecoderGone(Exception):
    """It died at a picture, or was ended because it took too long; says which, as a clause."""


class DecoderPool:
    """Safe to share between threads; who comes third waits. Children start when they are needed."""

    def __init__(self, settings: Settings, *, memory_bytes: int | None = None) -> None:
        """``memory_bytes`` is what a child may have: enough for pictures at the caps unless told
        otherwise."""
        self._seconds = settings.picture_seconds
        self._limits = Limits(
            settings.max_image_bytes,
            settings.max_image_pixels,
            settings.max_image_side,
            memory_bytes or _OTHER_BYTES + BYTES_A_PIXEL * settings.max_image_pixels,
        )
        self._places: queue.LifoQueue[_Decoder | None] = queue.LifoQueue()
        for _ in range(DECODERS):
            self._places.put(None)
        self._decoders: list[_Decoder] = []
        # on Linux a child's death signal is tied to the thread that made it: one that stays
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="decoders")
        self._lock = threading.Lock()
        self._closed = False

    def clean(
        self,
        file: BinaryIO,
        filename: str,
        target: IO[bytes],
        *,
        fill: Callable[[], object] = lambda: None,
    ) -> Picture:
        """``cleaning.clean`` in a child. Both files must have descriptors.

        ``fill`` is called when its turn has come, and may write ``file``.

        Raises:
            Refused: also where the file costs too much time or memory, or kills its decoder.
            Unavailable: the pool was closed.
        """
        try:
            with self._decoder() as decoder:
                fill()
                return Picture(**decoder.ask({"filename": filename}, file, target, self._seconds))
        except DecoderGone as gone:
            raise cleaning.too_costly(filename, str(gone)) from gone

    def thumbnail(self, read: Callable[[], Iterable[bytes]], side: int) -> bytes:
        """``cleaning.thumbnail`` in a child.

        ``read`` is called when its turn has come, so that those who wait hold nothing.

        Raises:
            Unavailable: it took too long, or the pool was closed.
        """
        try:
            with (
                self._decoder() as decoder,
                tempfile.TemporaryFile() as source,
                tempfile.TemporaryFile() as target,
            ):
                source.writelines(read())
                decoder.ask({"side": side}, source, target, self._seconds)
                target.seek(0)
                return target.read()
        except DecoderGone as gone:
            raise Unavailable(
                "The thumbnail was not made in time. Ask again in a moment, or for the picture "
                "without `size`.",
                retry_after_seconds=5,
            ) from gone

    def close(self) -> None:
        """Ends the children, whatever they are at."""
        with self._lock:
            self._closed = True
        self._starter.shutdown()
        for decoder in self._decoders:
            decoder.end()

    @contextmanager
    def _decoder(self) -> Iterator["_Decoder"]:
        place = self._places.get()
        try:
            if place is None or not place.is_alive:
                place = self._start().result()
            yield place
        except DecoderGone:
            if self._closed:
                raise _closed() from None
            raise
        finally:
            self._places.put(place)

    def _start(self) -> "Future[_Decoder]":
        with self._lock:
            if self._closed:
                raise _closed()
            return self._starter.submit(self._add)

    def _add(self) -> "_Decoder":
        gone = [decoder for decoder in self._decoders if not decoder.is_alive]
        for decoder in gone:
            decoder.end()
            self._decoders.remove(decoder)
        decoder = _Decoder(self._limits)
        self._decoders.append(decoder)
        return decoder


class _Decoder:
    """One child, from its start to its end."""

    def __init__(self, limits: Limits) -> None:
        self._socket, theirs = socket.socketpair()
        known = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        with theirs:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "core.datasets.decoder"),
                    *(str(theirs.fileno()), json.dumps(asdict(limits))),
                ],
                env={**known, PARENT: str(os.getpid()), "PYTHONSAFEPATH": "1"},
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for its parent
            )

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(
        self, request: dict[str, object], source: IO[bytes], target: IO[bytes], seconds: float
    ) -> dict[str, Any]:
        """Raises DecoderGone; the child has then ended. OSError where the disk is full."""
        descriptors = [source.fileno(), target.fileno()]  # what was in memory is in a file now
        source.flush()
        try:
            self._socket.settimeout(seconds)
            socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
            answer: dict[str, Any] = json.loads(self._socket.recv(MAX_MESSAGE_BYTES))
        except TimeoutError as error:
            self.end()
            raise DecoderGone(f"takes longer than {seconds:g} seconds") from error
        except (OSError, ValueError) as error:  # it closed the line, or wrote half an answer
            self.end()
            raise DecoderGone("ends the program that reads it") from error
        if "refused" in answer:
            raise Refused(**answer["refused"])
        if "errno" in answer:
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        return answer

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._socket.close()


def _closed() -> Unavailable:
    return Unavailable("The server is ending. Send it again in a moment.", retry_after_seconds=5)
