"""Submit, look, cancel; and everything that is refused before it is queued."""

from typing import Any

import pytest
from pydantic import ValidationError

from core import bases
from core.artifacts import service as artifacts
from core.artifacts.service import StoredFile
from core.config import Settings
from core.datasets import service as datasets
from core.db.engine import Database
from core.db.models import Image
from core.errors import (
    BaseNotAvailable,
    BaseUnknown,
    DatasetEmpty,
    DatasetNotCaptioned,
    LayoutMismatch,
    NotFound,
    TooMany,
    Unprocessable,
    WrongState,
)
from core.jobs import service as jobs
from core.jobs.attempt import Attempt
from core.jobs.standing import Standing
from tests.support.jobs import SPEC, register, reread, submit, succeed, take


def make_dataset(database: Database, num_images: int, owner: str = "ada") -> str:
    with database.write() as session:
        dataset = datasets.create(session, owner, name="dog", kind="instance")
        datasets.add_images(
            session,
            [
                Image(
                    id=f"img_{dataset.id}{index}",
                    dataset_id=dataset.id,
                    filename=f"{index}.png",
                    width=64,
                    height=64,
                    bytes=1,
                    sha256=f"{index:064}",
                    store_key=str(index),
                )
                for index in range(num_images)
            ],
        )
        return dataset.id


def fine_tune(dataset: str, **fields: Any) -> dict[str, Any]:
    return {
        "base": "nano-ssd-1b",
        "dataset": dataset,
        "instance_prompt": "a photo of sks dog",
    } | fields


def make_lora(database: Database, base: str, owner: str = "ada", rank: int = 8) -> str:
    with database.write() as session:
        return artifacts.record(
            session,
            owner=owner,
            job_id=None,
            kind="lora",
            role="lora",
            name="x",
            format="peft",
            files=[StoredFile("x", 1, "0" * 64, "x")],
            base=base,
            layout=bases.CATALOGUE[base].layout.id,
            facts={"rank": rank},
        ).id


def test_defaults_are_filled_in_and_the_dataset_is_frozen(
    any_database: Database, settings: Settings
) -> None:
    dataset = make_dataset(any_database, 5)
    job = submit(any_database, settings, kind="fine_tune", spec=fine_tune(dataset))
    assert job.spec["steps"] == 500
    assert job.spec["resolution"] == 64
    assert job.spec["lora"]["alpha"] == job.spec["lora"]["rank"] == 8
    assert 0 <= job.spec["seed"] < 2**32
    assert job.progress == {
        "step": 0,
        "steps": 500,
        "fraction": 0.0,
        "eta_seconds": None,
        "message": "queued",
    }
    with any_database.read() as session:
        assert datasets.get(session, "ada", dataset).sha256 is not None


def test_epochs_become_steps(database: Database, settings: Settings) -> None:
    spec = fine_tune(make_dataset(database, 5), epochs=3, batch_size=2)
    job = submit(database, settings, kind="fine_tune", spec=spec)
    assert job.progress["steps"] == 8


def test_a_seed_that_is_given_is_kept(database: Database, settings: Settings) -> None:
    assert submit(database, settings, spec=SPEC | {"seed": 0}).spec["seed"] == 0


def refuse(
    database: Database, settings: Settings, error: type[Exception], match: str, **fields: Any
) -> None:
    with pytest.raises(error, match=match):
        submit(database, settings, **fields)
    with database.read() as session:
        assert jobs.list_page(session, "ada") == ([], None)


def test_an_unknown_base_is_refused_by_name(database: Database, settings: Settings) -> None:
    spec = SPEC | {"base": "sd-1.5"}
    refuse(database, settings, BaseUnknown, "'sd-1.5'.*ssd-1b", spec=spec)


def test_a_base_that_no_worker_has_says_how_to_get_it(
    database: Database, settings: Settings
) -> None:
    register(database, settings)
    spec = SPEC | {"base": "ssd-1b"}
    refuse(database, settings, BaseNotAvailable, "stillroom models pull ssd-1b", spec=spec)


def test_an_empty_dataset_is_refused(database: Database, settings: Settings) -> None:
    dataset = make_dataset(database, 0)
    refuse(database, settings, DatasetEmpty, dataset, kind="fine_tune", spec=fine_tune(dataset))
    with database.read() as session:
        assert datasets.get(session, "ada", dataset).sha256 is None


