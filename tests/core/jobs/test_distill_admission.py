"""What a distillation may name, and its UNet as a base of other jobs."""

from typing import Any

import pytest
from sqlalchemy import select

from core.artifacts import service as artifacts
from core.artifacts.service import StoredFile
from core.config import Settings
from core.datasets import service as datasets
from core.db.engine import Database
from core.db.models import Job, JobInput
from core.errors import (
    BaseNotAvailable,
    DatasetNotCaptioned,
    LayoutMismatch,
    NotFound,
    Unprocessable,
)
from core.jobs import service as jobs
from core.jobs.attempt import Attempt
from core.jobs.claim import claim
from tests.core.jobs.test_service import SAVED, fine_tune, make_dataset, make_lora
from tests.support.jobs import SPEC, register, submit, take


def make_unet(
    database: Database, teacher: str = "nano-sdxl", layout: str = "ssd-1b", **about: Any
) -> str:
    given = {"owner": "ada", "kind": "unet", "role": "unet", "format": "diffusers"}
    with database.write() as session:
        return artifacts.record(
            session,
            **(given | about),
            job_id=None,
            name="unet",
            files=[StoredFile("unet/config.json", 1, "0" * 64, "x")],
            base=teacher,
            layout=layout,
        ).id


@pytest.fixture
def captioned(any_database: Database) -> str:
    dataset = make_dataset(any_database, 3)
    with any_database.write() as session:
        for image in datasets.images_of(session, datasets.get(session, "ada", dataset)):
            image.caption = "a photo of a dog"
    return dataset


def distill(
    database: Database, settings: Settings, dataset: str, owner: str = "ada", **fields: Any
) -> Job:
    spec = {"teacher": "nano-sdxl", "dataset": dataset} | fields
    return submit(database, settings, owner=owner, kind="distill", spec=spec)


def artifacts_read_by(database: Database, job: Job) -> list[str]:
    query = select(JobInput.input_id).where(JobInput.job_id == job.id, JobInput.kind == "artifact")
    with database.read() as session:
        return list(session.scalars(query))


def going_on(weights: str, **student: Any) -> dict[str, Any]:
    return {"init": "pretrained", "weights": weights} | student


def test_its_defaults_are_those_of_the_design(
    any_database: Database, settings: Settings, captioned: str
) -> None:
    job = distill(any_database, settings, captioned)
    assert (job.kind, job.base, job.also_base) == ("distill", "nano-sdxl", None)
    assert (job.spec["steps"], job.spec["resolution"]) == (10_000, 64)
    assert job.spec["optimizer"] == "adafactor"
    assert job.spec["loss"] == {"task": 1.0, "output": 0.5, "feature": 0.5}
    assert job.spec["student"] == {
        "layout": "ssd-1b", "init": "teacher", "layers": [0, 1, 2, 3], "weights": None,
    }  # fmt: skip


def test_every_picture_needs_a_caption(any_database: Database, settings: Settings) -> None:
    dataset = make_dataset(any_database, 2)
    with pytest.raises(DatasetNotCaptioned, match=r"caption: 2\. .* metadata\.jsonl\.$"):
        distill(any_database, settings, dataset)


def test_a_teacher_is_of_sdxls_layout(
    any_database: Database, settings: Settings, captioned: str
) -> None:
    with pytest.raises(LayoutMismatch, match="'nano-ssd-1b' is of layout ssd-1b"):
        distill(any_database, settings, captioned, teacher="nano-ssd-1b")


def test_a_teacher_that_no_worker_has(
    any_database: Database, settings: Settings, captioned: str
) -> None:
    register(any_database, settings)
    with pytest.raises(BaseNotAvailable, match="stillroom models pull sdxl"):
        distill(any_database, settings, captioned, teacher="sdxl")


def test_a_worker_needs_both_bases(
    any_database: Database, settings: Settings, captioned: str
) -> None:
    job = distill(any_database, settings, captioned, student=going_on("nano-ssd-1b"))
    assert job.also_base == "nano-ssd-1b"
    worker = register(any_database, settings)
    with any_database.write() as session:
        assert claim(session, worker, ["nano-sdxl"]) == []
        (taken,) = claim(session, worker, ["nano-sdxl", "nano-ssd-1b"])
    assert taken.id == job.id


