"""A tethered child ends with its parent, even when that is killed with no chance to say so."""

import os
import signal
import subprocess
import sys
import time

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
    deadline = time.monotonic() + 5
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(child)


def is_running(pid: int) -> bool:
    """A zombie that nobody waits for has ended all the same."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_process_that_names_no_parent_is_left_alone() -> None:
    environment = {name: value for name, value in os.environ.items() if "PARENT" not in name}
    quick = CHILD.replace("time.sleep(60)", "print('lives')")
    answer = subprocess.run(
        [sys.executable, "-c", quick], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout == "lives\n"
