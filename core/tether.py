"""A child that ends when its parent does, however the parent ends."""

import ctypes
import os
import signal
import sys
import threading
import time

PARENT = "STILLROOM_PARENT_PID"
"""Set by a parent for its children: who must be alive."""

_PR_SET_PDEATHSIG = 1
_POLL_SECONDS = 1.0


def die_with_parent(*, with_signal: int = signal.SIGTERM) -> None:
    """Sends this process ``with_signal`` when the parent named in the environment is gone.

    Does nothing when no parent is named. On Linux the kernel does it the moment the parent's
    spawning thread ends; elsewhere a thread looks once a second.
    """
    named = os.environ.pop(PARENT, None)
    if named is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, with_signal)
    else:
        threading.Thread(target=_watch, args=(int(named), with_signal), daemon=True).start()
    if os.getppid() != int(named):  # it died before we asked
        os.kill(os.getpid(), with_signal)


def _watch(parent: int, with_signal: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os.kill(os.getpid(), with_signal)
