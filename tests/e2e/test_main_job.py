"""The main job over a real socket with real processes: pictures in, a LoRA out, all checked."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from api.answers import Job
from api.client import Client
from core import bases
from tests.support import pictures
from tests.support.nano import NUMPY_COPY
from tests.support.server import Server

BASE = "nano-ssd-1b"
PROMPT = "a photo of sks dog"


@pytest.fixture(scope="module")
def trained(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """One fine-tune of a few steps, with samples, waited for."""
    with server.client() as client:
        dataset = client.create_dataset("dog")
        paths = pictures.write(tmp_path_factory.mktemp("pictures"), 5)
        answer = client.upload(dataset["id"], paths)
        assert [item["problems"] for item in answer["items"]] == [[]] * 5
        job = client.fine_tune(
            {
                "base": BASE,
                "dataset": dataset["id"],
                "method": "dreambooth",
                "instance_prompt": PROMPT,
                "steps": 12,
                "learning_rate": 2e-3,
                "lora": {"rank": 4, "alpha": 8},
                "sample": {"prompts": [PROMPT], "every": 6, "steps": 4},
                "seed": 3,
            },
            name="dog",
        )
        assert job["state"] == "queued"
        done = client.wait(job["id"])
    assert done["state"] == "succeeded", done["error"]
    return done


def generate(client: Client, **fields: object) -> Job:
    job = client.generate({"base": BASE, "prompt": PROMPT, "seed": 5, "steps": 5, **fields})
    done = client.wait(job["id"])
    assert done["state"] == "succeeded", done["error"]
    return done


def picture(client: Client, job: Job, folder: Path) -> bytes:
    assert job["result"]
    return client.download(job["result"]["images"][0], folder / "picture.png").read_bytes()


def test_the_job_tells_its_story(trained: Job, client: Client) -> None:
    events = list(client.events(trained["id"]))
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    states = [event["data"]["state"] for event in events if event["type"] == "state"]
    assert states == ["queued", "running", "succeeded"]
    assert [event["data"]["step"] for event in events if event["type"] == "sample"] == [6, 12]
    assert trained["progress"]["step"] == trained["progress"]["steps"] == 12
    assert trained["attempt"] == 1
    assert trained["usage"]["device_seconds"] > 0
    assert trained["device"] == "cpu"


def test_the_report_measures_the_training(trained: Job, client: Client, tmp_path: Path) -> None:
    assert trained["result"]
    path = client.download(trained["result"]["report"], tmp_path / "report.json")
    report = json.loads(path.read_text())
    assert report["fixed_grid_loss"]["after"] < report["fixed_grid_loss"]["before"]
    assert report["steps"] == 12


def test_the_result_names_artifacts_in_order_of_making(trained: Job, client: Client) -> None:
    made = list(client.artifacts_of(trained["id"]))
    roles = [artifact["role"] for artifact in made]
    assert roles == ["sample", "sample", "lora", "lora_kohya", "report"]
    assert trained["result"] == {
        "lora": made[2]["id"],
        "lora_kohya": made[3]["id"],
        "report": made[4]["id"],
        "samples": [made[0]["id"], made[1]["id"]],
        "snapshots": [],
    }
    lora = made[2]
    assert (lora["kind"], lora["format"], lora["base"]) == ("lora", "peft", BASE)
    assert lora["layout"] == "ssd-1b"
    assert (lora["metadata"]["rank"], lora["metadata"]["alpha"]) == (4, 8)
    kohya = made[3]
    assert (kohya["kind"], kohya["format"], kohya["layout"]) == ("lora", "kohya", "ssd-1b")
    assert kohya["name"] == "lora_kohya_ssd1b.safetensors"


def test_the_picture_changes_with_the_lora_and_not_without(
    trained: Job, client: Client, tmp_path: Path
) -> None:
    assert trained["result"]
    before = picture(client, generate(client), tmp_path)
    loras = [{"artifact": trained["result"]["lora"]}]
    after = picture(client, generate(client, loras=loras), tmp_path)
    without = picture(client, generate(client), tmp_path)
    off = picture(client, generate(client, loras=[{**loras[0], "weight": 0}]), tmp_path)
    assert before == without
    assert before != after
    assert Image.open(io.BytesIO(off)).tobytes() == Image.open(io.BytesIO(before)).tobytes()


def test_a_finished_training_is_made_longer(trained: Job, client: Client, tmp_path: Path) -> None:
    longer = client.wait(client.extend(trained["id"], 2)["id"])
    assert longer["state"] == "succeeded", longer["error"]
    assert (longer["parent"], longer["progress"]["steps"]) == (trained["id"], 14)
    assert longer["result"]
    report = json.loads(
        client.download(longer["result"]["report"], tmp_path / "report.json").read_text()
    )
    assert (report["resumed_from_step"], report["exact"]) == (12, True)


def test_captioned_pictures_are_learnt_from_a_lora_on(
    trained: Job, client: Client, tmp_path: Path
) -> None:
    assert trained["result"]
    dataset = client.create_dataset("pets", kind="captioned")
    paths = pictures.write(tmp_path / "pets", 3)
    for path in paths:
        path.with_suffix(".txt").write_text(f"a photo of {path.stem}")
    client.upload(dataset["id"], [tmp_path / "pets"])
    spec = {"base": BASE, "dataset": dataset["id"], "method": "captioned", "steps": 2}
    spec |= {"lora": {"rank": 4}, "init_from": trained["result"]["lora"], "caption_dropout": 0.1}
    done = client.wait(client.fine_tune(spec)["id"])
    assert done["state"] == "succeeded", done["error"]


def test_both_formats_of_the_lora_draw_the_same(
    trained: Job, client: Client, tmp_path: Path
) -> None:
    assert trained["result"]
    drawn = [
        picture(client, generate(client, loras=[{"artifact": trained["result"][role]}]), tmp_path)
        for role in ("lora", "lora_kohya")
    ]
    first, second = (np.asarray(Image.open(io.BytesIO(each))).astype(int) for each in drawn)
    assert np.abs(first - second).max() <= 1


def test_prompts_and_images_come_in_order_with_their_settings(
    client: Client, tmp_path: Path
) -> None:
    job = generate(client, prompt=["a red circle", "a blue box"], images=2, steps=2)
    assert job["result"]
    metadata = [client.artifact(image)["metadata"] for image in job["result"]["images"]]
    assert [(each["prompt"], each["seed"]) for each in metadata] == [
        ("a red circle", 5),
        ("a red circle", 6),
        ("a blue box", 5),
        ("a blue box", 6),
    ]
    path = client.download(job["result"]["images"][3], tmp_path / "last.png")
    with Image.open(path) as image:
        inside = json.loads(image.text["stillroom"])  # type: ignore[attr-defined]
    assert (inside["prompt"], inside["seed"], inside["base"]) == ("a blue box", 6, BASE)


@NUMPY_COPY
def test_plain_diffusers_loads_the_lora(trained: Job, client: Client, tmp_path: Path) -> None:
    """The article's first snippet, word for word but for paths, repository ids and device."""
    assert trained["result"]
    row = client.artifact(trained["result"]["lora"])
    path = client.download(row, tmp_path / "lora" / "pytorch_lora_weights.safetensors")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]
    checkpoint = str(path.parent)
    prompt = PROMPT

    pipe = DiffusionPipeline.from_pretrained(bases.NANO_SSD_1B)
    pipe.set_progress_bar_config(disable=True)
    bare = pipe(
        prompt, num_inference_steps=2, generator=torch.manual_seed(1), output_type="np"
    ).images[0]
    pipe.load_lora_weights(checkpoint)
    tuned = pipe(
        prompt, num_inference_steps=2, generator=torch.manual_seed(1), output_type="np"
    ).images[0]
    assert abs(tuned - bare).max() > 1e-3
    pipe(prompt, num_inference_steps=50).images[0].save(tmp_path / "demo.png")
    with Image.open(tmp_path / "demo.png") as drawn:
        assert drawn.size == (64, 64)


def test_a_running_job_stops_within_a_step_of_its_cancel(trained: Job, client: Client) -> None:
    job = client.fine_tune(trained["spec"] | {"steps": 10_000, "sample": None})
    for now, _ in client.watch(job["id"]):
        if now["progress"]["step"] >= 2:
            break
    asked = client.cancel(job["id"])
    assert asked["state"] in ("running", "cancelled")
    ended = client.wait(job["id"])
    assert ended["state"] == "cancelled"
    assert ended["progress"]["step"] - asked["progress"]["step"] < 100
    assert ended["result"] is None


def test_a_waiting_job_is_cancelled_at_once_and_never_begins(client: Client, trained: Job) -> None:
    first = client.fine_tune(trained["spec"] | {"steps": 10_000, "sample": None})
    second = client.fine_tune(trained["spec"] | {"steps": 10_000, "sample": None})
    assert client.cancel(second["id"])["state"] == "cancelled"
    client.cancel(first["id"])
    client.wait(first["id"])
    assert client.job(second["id"])["attempt"] == 0


def test_both_layouts_run(client: Client) -> None:
    assert generate(client, base="nano-sdxl", steps=2)["result"]
