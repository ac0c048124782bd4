"""What a job would take: from tables, from what was measured, and refused where it cannot fit."""

from typing import Any

import pytest

from core import bases, estimate
from core.config import Settings
from core.db.engine import Database
from core.db.models import Rate
from core.errors import DoesNotFit
from core.jobs import rates
from core.jobs import service as jobs
from core.jobs.admission import parse
from core.jobs.forecast import Forecast
from core.ladder import rungs
from core.specs import AnySpec, FineTuneSpec
from core.workers import service as workers
from core.workers.chip import Chip
from core.workers.service import Condition
from tests.core.jobs.test_service import fine_tune, make_dataset
from tests.support.jobs import BASES, register, submit

CHIP = "Imaginary 8000"


def give_worker(
    database: Database, settings: Settings, memory_bytes: int | None, *, device: str = "cpu"
) -> None:
    worker = register(database, settings)
    with database.write() as session:
        session.merge(worker).device = device
        workers.beat(session, worker.id, Condition(Chip(CHIP, memory_bytes), [*BASES, "ssd-1b"]))


def rehearse(database: Database, settings: Settings, spec: dict[str, Any]) -> Forecast:
    with database.write() as session:
        kind = "fine_tune" if "dataset" in spec else "generate"
        return jobs.rehearse(session, settings, "ada", parse(kind, spec))


def parsed(**fields: Any) -> FineTuneSpec:
    return FineTuneSpec.model_validate(fine_tune("d") | fields)


def measure(database: Database, spec: AnySpec, per_step: float, other: float) -> None:
    with database.write() as session:
        rates.remember(session, CHIP, "ada", spec, seconds_per_step=per_step, other_seconds=other)


def test_it_tells_the_rung_that_fits(any_database: Database, settings: Settings) -> None:
    dataset = make_dataset(any_database, 5)
    spec = fine_tune(dataset, base="ssd-1b", precision="fp32")
    small = FineTuneSpec.model_validate(spec)
    ladder = [
        estimate.training_bytes(small, bases.find("ssd-1b"), rung, pictures=5, on_gpu=False)
        for rung in rungs(small)
    ]
    give_worker(any_database, settings, ladder[0])
    assert rehearse(any_database, settings, spec).peak_memory_bytes == ladder[0]
    with any_database.write() as session:
        for worker in workers.live_workers(session):
            worker.memory_bytes = ladder[-1]
    told = rehearse(any_database, settings, spec)
    assert (told.peak_memory_bytes, told.fits) == (ladder[-1], True)


def test_what_no_device_holds_is_refused_with_both_figures(
    any_database: Database, settings: Settings
) -> None:
    dataset = make_dataset(any_database, 5)
    give_worker(any_database, settings, 4_000_000_000)
    spec = fine_tune(dataset, base="ssd-1b")
    assert rehearse(any_database, settings, spec).fits is False
    with pytest.raises(DoesNotFit, match=r"takes \d+\.\d GB .* has 4\.0 GB"):
        submit(any_database, settings, kind="fine_tune", spec=spec)
    give_worker(any_database, settings, None)  # one that cannot tell may hold it
    assert rehearse(any_database, settings, spec).fits is True


def test_a_card_may_hold_what_a_larger_host_does_not(
    any_database: Database, settings: Settings
) -> None:
    dataset = make_dataset(any_database, 5)
    give_worker(any_database, settings, 16_500_000_000)
    give_worker(any_database, settings, 12_600_000_000, device="cuda:0")
    with any_database.write() as session:
        for worker in workers.live_workers(session):
            worker.bases = ["sdxl"]
    told = rehearse(any_database, settings, fine_tune(dataset, base="sdxl"))
    assert (told.fits, told.room_bytes) == (True, 12_600_000_000)
    drawing = {"base": "sdxl", "prompt": "x"}
    assert rehearse(any_database, settings, drawing).fits
    with any_database.write() as session:
        for worker in workers.live_workers(session):
            worker.memory_bytes = 1_000_000_000
    with pytest.raises(DoesNotFit, match=r"ask for fewer pixels\.$"):
        submit(any_database, settings, spec=drawing)


def test_seconds_are_none_then_calibrated_then_measured(
    any_database: Database, settings: Settings
) -> None:
    dataset = make_dataset(any_database, 5)
    give_worker(any_database, settings, None)
    spec = fine_tune(dataset, steps=100, resolution=64)
    told = rehearse(any_database, settings, spec)
    assert (told.seconds, told.basis) == (None, "none")
    measure(any_database, parsed(resolution=32, batch_size=2), per_step=0.5, other=10)
    told = rehearse(any_database, settings, spec)
    assert (told.seconds, told.basis) == (100 * 0.5 * 2, "calibrated")  # the steps alone
    measure(any_database, parsed(resolution=64), per_step=0.3, other=5)
    measure(any_database, parsed(resolution=64, learning_rate=1e-3), per_step=0.2, other=4)
    told = rehearse(any_database, settings, spec)
    assert (told.seconds, told.basis) == (4 + 100 * 0.2, "measured")


def test_a_rate_is_of_a_kind_an_owner_and_a_chip_that_is_here(
    any_database: Database, settings: Settings
) -> None:
    give_worker(any_database, settings, None)
    drawing = {"base": "nano-ssd-1b", "prompt": "x", "width": 64, "height": 64}
    measure(any_database, parsed(), per_step=0.5, other=10)
    with any_database.write() as session:
        for chip, owner in (("Another", "ada"), (CHIP, "bob")):
            spec = parse("generate", drawing)
            rates.remember(session, chip, owner, spec, seconds_per_step=1, other_seconds=1)
    assert rehearse(any_database, settings, drawing).basis == "none"
    measure(any_database, parse("generate", drawing), per_step=0.1, other=0)
    assert rehearse(any_database, settings, drawing).seconds == pytest.approx(2.5)
    with any_database.read() as session:
        assert session.query(Rate).count() == 4


@pytest.mark.parametrize(
    ("fields", "same"),
    [
        ({"learning_rate": 1e-5, "seed": 9, "instance_prompt": "other"}, True),
        ({"batch_size": 2}, False),
        ({"lora": {"rank": 16}}, False),
        ({"class_prompt": "a dog", "prior": {"images": 5}}, False),
        ({"gradient_checkpointing": True}, False),
        ({"deterministic": True}, False),
        ({"sample": {"prompts": ["a dog"]}}, False),
    ],
)
def test_work_is_what_a_steps_time_depends_on(fields: dict[str, Any], same: bool) -> None:
    assert (rates.work_of(parsed(**fields)) == rates.work_of(parsed())) is same
