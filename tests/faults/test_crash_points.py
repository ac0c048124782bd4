"""Every labelled point at which a process may die: it does, once, and the work is done all the
same."""

import re
from pathlib import Path

import pytest

from tests.faults.place import Place, Where, embedded, insistently, rack
from tests.support import pictures
from tests.support.server import kill, wait_until

ROOT = Path(__file__).parents[2]
_POINT = re.compile(r"crash\.point\(\"([^\"]+)\"\)")
_IN_A_TRAINING = "checkpoint: "
"""Labels of the real recipe, which the light runner does not come by."""


def labels() -> list[str]:
    """As the code has them."""
    sources = [
        *(path for room in ("api", "core", "worker") for path in (ROOT / room).rglob("*.py"))
    ]
    sources.append(ROOT / "tests/support/light_runner.py")
    found = [label for path in sources for label in _POINT.findall(path.read_text())]
    assert len(found) == len(set(found)), "a label is the name of one point"
    return sorted(found)


LIGHT_LABELS = [label for label in labels() if not label.startswith(_IN_A_TRAINING)]
QUICK_LABELS = ["after a submit", "claimed", "after the put", "inside success"]


def come_by_every_point(place: Place, mark: Path) -> None:
    """A life with all that befalls a job: its worker dies, it is paused and goes on, it ends."""
    sent = pictures.write(mark.parent / "sent", 3)
    dataset = place.client.create_dataset("sent in pieces")["id"]
    assert insistently(place.client.upload, dataset, sent)["dataset"]["images"] == 3
    drawn, trained = place.draw(), place.train(steps=200)
    place.wait_for_step(trained, 7)
    kill(place.pid_of_worker_of(trained))
    place.wait_for(lambda: len(place.moves(trained)) >= 4, "it is begun again")
    insistently(place.client.pause, trained)
    place.wait_for(lambda: place.job(trained).state in ("paused", "succeeded"), "it is paused")
    if place.job(trained).state == "paused":
        insistently(place.client.resume, trained)
    later = place.draw()
    place.wait_for_end(drawn, trained, later)
    wait_until(mark.exists, 10, "a process died at the point")
    place.check(accepted=[drawn, trained, later])


def walk(label: str, where: Where, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with where(tmp_path / "home", "cpu") as place:
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
