"""Every labelled point at which a process may die: it does, once, and the work is done all the
same."""

import re
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy.exc import NoResultFound

from tests.faults.place import Place, Where, embedded, insistently, rack
from tests.support import loras, pictures
from tests.support.server import children_of, kill, wait_until

ROOT = Path(__file__).parents[2]
_POINT = re.compile(r"crash\.point\(\"([^\"]+)\"\)")
_ELSEWHERE = ("checkpoint: ", "retention: ", "webhooks: ")
"""Labels that tests of their own walk: of the real recipe, of what happens once a minute, and of
what a job may go without."""


def labels() -> list[str]:
    """As the code has them."""
    sources = [
        *(path for room in ("api", "core", "worker") for path in (ROOT / room).rglob("*.py"))
    ]
    sources.append(ROOT / "tests/support/light_runner.py")
    found = [label for path in sources for label in _POINT.findall(path.read_text())]
    assert len(found) == len(set(found)), "a label is the name of one point"
    return sorted(found)


LIGHT_LABELS = [label for label in labels() if not label.startswith(_ELSEWHERE)]
QUICK_LABELS = ["inside success"]


def come_by_every_point(place: Place, mark: Path) -> None:
    """All that befalls a job: its worker dies, its runner too, it is paused and goes on, it ends
    well, or fails, or is cancelled."""
    sent = pictures.write(mark.parent / "sent", 3)
    dataset = place.client.create_dataset("sent in pieces")["id"]
    assert insistently(place.client.upload, dataset, sent)["dataset"]["images"] == 3
    brought = mark.parent / "brought.safetensors"
    brought.write_bytes(loras.file_of(loras.spelt(loras.peft, loras.unet_pairs())))
    insistently(place.client.upload_lora, brought)
    drawn, trained = place.draw(), place.train(steps=200)
    place.wait_for_step(trained, 7)
    kill(place.pid_of_worker_of(trained))
    place.wait_for(lambda: len(place.moves(trained)) >= 4, "it is begun again")
    insistently(place.client.pause, trained)
    place.wait_for(lambda: place.job(trained).state in ("paused", "succeeded"), "it is paused")
    if place.job(trained).state == "paused":
        insistently(place.client.resume, trained)
    lost, unwanted, failing = place.train(steps=300), place.train(steps=500), place.draw("devour")
    place.wait_for_step(lost, 7)
    attempt = place.job(lost).attempt
    with suppress(NoResultFound, ValueError):  # it died by itself just now
        kill(*children_of(place.pid_of_worker_of(lost)))
        place.wait_for(lambda: place.job(lost).attempt > attempt, "it is begun again")
    place.wait_for_step(unwanted, 7)
    insistently(place.client.cancel, unwanted)
    ended = [drawn, trained, lost, unwanted, failing, place.draw()]
    place.wait_for_end(*ended)
    wait_until(mark.exists, 60, "a process died at the point")
    place.check(accepted=ended, failed=[failing], cancelled=[unwanted])


def walk(label: str, where: Where, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with where(tmp_path / "home", "cpu", STILLROOM_RETRY_SECONDS="[0.1]") as place:
        place.server.end()
        place.server.environment |= {
            "STILLROOM_CRASH_AT": label,
            "STILLROOM_CRASH_MARK": str(mark),
        }
        place.server.start_again()
        come_by_every_point(place, mark)


@pytest.mark.parametrize("label", QUICK_LABELS)
def test_a_process_that_dies_there_costs_nothing(label: str, tmp_path: Path) -> None:
    walk(label, embedded, tmp_path)


@pytest.mark.faults
@pytest.mark.parametrize("label", LIGHT_LABELS)
@pytest.mark.parametrize("where", [embedded, rack])
def test_a_process_that_dies_anywhere_costs_nothing(
    label: str, where: Where, tmp_path: Path
) -> None:
    walk(label, where, tmp_path)
