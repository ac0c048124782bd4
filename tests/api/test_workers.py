"""/v1/workers: who drives which device, what it does, and taking it out of service."""

from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from api.main import create_app
from core.config import Settings
from core.db.models import Worker
from core.ids import new_id
from core.workers import devices
from core.workers import service as workers
from core.workers.service import Condition
from tests.api.conftest import Person, Server
from tests.api.test_queue import begin, draw
from tests.support.jobs import CHIP


def told_of(person: Person, worker_id: str) -> dict[str, Any]:
    (found,) = (
        worker for worker in person.get("/v1/workers").json()["items"] if worker["id"] == worker_id
    )
    return found  # type: ignore[no-any-return]


def new_worker(server: Server) -> str:
    """On a device of its own."""
    return server.worker("nano-sdxl", device=new_id("req"))


def test_workers_are_listed_with_their_devices(ann: Person, server: Server) -> None:
    worker = told_of(ann, new_worker(server))
    assert set(worker) == {
        *("id", "host", "device", "role", "chip", "memory_bytes", "models", "resident", "job"),
        *("busy", "beat_age_seconds", "ready", "state", "quarantined", "reason"),
    }
    assert (worker["host"], worker["role"], worker["models"]) == ("elsewhere", "any", ["nano-sdxl"])
    assert (worker["state"], worker["quarantined"], worker["reason"]) == ("open", False, None)
    assert (worker["job"], worker["busy"], worker["ready"]) == (None, False, True)
    assert 0 <= worker["beat_age_seconds"] < 60


def test_a_base_is_available_while_the_runner_of_its_worker_begins_again(
    ann: Person, server: Server
) -> None:
    worker = server.worker("ssd-1b", device=new_id("req"))
    with server.database.write() as session:
        workers.beat(session, worker, Condition(None, ["ssd-1b"]))
    assert told_of(ann, worker)["ready"] is False
    models = {model["id"]: model["available"] for model in ann.get("/v1/models").json()["items"]}
    assert models["ssd-1b"] is True
    assert draw(ann, spec={"base": "ssd-1b", "prompt": "a red circle"})["state"] == "queued"
    with server.database.write() as session:
        workers.sign_off(session, worker)


def test_what_a_worker_holds_in_memory_names_no_artifact(ann: Person, server: Server) -> None:
    """It is somebody's."""
    worker = new_worker(server)
    held = [new_id("art"), "nano-sdxl"]
    with server.database.write() as session:
        workers.beat(session, worker, Condition(CHIP, ["nano-sdxl"], held))
    assert told_of(ann, worker)["resident"] == ["nano-sdxl"]


def test_what_a_worker_runs_is_told_to_its_owner_alone(
    ann: Person, bob: Person, server: Server
) -> None:
    job = draw(ann)["id"]
    begin(server, job)
    worker = ann.get(f"/v1/jobs/{job}").json()["worker"]
    assert (told_of(ann, worker)["job"], told_of(ann, worker)["busy"]) == (job, True)
    assert (told_of(bob, worker)["job"], told_of(bob, worker)["busy"]) == (None, True)
    assert job not in bob.get("/v1/workers").text


def test_an_administrator_drains_and_releases(admin: Person, server: Server) -> None:
    worker = new_worker(server)
    for action, state in (("drain", "drained"), ("release", "open")):
        for _ in range(2):  # repeating is harmless
            answer = admin.post(f"/v1/workers/{worker}/{action}")
            assert (answer.status_code, answer.json()["state"]) == (202, state)
            assert answer.json() == told_of(admin, worker) | {
                "beat_age_seconds": answer.json()["beat_age_seconds"]
            }
        assert admin.post(f"/v1/workers/wrk_nobody/{action}").status_code == 404


def test_nobody_else_does(ann: Person, server: Server) -> None:
    worker = new_worker(server)
    for action in ("drain", "release"):
        refused = ann.post(f"/v1/workers/{worker}/{action}")
        assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    assert server.person("write").get("/v1/workers").status_code == 403


def test_a_quarantine_says_why_and_is_ended(admin: Person, server: Server) -> None:
    worker = new_worker(server)
    with server.database.write() as session:
        device_id = session.get_one(Worker, worker).device_id
        for job in ("job_1", "job_2"):
            devices.lose(session, device_id, [job])
    held = told_of(admin, worker)
    assert (held["state"], held["quarantined"]) == ("quarantined", True)
    assert held["reason"] == "Its runner died of 'job_1' and then of 'job_2'."
    released = admin.post(f"/v1/workers/{worker}/release").json()
    assert (released["state"], released["quarantined"], released["reason"]) == ("open", False, None)


def test_a_server_whose_devices_are_held_back_is_not_ready(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with TestClient(create_app(settings), base_url="http://localhost") as http:
        server = Server(http, settings)
        worker = server.worker()
        with server.database.write() as session:
            devices.drain(session, worker)
        held = http.get("/readyz")
        assert (held.status_code, held.json()["code"]) == (503, "no_worker")
        assert held.json()["detail"].startswith("A device is drained: `stillroom workers`")
        with server.database.write() as session:
            devices.release(session, worker)
        assert http.get("/readyz").json() == {"status": "ready", "workers": 1}
