"""A distillation over a real socket with real processes, and its UNet as a base of other jobs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from PIL import Image

from api.answers import Job
from api.client import ApiError, Client
from core import bases
from tests.support import pictures
from tests.support.nano import NUMPY_COPY
from tests.support.server import Server

TEACHER = "nano-sdxl"
PROMPT = "a photo of robot 1"


@pytest.fixture(scope="module")
def dataset(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("captioned")
    for path in pictures.write(folder, 6):
        path.with_suffix(".txt").write_text(f"a photo of {path.stem}")
    with server.client() as client:
        made = client.create_dataset("robots", kind="captioned")
        client.upload(made["id"], [folder])
        return made["id"]


def distill(client: Client, dataset: str, **fields: object) -> Job:
    spec = {"teacher": TEACHER, "dataset": dataset, "steps": 6, "seed": 3, "learning_rate": 1e-4}
    spec |= {"sample": {"prompts": [PROMPT], "every": 1000, "steps": 2}}
    done = client.wait(client.distill(spec | fields)["id"])
    assert done["state"] == "succeeded", done["error"]
    return done


@pytest.fixture(scope="module")
def taught(server: Server, dataset: str) -> Job:
    """Setting 1, of a few steps, with samples and snapshots."""
    with server.client() as client:
        sample = {"prompts": [PROMPT], "every": 3, "steps": 2}
        return distill(client, dataset, sample=sample, keep_every=3, checkpoint_every=2)


@pytest.fixture(scope="module")
def unet(taught: Job) -> str:
    assert taught["result"]
    return str(taught["result"]["unet"])


def test_the_result_names_what_was_made(taught: Job, client: Client) -> None:
    result = taught["result"]
    assert result
    made = {artifact["id"]: artifact for artifact in client.artifacts_of(taught["id"])}
    assert set(result) == {"unet", "checkpoint", "report", "samples", "snapshots"}
    assert {role: len(result[role]) for role in ("samples", "snapshots")} == {
        "samples": 3,  # two on the way, and the card's sheet
        "snapshots": 1,
    }
    unet, checkpoint = made[result["unet"]], made[result["checkpoint"]]
    assert (unet["kind"], unet["format"], unet["layout"]) == ("unet", "diffusers", "ssd-1b")
    assert unet["base"] == TEACHER
    assert sorted(file["path"] for file in unet["files"]) == [
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ]
    assert (checkpoint["format"], checkpoint["layout"]) == ("original", "ssd-1b")


def test_the_report_has_its_card(taught: Job, client: Client, tmp_path: Path) -> None:
    assert taught["result"]
    path = client.download(taught["result"]["report"], tmp_path / "report.json")
    report = json.loads(path.read_text())
    card = report["card"]
    assert card["architecture"]["removed_blocks"] == 36
    error = card["error_to_teacher"]["mean"]
    assert 0 < error["after"] < error["before"]
    assert len(card["feature_error"]) == 26


def test_the_series_tells_every_term(taught: Job, client: Client) -> None:
    told = client.metrics(taught["id"])
    assert told["step"][-1] == 6
    assert {"task", "output", "feature"} <= set(told["terms"])
    assert len(told["terms"]) == 3 + 26
    assert all(len(series) == len(told["step"]) for series in told["terms"].values())


@NUMPY_COPY
def test_plain_diffusers_draws_with_the_unet(unet: str, client: Client, tmp_path: Path) -> None:
    """The article's second snippet, word for word but for paths, repository ids and device."""
    checkpoint = str(tmp_path)
    client.download(unet, tmp_path / "unet")
    base = bases.NANO_SSD_1B
    prompt = PROMPT

    unet_after = UNet2DConditionModel.from_pretrained(checkpoint, subfolder="unet")
    pipe = DiffusionPipeline.from_pretrained(base, unet=unet_after)
    pipe.set_progress_bar_config(disable=True)
    drawn = pipe(
        prompt, num_inference_steps=2, generator=torch.manual_seed(1), output_type="np"
    ).images[0]
    pipe = DiffusionPipeline.from_pretrained(base)
    pipe.set_progress_bar_config(disable=True)
    without = pipe(
        prompt, num_inference_steps=2, generator=torch.manual_seed(1), output_type="np"
    ).images[0]
    assert drawn.shape == (64, 64, 3)
    assert abs(drawn - without).max() > 1e-3


