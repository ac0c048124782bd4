"""A tethered child ends with its parent, even when that is killed with no chance to say so."""

import os
import signal
import subprocess
import sys
import time

from tests.support.server import is_running, wait_until

CHILD = "from core.tether import die_with_parent; die_with_parent(); import time; time.sleep(60)"
PARENT = f"""
import os, subprocess, sys
child = subprocess.Popen(
    [sys.executable, "-c", {CHILD!r}],
    env={{**os.environ, "STILLROOM_PARENT_PID": str(os.getpid())}},
    start_new_session=True,
)
print(child.pid, flush=True)
child.wait()
"""


def test_the_child_of_a_killed_parent_ends() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(0.5)  # until it has asked the kernel
    assert is_running(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not is_running(child), 60, "the child has ended")


def test_a_process_that_names_no_parent_is_left_alone() -> None:
    environment = {name: value for name, value in os.environ.items() if "PARENT" not in name}
    quick = CHILD.replace("time.sleep(60)", "print('lives')")
    answer = subprocess.run(
        [sys.executable, "-c", quick], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout == "lives\n"
