"""A base of one's own, added while a server runs: drawn with, learnt on, taught by, removed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from api.client import ApiError, Client
from core import bases
from core.layouts import SDXL
from tests.support import originals, pictures
from tests.support.server import Server, wait_until

PROMPT = "a photo of robot 1"
TEACHER, STUDENT = "my.teacher", "my-student"


def stillroom(server: Server, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [Path(sys.executable).with_name("stillroom"), "models", *arguments],
        env={**os.environ, "STILLROOM_HOME": str(server.settings.root)},
        capture_output=True,
        text=True,
        check=False,
    )


def added(server: Server, name: str, path: Path) -> None:
    ran = stillroom(server, "add", name, str(path))
    assert ran.returncode == 0, ran.stderr


@pytest.fixture(scope="module")
def own(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A teacher from a file and a student from a folder, there without a restart."""
    folder = tmp_path_factory.mktemp("own")
    file = originals.write_nano(folder / "it.safetensors", bases.NANO_SDXL, SDXL)
    added(server, TEACHER, file)
    file.unlink()  # it is not needed any more
    added(server, STUDENT, bases.NANO_SSD_1B)
    with server.client() as client:
        wait_until(lambda: {TEACHER, STUDENT} <= available(client), 60, "workers tell of them")
    yield
    for name in (TEACHER, STUDENT):
        assert stillroom(server, "remove", name).returncode == 0


def available(client: Client) -> set[str]:
    return {model["id"] for model in client.list_models() if model["available"]}


@pytest.fixture(scope="module")
def dataset(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("captioned")
    for path in pictures.write(folder, 3):
        path.with_suffix(".txt").write_text(f"a photo of {path.stem}")
    with server.client() as client:
        made = client.create_dataset("robots", kind="captioned")
        client.upload(made["id"], [folder])
        return made["id"]


def picture(client: Client, folder: Path, **spec: Any) -> np.ndarray:
    job = client.generate({"prompt": PROMPT, "seed": 5, "steps": 4, "format": "png"} | spec)
    done = client.wait(job["id"])
    assert done["state"] == "succeeded", done["error"]
    assert done["result"]
    with Image.open(client.download(done["result"]["images"][0], folder / done["id"])) as image:
        return np.asarray(image)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("own_base", "embedded"), [(TEACHER, "nano-sdxl"), (STUDENT, "nano-ssd-1b")]
)
def test_it_draws_what_the_embedded_one_draws(
    own_base: str, embedded: str, client: Client, tmp_path: Path
) -> None:
    mine, theirs = (picture(client, tmp_path, base=base) for base in (own_base, embedded))
    assert (mine == theirs).all()


@pytest.mark.usefixtures("own")
def test_a_lora_is_learnt_on_it(client: Client, dataset: str, tmp_path: Path) -> None:
    spec = {"base": STUDENT, "dataset": dataset, "instance_prompt": PROMPT, "steps": 3}
    tuned = client.wait(client.fine_tune(spec | {"learning_rate": 5e-3})["id"])
    assert tuned["state"] == "succeeded", tuned["error"]
    assert tuned["result"]
    lora = client.artifact(tuned["result"]["lora"])
    assert (lora["base"], lora["layout"]) == (STUDENT, "ssd-1b")
    uses = [{"artifact": lora["id"]}]
    with_it = picture(client, tmp_path, base=STUDENT, loras=uses)
    assert (with_it != picture(client, tmp_path, base=STUDENT)).any()
    assert (with_it == picture(client, tmp_path, base="nano-ssd-1b", loras=uses)).all()
    with pytest.raises(ApiError, match=f"does not fit '{TEACHER}'"):
        client.generate({"base": TEACHER, "prompt": PROMPT, "loras": uses})


@pytest.mark.usefixtures("own")
def test_it_teaches_and_is_taught(client: Client, dataset: str, tmp_path: Path) -> None:
    student = {"init": "pretrained", "weights": STUDENT}
    spec = {"teacher": TEACHER, "student": student, "dataset": dataset, "steps": 2}
    job = client.distill(spec | {"learning_rate": 1e-4})
    done = client.wait(job["id"])
    assert done["state"] == "succeeded", done["error"]
    assert done["result"]
    unet = client.artifact(done["result"]["unet"])
    assert (unet["base"], unet["layout"]) == (TEACHER, "ssd-1b")
    assert picture(client, tmp_path, base=unet["id"]).shape == (64, 64, 3)


@pytest.mark.faults
def test_a_base_of_velocity_draws_otherwise_and_learns(
    server: Server, client: Client, dataset: str, tmp_path: Path
) -> None:
    ran = stillroom(server, "add", "velocity", str(bases.NANO_SSD_1B), "--v-prediction")
    assert ran.returncode == 0, ran.stderr
    wait_until(lambda: "velocity" in available(client), 60, "a worker tells of it")
    drawn = [picture(client, tmp_path, base=base) for base in ("velocity", "nano-ssd-1b")]
    assert (drawn[0] != drawn[1]).any()
    spec = {"base": "velocity", "dataset": dataset, "instance_prompt": PROMPT, "steps": 2}
    tuned = client.wait(client.fine_tune(spec)["id"])
    assert tuned["state"] == "succeeded", tuned["error"]
    waiting = client.generate({"base": "velocity", "prompt": PROMPT, "steps": 150, "images": 16})
    refused = stillroom(server, "remove", "velocity")
    assert refused.returncode == 1
    assert waiting["id"] in refused.stderr
    client.cancel(waiting["id"])
    client.wait(waiting["id"])
    assert stillroom(server, "remove", "velocity").returncode == 0
    assert "velocity" not in {model["id"] for model in client.list_models()}
    with pytest.raises(ApiError, match="No base model is called 'velocity'"):
        client.generate({"base": "velocity", "prompt": PROMPT})
    assert not list(server.settings.added_path.glob("velocity*"))
    # the name comes to mean other weights, under a runner that has the old ones loaded
    added(server, "velocity", bases.NANO_SSD_1B)
    wait_until(lambda: "velocity" in available(client), 60, "a worker tells of it")
    assert (picture(client, tmp_path, base="velocity") == drawn[1]).all()
    assert stillroom(server, "remove", "velocity").returncode == 0
