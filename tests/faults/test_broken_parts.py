"""Databases, brokers, disks and devices that are away or broken: what was accepted is done."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import redis
from sqlalchemy import text

from api.client import ApiError
from core.jobs.bell import LOOK
from tests.faults.place import Place, Where, embedded, freeze, hears_the_bell, rack
from tests.support.redis import redis_server
from tests.support.server import children_of, descendants_of, is_running, kill, wait_until

PATIENT = {"STILLROOM_LEASE_SECONDS": "60"}
"""Where a job is given back for one reason only: a slow worker is no silent one."""


@pytest.mark.parametrize("where", [embedded, pytest.param(rack, marks=pytest.mark.faults)])
def test_a_worker_frozen_past_its_lease_wakes_up_and_writes_nothing(
    where: Where, tmp_path: Path
) -> None:
    """F4"""
    with where(tmp_path / "home", "cpu,cpu") as place:
        job = place.train(steps=400)
        place.wait_for_step(job, 6)
        frozen = place.pid_of_worker_of(job)
        freeze(frozen, place.database)
        place.wait_for(lambda: place.job(job).attempt == 2, "another worker has it", 60)
        os.kill(frozen, signal.SIGCONT)
        place.wait_for(lambda: not is_running(frozen), "the one that was given up has ended", 60)
        place.wait_for_end(job)
        place.check(accepted=[job])


@pytest.mark.faults
def test_a_second_signal_ends_everything_at_once(tmp_path: Path) -> None:
    """F5"""
    with embedded(tmp_path / "home", "cpu") as place:
        job = place.train(steps=300)
        place.wait_for_step(job, 6)
        place.server.process.send_signal(signal.SIGINT)
        place.server.process.send_signal(signal.SIGINT)
        assert place.server.process.wait(5) == 0
        place.server.start_again()
        place.wait_for_end(job)
        assert place.job(job).attempt == 2
        place.check(accepted=[job])


def test_ctrl_c_reaches_the_whole_group_and_the_job_is_saved(tmp_path: Path) -> None:
    """F5: a terminal sends it to every process of the group, and only the supervisor may act."""
    with embedded(tmp_path / "home", "cpu", **PATIENT) as place:
        job = place.train(steps=400)
        place.wait_for_step(job, 6)
        everyone = descendants_of(place.server.process.pid)
        os.killpg(place.server.process.pid, signal.SIGINT)
        assert place.server.process.wait(20) == 0
        assert not any(map(is_running, everyone))
        place.server.start_again()
        place.wait_for_end(job)
        assert place.reasons(job) == ["worker_stopped"]
        place.check(accepted=[job], checkpoint_steps=1)


def test_a_broker_that_is_flushed_full_of_rubbish_or_away_costs_only_time(tmp_path: Path) -> None:
    """F6"""
    with rack(tmp_path / "home", STILLROOM_POLL_SECONDS="3") as place:
        done = [place.draw()]
        with redis.Redis.from_url(place.broker_url) as broker:
            broker.flushall()
            done.append(place.draw())
            for _ in range(10):
                for rubbish in (b"rubbish", b"{}", json.dumps({"body": "e30=", "headers": {}})):
                    # Rubbish may cost a worker its connection: the next is for when it is back.
                    place.wait_for(
                        partial(broker.publish, f"/0.{LOOK}/{LOOK}", rubbish), "one hears it", 60
                    )
            done.append(place.draw())
            place.wait_for_end(*done)
            broker.shutdown(nosave=True)
        began = time.monotonic()
        done += [place.draw(), place.draw()]
        assert time.monotonic() - began < 15, "a client waits for the broker no ten seconds a job"
        place.wait_for_end(*done)
        with redis_server(tmp_path, port=int(place.broker_url.split(":")[2].partition("/")[0])):
            place.wait_for(lambda: hears_the_bell(place, done), "the new one is heard", 60)
            place.check(accepted=done)


def test_a_worker_begins_without_a_broker(tmp_path: Path) -> None:
    """F6: and ends without one; it finds work by looking."""
    with rack(tmp_path / "home", STILLROOM_POLL_SECONDS="1") as place:
        with redis.Redis.from_url(place.broker_url) as broker:
            broker.shutdown(nosave=True)
        everyone = descendants_of(place.server.process.pid)
        assert place.server.end() == 0
        wait_until(lambda: not any(map(is_running, everyone)), 60, "all have ended")
        place.server.start_again()
        done = [place.draw()]
        place.wait_for_end(*done)
        with redis_server(tmp_path, port=int(place.broker_url.split(":")[2].partition("/")[0])):
            place.wait_for(lambda: hears_the_bell(place, done), "the new one is heard", 60)
            place.check(accepted=done)


@pytest.mark.faults
def test_a_database_that_loses_every_connection(tmp_path: Path) -> None:
    """F7"""
    with rack(tmp_path / "home") as place:
        job = place.train(steps=150)
        for step in (10, 40, 70):
            place.wait_for_step(job, step)
            with place.database.engine.connect() as connection:
                connection.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                    )
                )
        place.wait_for_end(job)
        assert place.job(job).attempt == 1
        place.check(accepted=[job])


@pytest.mark.faults
@pytest.mark.parametrize("seconds", [20, 5])
def test_a_database_file_that_somebody_holds_locked(seconds: float, tmp_path: Path) -> None:
    """F7: longer than the lease of 3 s. The runner stops by itself, and nobody writes twice."""
    with embedded(tmp_path / "home", "cpu,cpu") as place:
        job = place.train(steps=150)
        place.wait_for_step(job, 6)
        with sqlite3.connect(place.server.settings.sqlite_path, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
            other.execute("ROLLBACK")
        other.close()
        place.wait_for_end(job)
        place.check(accepted=[job])


@pytest.mark.parametrize(
    ("prompt", "code"),
    [
        ("segfault", "worker_lost"),
        pytest.param("exit", "worker_lost", marks=pytest.mark.faults),
        pytest.param("spin", "worker_lost", marks=pytest.mark.faults),
        pytest.param("devour", "out_of_memory", marks=pytest.mark.faults),
        pytest.param("no disk", None, marks=pytest.mark.faults),
    ],
)
def test_a_job_that_harms_its_runner_harms_nobody_else(
    prompt: str, code: str | None, tmp_path: Path
) -> None:
    """F8, F11, F12"""
    quick = {"STILLROOM_RETRY_SECONDS": "[0.1]", "STILLROOM_WATCHDOG_SECONDS": "0.5"}
    with embedded(tmp_path / "home", "cpu,cpu", **quick) as place:
        poison, healthy = place.draw(prompt), [place.draw() for _ in range(6)]
        place.wait_for_end(poison, *healthy)
        error = place.job(poison).error
        assert (error and error["code"]) == code
        place.check(accepted=[poison, *healthy], failed=[poison] if code else [])


def test_a_device_that_kills_every_job_is_put_in_quarantine(tmp_path: Path) -> None:
    """F18, F20"""
    quick = {"STILLROOM_RETRY_SECONDS": "[0.1]", "LIGHT_BROKEN_DEVICE": "cpu:2", **PATIENT}
    with embedded(tmp_path / "home", "cpu,cpu,cpu,cpu", **quick) as place:
        jobs: list[str] = []

        def one_is_shut() -> bool:
            """With fresh jobs until then: what died there once is drawn elsewhere."""
            jobs.append(place.draw())
            return any(worker["quarantined"] for worker in place.client.list_workers())

        place.wait_for(one_is_shut, "a device is in quarantine")
        place.wait_for_end(*jobs)
        lost = [place.reasons(job) for job in jobs if place.reasons(job)]
        assert sorted({reason for reasons in lost for reason in reasons}) == [
            *("device_quarantined", "runner_lost"),
        ]
        assert all(len(reasons) == 1 for reasons in lost), "each job is lost there once at most"
        assert count_deaths(place, jobs, "cpu:2") == 2
        workers = {worker["device"]: worker for worker in place.client.list_workers()}
        assert {name for name, worker in workers.items() if worker["quarantined"]} == {"cpu:2"}
        reason = str(workers["cpu:2"]["reason"])
        assert sum(job in reason for job in jobs) == 2, "one of those that died at each time"
        place.check(accepted=jobs)


def count_deaths(place: Place, jobs: list[str], device: str) -> int:
    """Of its runner: what was begun together died together."""
    begun = [
        (move.data.get("batch", job))
        for job in jobs
        for move in place.moves(job)
        if move.data["state"] == "running" and move.data["device"] == device
    ]
    return len(set(begun))


def test_a_device_falls_off_the_bus(tmp_path: Path) -> None:
    """F20: CUDA's errors stick to a process; the job goes on in another one."""
    with embedded(tmp_path / "home", "cpu", STILLROOM_RETRY_SECONDS="[0.1]", **PATIENT) as place:
        job = place.draw("off the bus")
        place.wait_for_end(job)
        assert place.reasons(job) == ["runner_lost"]
        place.check(accepted=[job])


