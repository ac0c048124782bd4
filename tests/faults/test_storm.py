"""F15: many jobs, kills, freezes and flushes at random; every job ends once, as it should."""

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from api.client import Client
from tests.faults.place import Place, Where, embedded, rack, submit
from tests.faults.storm import Storm, recoveries_of, wait_for_all
from tests.support import pictures
from tests.support.server import Server

RECOVERY_SECONDS = 6.0
"""From a blow to the job's return, on a machine that two storms' worth of processes share; of a
frozen worker from the end of its lease."""
SOON_SECONDS = 60.0
"""Where other tests have the processors: not never."""
OWNERS = 5
SEEDS = [int(seed) for seed in os.environ.get("STORM_SEEDS", "1,2,3").split(",")]
Tell = Callable[[str], None]


def submit_all(server: Server, count: int, seed: int, folder: Path) -> list[str]:
    """``count`` jobs of several owners, drawings and trainings; ids of those that got a 201."""
    draw, clients = random.Random(seed), [_client_of(server, owner) for owner in range(OWNERS)]
    datasets = []
    for client in clients:
        dataset = client.create_dataset("dog")["id"]
        client.upload(dataset, pictures.write(folder / dataset, 2))
        datasets.append(dataset)
    accepted = []
    for _ in range(count):
        owner = draw.randrange(OWNERS)
        kind, spec = _some_work(draw, datasets[owner])
        accepted.append(submit(clients[owner], kind, spec))
    for client in clients:
        client.close()
    return accepted


def _client_of(server: Server, owner: int) -> Client:
    with server.client() as admin:
        key = admin.create_key("storm", owner=f"owner {owner}", scopes=["read", "write"])["key"]
    return server.client(key)


def _some_work(draw: random.Random, dataset: str) -> tuple[str, dict[str, Any]]:
    if draw.random() < 0.7:
        steps = draw.randint(1, 4)
        return "generate", {"base": "nano-ssd-1b", "prompt": "a dog", "steps": steps}
    return "fine_tune", {
        "base": "nano-ssd-1b",
        "dataset": dataset,
        "instance_prompt": "a sks dog",
        "steps": draw.randint(10, 40),
    }


def weather(
    place: Place,
    count: int,
    seed: int,
    folder: Path,
    tell: Tell,
    recovery_seconds: float = RECOVERY_SECONDS,
) -> None:
    began = time.monotonic()
    with Storm(place, seed) as damage:
        accepted = submit_all(place.server, count, seed, folder)
        wait_for_all(place.database, accepted, seconds=300 + 0.6 * count)
    seconds = time.monotonic() - began
    recoveries = recoveries_of(place.database, damage)
    tell(
        f"storm of seed {seed}, {'PostgreSQL and Redis' if place.broker_url else 'SQLite'}: "
        f"{len(accepted)} jobs in {seconds:.0f} s; {dict(damage.done)}; "
        f"{len(damage.blows)} blows hit a job, back after "
        f"{_spread(recoveries)}; {damage.released} devices released"
    )
    place.check(
        accepted=accepted,
        recoveries_seconds=[seconds for seconds, _ in recoveries],
        recovery_seconds=recovery_seconds,
    )


def _spread(recoveries: list[tuple[float, str]]) -> str:
    if not recoveries:
        return "nothing"
    (median, _), (most, fault) = recoveries[len(recoveries) // 2], recoveries[-1]
    return f"{median:.2f} s, at most {most:.2f} s ({fault})"


@pytest.mark.parametrize("where", [embedded, pytest.param(rack, marks=pytest.mark.faults)])
def test_a_squall(where: Where, tmp_path: Path, tell: Tell) -> None:
    with where(tmp_path / "home", "cpu,cpu,cpu") as place:
        weather(place, 60, 1, tmp_path, tell, recovery_seconds=SOON_SECONDS)


@pytest.mark.faults
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("where", [embedded, rack])
def test_a_storm(where: Where, seed: int, tmp_path: Path, tell: Tell) -> None:
    with where(tmp_path / "home", "cpu,cpu,cpu") as place:
        weather(place, 1000, seed, tmp_path, tell)
