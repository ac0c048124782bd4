"""The same server on PostgreSQL and Redis: the bell alone brings a job to an idle worker."""

from pathlib import Path

from tests.support.databases import postgres_database
from tests.support.redis import redis_server
from tests.support.server import running


def test_a_job_on_postgresql_and_redis(tmp_path: Path) -> None:
    with postgres_database() as database, redis_server(tmp_path) as broker_url:
        environment = {
            "STILLROOM_DATABASE_URL": database.engine.url.render_as_string(hide_password=False),
            "STILLROOM_BROKER_URL": broker_url,
            "STILLROOM_POLL_SECONDS": "600",  # no safety net in this test
        }
        with running(tmp_path / "home", **environment) as server, server.client() as client:
            for seed in range(2):
                job = client.generate(
                    {"base": "nano-ssd-1b", "prompt": "a red circle", "steps": 2, "seed": seed}
                )
                done = client.wait(job["id"])
                assert done["state"] == "succeeded", done["error"]
                assert done["usage"]["queue_seconds"] < 60
            assert not server.settings.sqlite_path.exists()
            assert server.end() == 0