def test_without_a_prompt_every_picture_needs_a_caption(
    database: Database, settings: Settings
) -> None:
    dataset = make_dataset(database, 3)
    spec = fine_tune(dataset, instance_prompt=None, method="captioned")
    refuse(database, settings, DatasetNotCaptioned, "caption: 3", kind="fine_tune", spec=spec)
    with database.write() as session:
        for image in datasets.images_of(session, datasets.get(session, "ada", dataset)):
            image.caption = "a dog"
    job = submit(database, settings, kind="fine_tune", spec=spec)
    assert (job.spec["method"], job.spec["instance_prompt"]) == ("captioned", None)


def test_a_lora_to_begin_with_must_be_of_the_same_rank(
    database: Database, settings: Settings
) -> None:
    lora = make_lora(database, "nano-ssd-1b", rank=4)
    dataset = make_dataset(database, 3)
    spec = fine_tune(dataset, init_from=lora)
    refuse(
        database, settings, Unprocessable, "rank 4.*`lora.rank` is 8", kind="fine_tune", spec=spec
    )
    job = submit(database, settings, kind="fine_tune", spec=spec | {"lora": {"rank": 4}})
    assert job.spec["init_from"] == lora
    other = make_lora(database, "nano-sdxl", rank=4)
    with pytest.raises(LayoutMismatch):
        submit(
            database,
            settings,
            kind="fine_tune",
            spec=spec | {"init_from": other, "lora": {"rank": 4}},
        )


SAVED = {
    "step": 500,
    "files": [{"path": "facts.json", "bytes": 1, "sha256": "0" * 64, "store_key": "jobs/x/1/a"}],
}


def test_a_training_without_its_checkpoint_does_not_offer_to_be_extended(
    any_database: Database, settings: Settings
) -> None:
    """It was dropped with time."""
    submit(any_database, settings, kind="fine_tune", spec=fine_tune(make_dataset(any_database, 1)))
    done = succeed(any_database, take(any_database, register(any_database, settings)))
    with pytest.raises(WrongState) as refused, any_database.write() as session:
        jobs.extend(session, settings, "ada", done.id, steps=5)
    assert refused.value.allowed_actions == []


def test_only_a_training_that_succeeded_can_be_extended(
    database: Database, settings: Settings
) -> None:
    drawn = submit(database, settings)
    waiting = submit(
        database, settings, kind="fine_tune", spec=fine_tune(make_dataset(database, 3))
    )
    for job in (drawn, waiting):
        with database.write() as session, pytest.raises(WrongState, match="only a training"):
            jobs.extend(session, settings, "ada", job.id, steps=5)


def test_an_extension_goes_on_from_its_parents_last_checkpoint(
    database: Database, settings: Settings
) -> None:
    worker = register(database, settings)
    spec = fine_tune(make_dataset(database, 3), lora={"rank": 4})
    submit(database, settings, kind="fine_tune", spec=spec, name="dog")
    parent = take(database, worker)
    attempt = Attempt(parent.id, 1)
    with database.write() as session:
        attempt.tell(session, "log", {"message": "saved"}, checkpoints=[SAVED], rung=2)
        attempt.succeed(session, {})
    with database.write() as session:
        longer = jobs.extend(session, settings, "ada", parent.id, steps=20)
    assert (longer.parent, longer.name) == (parent.id, "dog")
    assert (longer.checkpoints, longer.rung) == ([SAVED], 2)
    assert longer.progress["steps"] == 520
    assert longer.spec == parent.spec | {"steps": 520}


def test_an_extension_beyond_all_bounds_says_how_far_it_may_go(
    database: Database, settings: Settings
) -> None:
    submit(database, settings, kind="fine_tune", spec=fine_tune(make_dataset(database, 3)))
    parent = take(database, register(database, settings))
    with database.write() as session:
        Attempt(parent.id, 1).tell(session, "log", {"message": "saved"}, checkpoints=[SAVED])
        Attempt(parent.id, 1).succeed(session, {})
    with (
        database.write() as session,
        pytest.raises(Unprocessable, match=r"may be 99,500") as refused,
    ):
        jobs.extend(session, settings, "ada", parent.id, steps=100_000)
    assert [each.pointer for each in refused.value.errors] == ["/steps"]
    with database.write() as session:
        assert jobs.extend(session, settings, "ada", parent.id, steps=99_500)