def test_a_student_goes_on_from_an_artifact_which_stays_there(
    any_database: Database, settings: Settings, captioned: str
) -> None:
    unet = make_unet(any_database)
    job = distill(any_database, settings, captioned, student=going_on(unet))
    assert (job.base, job.also_base) == ("nano-sdxl", None)
    other = distill(
        any_database, settings, captioned, student={"init": "pretrained"}, init_from=unet
    )
    assert other.spec["init_from"] == unet
    for each in (job, other):
        assert artifacts_read_by(any_database, each) == [unet]


@pytest.mark.parametrize(
    ("weights", "student", "match"),
    [
        ("nano-sdxl", {}, "layout sdxl"),
        ("nano-ssd-1b", {"layout": "vega"}, "layout ssd-1b.*layout vega"),
    ],
)
def test_weights_to_begin_with_are_of_the_students_build(
    any_database: Database,
    settings: Settings,
    captioned: str,
    weights: str,
    student: dict[str, Any],
    match: str,
) -> None:
    with pytest.raises(LayoutMismatch, match=match):
        distill(any_database, settings, captioned, student=going_on(weights, **student))


def test_weights_of_another_width(
    any_database: Database, settings: Settings, captioned: str
) -> None:
    large = make_unet(any_database, teacher="sdxl")
    worker = register(any_database, settings)
    with any_database.write() as session:
        session.merge(worker).bases = ["sdxl"]
    with pytest.raises(LayoutMismatch, match=r"\(320, 640, 1280\)"):
        distill(any_database, settings, captioned, student=going_on(large))


def test_somebody_elses_unet_is_not_there(
    any_database: Database, settings: Settings, captioned: str
) -> None:
    unet = make_unet(any_database, owner="bob")
    with pytest.raises(NotFound, match=unet):
        distill(any_database, settings, captioned, student=going_on(unet))
    with pytest.raises(NotFound, match=unet):
        submit(any_database, settings, spec=SPEC | {"base": unet})


@pytest.mark.parametrize("about", [{"kind": "lora", "format": "peft"}, {"format": "original"}])
def test_what_is_no_unet_folder_is_no_base(
    any_database: Database, settings: Settings, about: dict[str, Any]
) -> None:
    with pytest.raises(Unprocessable, match="kind unet and format diffusers") as refused:
        submit(any_database, settings, spec=SPEC | {"base": make_unet(any_database, **about)})
    assert refused.value.code == "not_a_unet"


def test_a_unet_is_the_base_of_other_jobs_and_an_input_of_theirs(
    any_database: Database, settings: Settings
) -> None:
    unet = make_unet(any_database)
    drawn = submit(any_database, settings, spec=SPEC | {"base": unet})
    spec = fine_tune(make_dataset(any_database, 3), base=unet)
    trained = submit(any_database, settings, kind="fine_tune", spec=spec)
    for job in (drawn, trained):
        assert (job.base, job.spec["base"]) == ("nano-sdxl", unet)  # a worker needs the teacher
        assert artifacts_read_by(any_database, job) == [unet]


def test_a_lora_fits_every_unet_of_its_layout_and_widths(
    any_database: Database, settings: Settings
) -> None:
    unet = make_unet(any_database)
    on_unet = make_lora(any_database, "nano-ssd-1b")
    with any_database.write() as session:
        artifacts.get(session, "ada", on_unet).base = unet
    uses = {"loras": [{"artifact": on_unet}]}
    assert submit(any_database, settings, spec=SPEC | uses | {"base": unet})
    assert submit(any_database, settings, spec=SPEC | uses)
    with pytest.raises(LayoutMismatch, match=unet):
        submit(any_database, settings, spec=SPEC | uses | {"base": "nano-sdxl"})


def test_an_extension_of_a_distillation(
    any_database: Database, settings: Settings, captioned: str
) -> None:
    distill(any_database, settings, captioned, student=going_on("nano-ssd-1b"), steps=500)
    parent = take(any_database, register(any_database, settings))
    with any_database.write() as session:
        Attempt(parent.id, 1).tell(session, "log", {"message": "saved"}, checkpoints=[SAVED])
        Attempt(parent.id, 1).succeed(session, {})
    with any_database.write() as session:
        longer = jobs.extend(session, settings, "ada", parent.id, steps=100)
    assert (longer.kind, longer.base, longer.also_base) == ("distill", "nano-sdxl", "nano-ssd-1b")
    assert (longer.spec["steps"], longer.checkpoints) == (600, [SAVED])
