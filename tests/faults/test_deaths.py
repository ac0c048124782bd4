"""Processes that die, and what becomes of their job: it goes on, and nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from api.answers import Job
from api.client import Client
from core.artifacts.store import Store
from core.db.engine import Database
from tests.faults.place import embedded
from tests.support import pictures
from tests.support.invariants import Expected, check
from tests.support.server import (
    Server,
    descendants_of,
    is_running,
    kill,
    running,
    wait_until,
)

RECOVERY_SECONDS = 15.0
"""From a death on this host to the job's return to the queue. Storms hold I10 to less, on a machine
that they have to themselves; here a torch begins beside it, and other tests run."""

CHECKPOINT_EVERY = 5


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("faults") / "home") as server:
        yield server
        check_every_promise(server)


def check_every_promise(server: Server) -> None:
    """Of the queue, whatever happened to it."""
    with server.client() as client:
        accepted = [job["id"] for job in client.list_jobs()]
    database = Database.of(server.settings)
    told = Expected(accepted=accepted, checkpoint_steps=CHECKPOINT_EVERY)
    found = check(database, Store.of(server.settings), told)
    database.dispose()
    assert not found, found


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def dataset(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    with server.client() as client:
        dataset = client.create_dataset("dog")
        client.upload(dataset["id"], pictures.write(tmp_path_factory.mktemp("pictures"), 2))
    return dataset["id"]


def begin(client: Client, dataset: str, steps: int = 30, past: int = 1, **fields: Any) -> Job:
    """A training that is past its first steps."""
    spec: dict[str, Any] = {
        "base": "nano-ssd-1b",
        "dataset": dataset,
        "instance_prompt": "a photo of sks dog",
        "steps": steps,
        "checkpoint_every": CHECKPOINT_EVERY,
        **fields,
    }
    job = client.fine_tune(spec)
    for now, _ in client.watch(job["id"]):
        if now["progress"]["step"] >= past:
            return now
    raise AssertionError(f"it ended before it began: {client.job(job['id'])}")


def states(client: Client, job: Job) -> list[str]:
    return [e["data"]["state"] for e in client.events(job["id"]) if e["type"] == "state"]


def check_it_ended_once(client: Client, job: Job, attempt: int) -> Job:
    ended = client.wait(job["id"])
    assert (ended["state"], ended["attempt"]) == ("succeeded", attempt), ended["error"]
    assert states(client, job).count("succeeded") == 1
    roles = [artifact["role"] for artifact in client.artifacts_of(job["id"])]
    on_the_way = ("sample", "snapshot")
    assert [role for role in roles if role not in on_the_way] == ["lora", "lora_kohya", "report"]
    attempts = [event["attempt"] for event in client.events(job["id"])]
    assert attempts == sorted(attempts)
    return ended


SAVING: dict[str, Any] = {
    "checkpoint_every": 2,
    "lora": {"rank": 2, "dropout": 0.1},
    "ema": 0.9,
    "learning_rate": 1e-3,
    "seed": 5,
    "sample": {"prompts": ["a dog"], "every": 12, "steps": 2},
    "keep_every": 12,
}


def test_a_training_that_is_killed_goes_on_from_its_checkpoint_to_the_same_bytes(
    server: Server, client: Client, dataset: str, tmp_path: Path
) -> None:
    job = begin(client, dataset, steps=36, past=10, **SAVING)
    kill(server.runner_pid())
    wait_until(
        lambda: states(client, job)[:3] == ["queued", "running", "queued"],
        RECOVERY_SECONDS,
        "the job is back in the queue",
    )
    ended = check_it_ended_once(client, job, attempt=2)
    assert resumed_from(client, job) >= 8
    undisturbed = client.wait(begin(client, dataset, steps=36, **SAVING)["id"])
    results = [done["result"] or {} for done in (ended, undisturbed)]
    first, second = (
        client.download(result["lora"], tmp_path / result["lora"]) for result in results
    )
    assert first.read_bytes() == second.read_bytes()
    report = client.download(results[0]["report"], tmp_path / "report.json")
    assert json.loads(report.read_text())["exact"] is True
    assert [len(result["samples"]) for result in results] == [3, 3]
    assert [len(result["snapshots"]) for result in results] == [2, 2]


def resumed_from(client: Client, job: Job) -> int:
    (said,) = [
        event["data"]["message"]
        for event in client.events(job["id"])
        if str(event["data"].get("message")).startswith("going on from step")
    ]
    return int(said.split()[-1])


def test_a_killed_worker_takes_its_runner_along_and_is_replaced(
    server: Server, client: Client, dataset: str
) -> None:
    job = begin(client, dataset)
    worker, runner = server.worker_pid(), server.runner_pid()
    kill(worker)
    wait_until(lambda: not is_running(runner), 15, "the runner has ended with its worker")
    wait_until(lambda: "queued" in states(client, job)[1:], RECOVERY_SECONDS, "the job is back")
    check_it_ended_once(client, job, attempt=2)
    assert server.worker_pid() != worker


def test_everything_killed_at_once_and_started_again(tmp_path: Path) -> None:
    with embedded(tmp_path / "home", "cpu") as place:
        job = place.train(steps=200)
        place.wait_for_step(job, 6)
        everyone = [place.server.process.pid, *descendants_of(place.server.process.pid)]
        for pid in everyone:
            with suppress(ProcessLookupError):  # it has died with its parent
                kill(pid)
        place.server.process.wait()
        wait_until(lambda: not any(map(is_running, everyone)), 60, "nobody is left")
        place.server.start_again()
        place.wait_for_end(job)
        assert place.job(job).attempt == 2
        place.check(accepted=[job])


def test_an_api_that_is_killed_is_replaced_and_the_job_goes_on(tmp_path: Path) -> None:
    with embedded(tmp_path / "home", "cpu") as place:
        job = place.train(steps=200)
        place.wait_for_step(job, 6)
        api = place.pid_of_api()
        kill(api)
        place.server.wait_until_ready()
        assert place.pid_of_api() != api
        place.wait_for_end(job)
        assert place.job(job).attempt == 1
        place.check(accepted=[job])


def test_a_second_server_on_one_home_is_refused(server: Server) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "worker.supervisor"],
        env={**os.environ, **server.environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 1
    assert "Another `stillroom serve` runs on" in second.stderr


def test_sigterm_gives_the_job_back_and_ends_in_time(
    server: Server, client: Client, dataset: str
) -> None:
    job = begin(client, dataset, steps=40)
    everyone = descendants_of(server.process.pid)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0
    assert not any(map(is_running, everyone))
    assert not list(server.settings.run_path.glob("wrk_*.lock"))
    server.start_again()
    check_it_ended_once(client, job, attempt=2)
    assert resumed_from(client, job) >= 1
    given_back = [e["data"] for e in client.events(job["id"]) if e["data"].get("reason")]
    assert [data["reason"] for data in given_back] == ["worker_stopped"]