def test_somebody_elses_dataset_is_not_there(database: Database, settings: Settings) -> None:
    dataset = make_dataset(database, 5, owner="bob")
    refuse(database, settings, NotFound, dataset, kind="fine_tune", spec=fine_tune(dataset))


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"lora": {"rank": 0}}, "rank"),
        ({"steps": 5, "epochs": 5}, "either"),
        ({"colour": "red"}, "colour"),
        ({"buckets": True}, "buckets.*not available"),
        ({"snr_gamma": 0}, "snr_gamma"),
        ({"method": "captioned"}, "instance_prompt.*dreambooth"),
        ({"instance_prompt": "   "}, "instance_prompt"),
        ({"learning_rate": "NaN"}, "learning_rate"),
    ],
)
def test_a_spec_that_cannot_be_meant(
    database: Database, settings: Settings, fields: dict[str, Any], match: str
) -> None:
    spec = fine_tune("dst_x", **fields)
    refuse(database, settings, ValidationError, match, kind="fine_tune", spec=spec)


@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_a_prompt_with_a_break_after_each_word_is_refused(
    database: Database, settings: Settings, field: str
) -> None:
    """Each begins a chunk, that all rows attend to: of 4,000 characters there would be 500."""
    spec = SPEC | {field: "a BREAK " * 500}
    refuse(database, settings, Unprocessable, "this one has 500 of them where 32 may be", spec=spec)
    few = submit(database, settings, spec=SPEC | {field: "BREAK " * 500 + "a BREAK b"})
    assert few.state == "queued"


@pytest.mark.parametrize("trained_on", ["nano-sdxl", "ssd-1b"])
def test_a_lora_of_another_layout_or_width(
    database: Database, settings: Settings, trained_on: str
) -> None:
    lora = make_lora(database, trained_on)
    refuse(
        database,
        settings,
        LayoutMismatch,
        f"{trained_on}.*nano-ssd-1b",
        spec=SPEC | {"loras": [{"artifact": lora}]},
    )


def test_a_lora_of_the_same_base_is_an_input(database: Database, settings: Settings) -> None:
    lora = make_lora(database, "nano-ssd-1b")
    job = submit(database, settings, spec=SPEC | {"loras": [{"artifact": lora}]})
    assert job.spec["loras"] == [{"artifact": lora, "job": None, "weight": 1.0}]


def test_the_queue_has_a_cap_per_owner(database: Database, settings: Settings) -> None:
    small = settings.model_copy(update={"max_queued_jobs": 2})
    submit(database, small)
    submit(database, small)
    with pytest.raises(TooMany, match="2 of your jobs"):
        submit(database, small)
    submit(database, small, owner="bob")


def test_positions_count_from_one_in_claim_order(
    any_database: Database, settings: Settings
) -> None:
    first = submit(any_database, settings)
    last = submit(any_database, settings, owner="bob", priority=-3)
    urgent = submit(any_database, settings, priority=7)
    with any_database.read() as session:
        positions = Standing().positions(session, [first, urgent])
        positions |= Standing().positions(session, [last])
    assert positions == {urgent.id: 1, first.id: 2, last.id: 3}


def test_pages_of_jobs(any_database: Database, settings: Settings) -> None:
    ids = [submit(any_database, settings, labels={"n": str(n)}).id for n in range(5)]
    submit(any_database, settings, owner="bob")
    with any_database.read() as session:
        page, cursor = jobs.list_page(session, "ada", limit=3)
        rest, end = jobs.list_page(session, "ada", limit=3, cursor=cursor)
        labelled, _ = jobs.list_page(session, "ada", label=("n", "2"))
    assert [job.id for job in page + rest] == ids[::-1]
    assert end is None
    assert [job.id for job in labelled] == [ids[2]]


def test_a_waiting_job_is_cancelled_at_once(any_database: Database, settings: Settings) -> None:
    job = submit(any_database, settings)
    for _ in range(2):  # repeating is harmless
        with any_database.write() as session:
            assert jobs.cancel(session, "ada", job.id).state == "cancelled"
    assert reread(any_database, job).last_seq == 2


def test_a_running_job_is_asked(any_database: Database, settings: Settings) -> None:
    submit(any_database, settings)
    job = take(any_database, register(any_database, settings))
    for _ in range(2):
        with any_database.write() as session:
            asked = jobs.cancel(session, "ada", job.id)
        assert (asked.state, asked.cancel_requested) == ("running", True)
    assert reread(any_database, job).last_seq == 3


def test_what_ended_cannot_be_cancelled(any_database: Database, settings: Settings) -> None:
    submit(any_database, settings)
    job = take(any_database, register(any_database, settings))
    with any_database.write() as session:
        Attempt(job.id, 1).fail(session, "x", "y")
    with pytest.raises(WrongState) as refused, any_database.write() as session:
        jobs.cancel(session, "ada", job.id)
    assert refused.value.allowed_actions == ["retry"]
