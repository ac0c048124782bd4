"""Children that unpack: what kills one, and that it costs nothing but its own file."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.config import MIB, Settings
from core.datasets.decoder_pool import DECODERS, DecoderPool
from core.errors import Unavailable
from core.pictures.cleaning import Picture
from core.pictures.refusal import Refused
from tests.support import uploads
from tests.support.server import children_of, is_running, kill, wait_until

SMALL = uploads.picture()
MakePool = Callable[..., DecoderPool]


@cache
def large() -> bytes:
    """81 million pixels in a few kilobytes: takes seconds, and a gigabyte."""
    return uploads.picture(size=(9_000, 9_000), mode="1", color=0)


@pytest.fixture
def pool_of(tmp_path: Path) -> Iterator[MakePool]:
    """A pool with its own limits."""
    made: list[DecoderPool] = []

    def make(*, memory_bytes: int | None = None, **limits: Any) -> DecoderPool:
        made.append(DecoderPool(Settings(home=tmp_path, **limits), memory_bytes=memory_bytes))
        return made[-1]

    yield make
    for pool in made:
        pool.close()


def clean(pool: DecoderPool, content: bytes = SMALL) -> Picture:
    with uploads.opened(content) as file, tempfile.TemporaryFile() as target:
        return pool.clean(file, "dog.png", target)


def refusal(pool: DecoderPool, content: bytes) -> str:
    """The sentence about a picture that is too costly."""
    with pytest.raises(Refused) as refused:
        clean(pool, content)
    assert refused.value.flaw.code == "too_costly"
    assert refused.value.flaw.detail.startswith("dog.png ")
    return refused.value.flaw.detail


def decoders() -> list[int]:
    return [pid for pid in children_of(os.getpid()) if b"datasets.decoder" in command(pid)]


def command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def only_decoder(before: list[int]) -> int:
    (pid,) = set(decoders()) - set(before)
    return pid


def resident_bytes(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def test_pictures_and_thumbnails_are_made_there(pool_of: MakePool) -> None:
    pool = pool_of()
    with uploads.opened(uploads.sideways()) as file, tempfile.TemporaryFile() as target:
        picture = pool.clean(file, "dog.jpg", target)
        target.seek(0)
        whole = target.read()
    assert (picture.width, picture.height, picture.turned) == (32, 64, True)
    assert Image.open(BytesIO(whole)).size == (32, 64)
    small = pool.thumbnail(lambda: [whole[:100], whole[100:]], 16)
    assert Image.open(BytesIO(small)).size == (8, 16)


def test_a_refusal_comes_back_with_its_words(pool_of: MakePool) -> None:
    with pytest.raises(Refused, match=r"dog\.png is incomplete") as refused:
        clean(pool_of(), SMALL[:-30])
    assert refused.value.flaw.code == "truncated"


def test_a_child_that_is_killed_in_mid_picture_is_replaced(pool_of: MakePool) -> None:
    before, pool = decoders(), pool_of()
    clean(pool)
    pid = only_decoder(before)
    with ThreadPoolExecutor(1) as uploader:
        refused = uploader.submit(refusal, pool, large())
        wait_until(lambda: resident_bytes(pid) > 100 * MIB, 20, "it is in mid-picture")
        kill(pid)
        assert "ends the program that reads it" in refused.result()
    assert clean(pool).width == 64
    assert only_decoder(before) != pid  # which is no zombie either


def test_a_child_that_hangs_is_ended_and_replaced(
    pool_of: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, pool = decoders(), pool_of()
    clean(pool)
    pid = only_decoder(before)
    os.kill(pid, signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr(pool, "_seconds", 1.5)  # not while a child begins, which may take longer
        assert "takes longer than 1.5 seconds" in refusal(pool, SMALL)
    assert clean(pool).width == 64
    assert only_decoder(before) != pid


def test_a_picture_above_the_limit_of_memory_is_refused(pool_of: MakePool) -> None:
    before, pool = decoders(), pool_of(memory_bytes=150 * MIB)
    assert "takes more memory than a picture may" in refusal(pool, large())
    assert clean(pool).width == 64
    assert resident_bytes(only_decoder(before)) < 150 * MIB


def test_a_child_that_died_in_idleness_costs_no_picture(pool_of: MakePool) -> None:
    before, pool = decoders(), pool_of()
    clean(pool)
    pid = only_decoder(before)
    kill(pid)
    wait_until(lambda: not is_running(pid), 30, "it is dead")
    assert clean(pool).width == 64
    assert only_decoder(before) != pid


def test_two_are_unpacked_at_a_time_and_who_waits_holds_nothing(pool_of: MakePool) -> None:
    pool = pool_of()

    def read() -> list[bytes]:
        with ThreadPoolExecutor(1) as another:
            assert another.submit(clean, pool).result().width == 64  # the second
        assert pool._places.qsize() == 1
        return [SMALL]

    pool.thumbnail(read, 50)


def test_a_child_has_nothing_of_ours(pool_of: MakePool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_DATABASE_URL", "postgresql://ann:secret@here")
    before, pool = decoders(), pool_of()
    with tempfile.TemporaryFile() as ours:
        os.set_inheritable(ours.fileno(), True)
        clean(pool)
    place = Path(f"/proc/{only_decoder(before)}")
    assert b"secret" not in (place / "environ").read_bytes()
    assert len(list((place / "fd").iterdir())) == 4  # the three of every process, and the line
    limits = (place / "limits").read_text()
    assert "Max core file size        0                    0" in limits
    assert "torch" not in (place / "maps").read_text()


def test_who_waits_for_a_turn_has_read_nothing_yet(pool_of: MakePool) -> None:
    pool, begun, go_on = pool_of(), threading.Semaphore(0), threading.Event()

    def fill() -> None:
        begun.release()
        assert go_on.wait(60)

    def clean_filled() -> Picture:
        with uploads.opened(SMALL) as file, tempfile.TemporaryFile() as target:
            return pool.clean(file, "dog.png", target, fill=fill)

    with ThreadPoolExecutor(DECODERS + 1) as people:
        cleaned = [people.submit(clean_filled) for _ in range(DECODERS + 1)]
        try:
            assert all(begun.acquire(timeout=20) for _ in range(DECODERS))
            assert not begun.acquire(timeout=0.2)
        finally:
            go_on.set()
        assert {each.result().width for each in cleaned} == {64}


def test_a_full_disk_is_no_fault_of_the_picture(pool_of: MakePool) -> None:
    pool = pool_of()
    with (
        uploads.opened(SMALL) as file,
        Path("/dev/full").open("wb") as full,
        pytest.raises(OSError, match="No space left"),
    ):
        pool.clean(file, "dog.png", full)
    assert clean(pool).width == 64


def test_closing_ends_them_in_mid_picture_and_blames_no_file(pool_of: MakePool) -> None:
    before, pool = decoders(), pool_of()
    clean(pool)
    pid = only_decoder(before)
    with ThreadPoolExecutor(1) as uploader:
        broken = uploader.submit(clean, pool, large())
        wait_until(lambda: resident_bytes(pid) > 100 * MIB, 20, "it is in mid-picture")
        pool.close()
        with pytest.raises(Unavailable):
            broken.result()
    assert decoders() == before
    with pytest.raises(Unavailable):
        clean(pool)


OWNER = """
import os, sys, tempfile, threading
from pathlib import Path
from core.config import Settings
from core.datasets.decoder_pool import DecoderPool

pool = DecoderPool(Settings(home=Path(sys.argv[1])))
picture = Path(sys.argv[1], "dog.png")

def clean():
    with picture.open("rb") as file, tempfile.TemporaryFile() as target:
        pool.clean(file, "dog.png", target)

one = threading.Thread(target=clean)  # ends: the child must outlive the thread that asked for it
one.start()
one.join()
print(pool._decoders[0]._process.pid, flush=True)
sys.stdin.readline()
clean()
print(pool._decoders[0]._process.pid, flush=True)
sys.stdin.readline()
"""


def test_a_child_outlives_who_asked_for_it_and_no_killed_parent(tmp_path: Path) -> None:
    (tmp_path / "dog.png").write_bytes(SMALL)
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdin is not None
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        owner.stdin.write("\n")
        owner.stdin.flush()
        assert int(owner.stdout.readline()) == pid
        owner.kill()
        owner.wait()
        wait_until(lambda: not is_running(pid), 60, "the child has ended")