def test_a_second_worker_on_a_device_is_refused(tmp_path: Path) -> None:
    """F16"""
    with embedded(tmp_path / "home", "cpu") as place:
        (worker,) = place.client.list_workers()
        second = subprocess.run(
            [sys.executable, "-m", "worker"],
            env={**os.environ, **place.server.environment, "STILLROOM_DEVICE": "cpu"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert second.returncode != 0
        assert "drives cpu already" in second.stderr
        assert [each["id"] for each in place.client.list_workers()] == [worker["id"]]
        place.check(accepted=[])


def test_a_worker_of_another_revision_claims_nothing_and_says_so(tmp_path: Path) -> None:
    """F19: somebody has upgraded the database beside workers that still run."""
    with embedded(tmp_path / "home", "cpu") as place:
        with place.database.write() as session:
            (ours,) = session.execute(text("SELECT version_num FROM alembic_version")).one()
            session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        job = place.draw()
        refusals = ("cannot claim: The database", "the reaper cannot look: The database")
        place.wait_for(
            lambda: all(said in place.server.log() for said in refusals), "it is said why", 60
        )
        with pytest.raises(ApiError, match="is of revision 9999, this process of") as refused:
            place.client.readyz()
        assert refused.value.code == "wrong_revision"
        assert place.job(job).state == "queued"
        with place.database.write() as session:
            session.execute(text(f"UPDATE alembic_version SET version_num = '{ours}'"))
        place.wait_for_end(job)
        place.check(accepted=[job])


def test_a_device_that_is_drained_ends_its_job_and_takes_no_other(tmp_path: Path) -> None:
    with embedded(tmp_path / "home", "cpu", **PATIENT) as place:
        running = place.train(steps=200)
        place.wait_for_step(running)
        (worker,) = place.client.list_workers()
        assert worker["job"] == running
        assert place.client.drain_worker(worker["id"])["state"] == "drained"
        waiting = place.draw()
        place.wait_for_end(running)
        time.sleep(1)
        assert place.job(waiting).state == "queued"
        with pytest.raises(ApiError, match="drained"):
            place.client.readyz()
        place.client.release_worker(worker["id"])
        place.wait_for_end(waiting)
        place.check(accepted=[running, waiting])


@pytest.mark.parametrize("where", [embedded, pytest.param(rack, marks=pytest.mark.faults)])
def test_a_picture_of_higher_priority_makes_a_training_yield(where: Where, tmp_path: Path) -> None:
    """At once, with a broker too: a busy worker hears the bell."""
    with where(tmp_path / "home", "cpu", STILLROOM_POLL_SECONDS="60", **PATIENT) as place:
        training = place.train(steps=400)
        place.wait_for_step(training, 6)
        picture = place.draw(priority=1)
        place.wait_for_end(picture)
        assert place.job(training).finished_at is None
        place.wait_for_end(training)
        assert place.reasons(training) == ["preempted"]
        place.check(accepted=[training, picture])


def test_an_api_that_is_killed_while_it_takes_jobs_loses_none(tmp_path: Path) -> None:
    """F13: nor does it make two of one that was sent twice."""
    with embedded(tmp_path / "home", "cpu,cpu") as place:
        with ThreadPoolExecutor(4) as clients:
            sent = [clients.submit(place.draw) for _ in range(60)]
            for done in (15, 40):
                place.wait_for(lambda: sum(map(Future.done, sent)) >= done, f"{done} are sent")  # noqa: B023  # called at once
                os.kill(place.pid_of_api(), signal.SIGKILL)
            accepted = [each.result() for each in sent]
        place.wait_for_end(*accepted)
        place.check(accepted=accepted)
        assert len(set(accepted)) == 60


@pytest.mark.faults
@pytest.mark.parametrize("jump_seconds", [-7200.0, 7200.0])
def test_a_wall_clock_that_is_set_costs_nothing(jump_seconds: float, tmp_path: Path) -> None:
    """F9: under all processes at once, while jobs run, wait and have been lost; and back again."""
    clock = tmp_path / "clock"
    clock.write_text("0")
    with embedded(tmp_path / "home", "cpu,cpu", SHIFTED_CLOCK=str(clock)) as place:
        jobs = [place.train(steps=150), place.draw()]
        place.wait_for_step(jobs[0], 6)
        for off_seconds in (jump_seconds, 0.0):
            replacing_text(clock, str(off_seconds))
            jobs += [place.draw(), place.train(steps=20)]
            attempt = place.job(jobs[0]).attempt
            (runner,) = children_of(place.pid_of_worker_of(jobs[0]))
            kill(runner)
            place.wait_for(lambda: place.job(jobs[0]).attempt > attempt, "it goes on", 30)  # noqa: B023  # called at once
        place.wait_for_end(*jobs)
        place.check(accepted=jobs, is_clock_steady=False)


def replacing_text(path: Path, text: str) -> None:
    """At once: somebody reads it all the time."""
    aside = path.with_suffix(".new")
    aside.write_text(text)
    aside.replace(path)


@pytest.mark.faults
def test_a_worker_with_a_broker_saves_what_it_runs_before_it_ends(tmp_path: Path) -> None:
    """F5: whatever thread its drain runs in. The second time the runner brings the job up itself,
    and with a broker that is no thread of Celery's."""
    with rack(tmp_path / "home", "cpu") as place:
        job = place.train(steps=200)
        for step in (7, 20):
            place.wait_for_step(job, step)
            assert place.server.end() == 0
            place.server.start_again()
        place.wait_for_end(job)
        assert place.reasons(job) == ["worker_stopped", "worker_stopped"]
        place.check(accepted=[job], checkpoint_steps=1)


def test_a_supervisor_that_is_killed_takes_all_along(tmp_path: Path) -> None:
    """F1: it alone, by kill -9: nobody is left to drive a device or to answer."""
    with embedded(tmp_path / "home", "cpu,cpu") as place:
        job = place.train(steps=150)
        place.wait_for_step(job, 6)
        everyone = descendants_of(place.server.process.pid)
        kill(place.server.process.pid)
        place.server.process.wait()
        place.wait_for(lambda: not any(map(is_running, everyone)), "nobody is left", 60)
        place.server.start_again()
        place.wait_for_end(job)
        place.check(accepted=[job])
