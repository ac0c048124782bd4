"""The same faults with the runner that people have, torch and all."""

import os
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.artifacts.store import Store
from tests.faults.place import Place, embedded, submit
from tests.faults.storm import Storm, recoveries_of, wait_for_all
from tests.faults.test_crash_points import labels
from tests.support.invariants import Expected, check
from tests.support.server import SUPERVISOR, children_of

pytestmark = pytest.mark.faults

CHECKPOINT_EVERY = 4
TRAINING: dict[str, Any] = {
    "base": "nano-ssd-1b",
    "instance_prompt": "a photo of sks dog",
    "checkpoint_every": CHECKPOINT_EVERY,
    "lora": {"rank": 2, "dropout": 0.1},
    "ema": 0.9,
    "learning_rate": 1e-3,
    "seed": 5,
}
KILLS = 20
Tell = Callable[[str], None]


def train(place: Place, steps: int, **about: Any) -> str:
    spec = TRAINING | {"dataset": place.dataset, "steps": steps}
    return submit(place.client, "fine_tune", spec, **about)


def lora_of(place: Place, job_id: str, folder: Path) -> bytes:
    lora = (place.job(job_id).result or {})["lora"]
    return place.client.download(lora, folder / lora).read_bytes()


def check_all(place: Place, accepted: list[str], **expected: Any) -> None:
    told = Expected(accepted=accepted, checkpoint_steps=CHECKPOINT_EVERY + 1, **expected)
    assert check(place.database, Store.of(place.server.settings), told) == []


def test_a_training_that_is_killed_again_and_again_ends_with_the_same_bytes(
    tmp_path: Path, tell: Tell
) -> None:
    """F1: the runner or its worker, at any step."""
    draw = random.Random(1)
    with embedded(tmp_path / "home", "cpu", SUPERVISOR) as place:
        job = train(place, steps=300)
        for number in range(KILLS):
            reached = place.job(job).progress["step"]
            place.wait_for_step(job, reached + draw.randint(CHECKPOINT_EVERY + 1, 7))
            worker = place.pid_of_worker_of(job)
            os.kill(draw.choice([worker, *children_of(worker)]), signal.SIGKILL)
            place.wait_for(lambda: place.job(job).attempt == number + 2, "it is begun again")  # noqa: B023  # called at once
        place.wait_for_end(job)
        undisturbed = train(place, steps=300)
        place.wait_for_end(undisturbed)
        check_all(place, [job, undisturbed])
        assert lora_of(place, job, tmp_path) == lora_of(place, undisturbed, tmp_path)
        tell(f"a training of 300 steps, killed {KILLS} times, ended with the same bytes")


@pytest.mark.parametrize("label", [each for each in labels() if each.startswith("checkpoint: ")])
def test_a_runner_that_dies_while_it_saves_goes_on_from_the_save_before(
    label: str, tmp_path: Path
) -> None:
    """F2"""
    mark = tmp_path / "mark"
    with embedded(tmp_path / "home", "cpu", SUPERVISOR) as place:
        undisturbed = train(place, steps=10)
        place.wait_for_end(undisturbed)
        place.server.end()
        place.server.environment |= {
            "STILLROOM_CRASH_AT": label,
            "STILLROOM_CRASH_MARK": str(mark),
        }
        place.server.start_again()
        job = train(place, steps=10)
        place.wait_for_end(job)
        assert mark.exists()
        check_all(place, [undisturbed, job])
        assert lora_of(place, job, tmp_path) == lora_of(place, undisturbed, tmp_path)


def test_sixty_real_jobs_and_somebody_who_kills(tmp_path: Path, tell: Tell) -> None:
    """F15, with the runner that people have."""
    draw = random.Random(1)
    with embedded(tmp_path / "home", "cpu,cpu", SUPERVISOR) as place:
        began, accepted = time.monotonic(), []
        with Storm(place, seed=1, quiet_seconds=(15, 30)) as damage:
            for _ in range(60):
                is_drawn = draw.random() < 0.7
                accepted.append(place.draw() if is_drawn else train(place, draw.randint(8, 30)))
            wait_for_all(place.database, accepted, seconds=900)
        recoveries = [seconds for seconds, _ in recoveries_of(place.database, damage)]
        check_all(place, accepted, recoveries_seconds=recoveries, recovery_seconds=30.0)
        tell(
            f"60 real jobs in {time.monotonic() - began:.0f} s; {dict(damage.done)}; "
            f"recoveries {[round(seconds, 1) for seconds in recoveries]} s"
        )


def test_memory_comes_back_when_all_is_quiet(tmp_path: Path, tell: Tell) -> None:
    """I7: of the same runner after as many jobs again, and of its worker and the API."""
    with embedded(tmp_path / "home", "cpu", SUPERVISOR) as place:
        accepted: list[str] = []
        held = [memory_after(place, accepted) for _ in range(3)]
        check_all(place, accepted)
        tell(f"MB of API, worker and runner after each 8 jobs: {held}")
        assert all(last < 1.03 * first + 2 for first, last in zip(held[1], held[2], strict=True))


def memory_after(place: Place, accepted: list[str]) -> list[float]:
    """MB that processes hold when 8 more jobs have ended."""
    for _ in range(4):
        accepted += [place.draw(), train(place, 10)]
    place.wait_for_end(*accepted)
    (worker,) = place.client.list_workers()
    worker_pid = place.pid_of_worker(worker["id"])
    pids = [place.pid_of_api(), worker_pid, *children_of(worker_pid)]
    return [round(memory_of(pid) / 1e6, 1) for pid in pids]


def memory_of(pid: int) -> int:
    """Bytes that are its own."""
    kilobytes = re.search(r"^Private_Dirty:\s+(\d+)", smaps_of(pid), re.MULTILINE)
    assert kilobytes
    return 1024 * int(kilobytes[1])


def smaps_of(pid: int) -> str:
    return Path(f"/proc/{pid}/smaps_rollup").read_text()
