"""A lock is held for as long as any process that has it lives, and not a moment longer."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from core.files.lock import LockFile, is_held


def test_only_one_holds_it(tmp_path: Path) -> None:
    lock = LockFile.take(tmp_path / "a.lock")
    assert lock is not None
    assert is_held(tmp_path / "a.lock")
    assert LockFile.take(tmp_path / "a.lock") is None
    lock.release()
    assert not is_held(tmp_path / "a.lock")


def test_a_file_that_is_not_there_is_held_by_nobody(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "none.lock")
    assert not (tmp_path / "none.lock").exists()


def test_a_child_keeps_it_after_its_parent_let_go(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    lock = LockFile.take(path)
    assert lock is not None
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock.descriptor,)
    )
    lock.release()
    assert is_held(path)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert child.stdin is not None
    child.stdin.close()
    assert not is_held(path)