def test_it_is_a_base_to_draw_with(unet: str, client: Client, tmp_path: Path) -> None:
    drawn = [
        picture(client, tmp_path, base=base) for base in (unet, unet, "nano-sdxl", "nano-ssd-1b")
    ]
    assert (drawn[0] == drawn[1]).all()
    assert all((drawn[0] != other).any() for other in drawn[2:])


def test_it_is_a_base_to_train_a_lora_on(
    unet: str, client: Client, dataset: str, tmp_path: Path
) -> None:
    spec = {"base": unet, "dataset": dataset, "instance_prompt": PROMPT, "steps": 4}
    spec |= {"learning_rate": 5e-3, "lora": {"rank": 4}}
    tuned = client.wait(client.fine_tune(spec)["id"])
    assert tuned["state"] == "succeeded", tuned["error"]
    assert tuned["result"]
    lora = client.artifact(tuned["result"]["lora"])
    assert (lora["base"], lora["layout"]) == (unet, "ssd-1b")
    uses = [{"artifact": lora["id"]}]
    with_it, bare = (picture(client, tmp_path, base=unet, loras=loras) for loras in (uses, []))
    assert (with_it != bare).any()
    assert picture(client, tmp_path, base="nano-ssd-1b", loras=uses).shape == bare.shape
    with pytest.raises(ApiError, match="does not fit 'nano-sdxl'"):
        client.generate({"base": "nano-sdxl", "prompt": PROMPT, "loras": uses})


def picture(client: Client, folder: Path, **spec: object) -> np.ndarray:
    job = client.generate({"prompt": PROMPT, "seed": 5, "steps": 4, "format": "png"} | spec)
    done = client.wait(job["id"])
    assert done["state"] == "succeeded", done["error"]
    assert done["result"]
    with Image.open(client.download(done["result"]["images"][0], folder / done["id"])) as image:
        return np.asarray(image)


@pytest.mark.faults
def test_another_teacher_may_follow_and_a_pretrained_base_begin(
    unet: str, taught: Job, client: Client, dataset: str, tmp_path: Path
) -> None:
    """Setting 2: from an artifact, and from a base model."""
    assert taught["result"]
    card = error_of(client, taught, tmp_path)
    further = distill(client, dataset, student={"init": "pretrained", "weights": unet}, steps=2)
    assert error_of(client, further, tmp_path)["before"] == pytest.approx(card["after"], rel=0.02)
    distill(client, dataset, student={"init": "pretrained", "weights": "nano-ssd-1b"}, steps=1)


def error_of(client: Client, job: Job, folder: Path) -> dict[str, float]:
    assert job["result"]
    path = client.download(job["result"]["report"], folder / f"{job['id']}.json")
    mean: dict[str, float] = json.loads(path.read_text())["card"]["error_to_teacher"]["mean"]
    return mean


def test_a_paused_distillation_goes_on_to_the_same_bytes(
    taught: Job, client: Client, dataset: str, tmp_path: Path
) -> None:
    spec = {"teacher": TEACHER, "dataset": dataset, "steps": 16, "seed": 4, "ema": 0.9}
    spec |= {"learning_rate": 1e-4, "checkpoint_every": 1000}
    spec |= {"sample": {"prompts": [PROMPT], "every": 1000, "steps": 2}}
    paused = client.distill(spec)
    for now, _ in client.watch(paused["id"]):
        if now["progress"]["step"] >= 2:
            break
    client.pause(paused["id"])
    for now, _ in client.watch(paused["id"]):
        if now["state"] == "paused":
            break
    assert 2 <= now["progress"]["step"] < 16
    whole = client.wait(client.distill(spec)["id"])
    assert client.job(paused["id"])["state"] == "paused"
    client.resume(paused["id"])
    ended = client.wait(paused["id"])
    assert (ended["state"], ended["attempt"]) == ("succeeded", 2), ended["error"]
    first, second = (
        client.download(str((done["result"] or {})["unet"]), tmp_path / done["id"])
        for done in (ended, whole)
    )
    name = "diffusion_pytorch_model.safetensors"
    assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_finished_distillation_is_made_longer(
    taught: Job, client: Client, tmp_path: Path
) -> None:
    longer = client.wait(client.extend(taught["id"], 2)["id"])
    assert longer["state"] == "succeeded", longer["error"]
    assert longer["result"]
    path = client.download(longer["result"]["report"], tmp_path / "report.json")
    report = json.loads(path.read_text())
    assert (report["resumed_from_step"], report["steps"], report["exact"]) == (6, 8, True)
