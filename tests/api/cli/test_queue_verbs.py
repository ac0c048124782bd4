"""Verbs about the queue and the devices, against the API over a real socket."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.config import Settings
from core.db.engine import Database
from core.jobs import logs
from core.workers import devices
from core.workers import service as workers
from core.workers.service import Condition
from tests.api.cli.conftest import Run
from tests.api.live import Live
from tests.support import jobs as make

DRAW = ("generate", "a robot", "--base", "nano-ssd-1b")


@pytest.fixture
def database(live: Live) -> Iterator[Database]:
    """The server's own."""
    database = Database.of(Settings(home=live.home))
    yield database
    database.dispose()


@pytest.fixture
def worker(database: Database, live: Live) -> Iterator[str]:
    """On a device that is there for one test; the rows of one that has no lock are swept."""
    with database.write() as session:
        worker = workers.register(
            session,
            worker_id="wrk_1",
            host="elsewhere",
            pid=1,
            device="cuda:0",
            role="any",
            bases=make.BASES,
        )
        told = Condition(make.CHIP, make.BASES, resident=["nano-sdxl"])
        workers.beat(session, worker.id, told)
    yield worker.id
    with database.write() as session:
        devices.release(session, worker.id)
        workers.sign_off(session, worker.id)


def read(out: str) -> list[list[str]]:
    return [row.split("\t") for row in out.splitlines()]


def test_what_comes_after_a_job_waits_for_it(
    on_server: Run, pictures: Path, captioned: Path
) -> None:
    dataset = on_server("dataset", "create", "robot", str(pictures))[1].strip()
    learnt = on_server("dataset", "create", "robots", str(captioned))[1].strip()
    tuning = ("fine-tune", "--base", "nano-ssd-1b", "--instance-prompt", "sks")
    first = on_server(*tuning, "--dataset", dataset)[1].strip()
    recipe = ("train", "ssd_1b_dreambooth_lora_dog", "--base", "nano-ssd-1b")
    drawing, *others = (
        on_server(*command)[1].strip()
        for command in (
            (*DRAW, "--lora", f"{first}:0.8", "--deadline", "3600"),
            (*tuning, "--dataset", dataset, "--after", first),
            (*recipe, "--dataset", dataset, "--after", first),
            ("distill", "--teacher", "nano-sdxl", "--dataset", learnt, "--after", first),
        )
    )
    assert f"'job': '{first}', 'weight': 0.8" in on_server("jobs", "show", drawing)[1]
    on_server("cancel", first)
    for job in (drawing, *others):
        assert f"It was to come after '{first}'" in on_server("jobs", "show", job)[1]
        assert on_server("watch", job)[0] == 1
    code, _, err = on_server(*DRAW, "--after", first)
    assert (code, "nothing can come after it" in err) == (1, True)


def test_what_failed_is_tried_again(on_server: Run) -> None:
    job = on_server(*DRAW)[1].strip()
    code, _, err = on_server("retry", job)
    assert (code, "only what has failed" in err) == (1, True)
    on_server("cancel", job)
    code, out, err = on_server("retry", job)
    again = out.strip()
    assert code == 0
    assert again != job
    assert f"stillroom watch {again}" in err
    on_server("cancel", again)
    # nobody works here: what was begun too late expires, and `--watch` tells how it ended
    late = on_server(*DRAW, "--deadline", "0.01", "--watch")
    assert (late[0], "No device was free before its deadline" in late[2]) == (3, True)


def test_logs_are_lines(on_server: Run, database: Database) -> None:
    job = on_server(*DRAW)[1].strip()
    assert on_server("logs", job) == (0, "", "")
    with database.write() as session:
        logs.keep(session, job, ["one", "two [bold]", "three"])
    assert on_server("logs", job) == (0, "one\ntwo [bold]\nthree\n", "")
    assert on_server("logs", job, "--tail", "1") == (0, "three\n", "")
    assert on_server("logs", job, "--tail", "0")[0] == 2
    on_server("cancel", job)


def test_the_queue_is_told_in_its_order(on_server: Run) -> None:
    jobs = [on_server(*DRAW, "--priority", priority)[1].strip() for priority in ("-1", "0")]
    code, out, err = on_server("queue")
    assert code == 0
    places = read(out)
    assert [place[1] for place in places] == jobs[::-1]
    assert [int(place[0]) for place in places] == sorted(int(place[0]) for place in places)
    assert {place[2] for place in places} == {""}  # nothing was measured here
    assert re.search(r"\d+ wait for a device and 0 run", err)
    for job in jobs:
        on_server("cancel", job)
    assert on_server("queue")[1] == ""


def test_workers_are_listed_drained_and_released(on_server: Run, worker: str) -> None:
    def row() -> list[str]:
        (found,) = (row for row in read(on_server("workers")[1]) if row[0] == worker)
        return found

    assert row()[:7] == ["wrk_1", "cuda:0", "any", "open", "8.0 GB", "nano-sdxl", ""]
    assert re.fullmatch(r"\d+ s ago", row()[7])
    code, out, err = on_server("workers", "drain", worker)
    assert (code, out) == (0, "")
    assert "cuda:0 takes no further job" in err
    assert (row()[3], row()[8]) == ("drained", "Somebody asked to.")
    assert on_server("workers", "release", worker) == (0, "", "cuda:0 takes jobs again.\n")
    assert row()[3] == "open"
    code, _, err = on_server("workers", "drain", "wrk_2")
    assert (code, err) == (1, "There is no worker 'wrk_2'.\n")


def test_a_worker_that_is_not_ready_is_starting_unless_it_is_held_back(
    on_server: Run, worker: str, database: Database
) -> None:
    with database.write() as session:
        workers.beat(session, worker, Condition(None, []))
    assert read(on_server("workers")[1])[0][3] == "starting"
    on_server("workers", "drain", worker)
    assert read(on_server("workers")[1])[0][3] == "drained"
