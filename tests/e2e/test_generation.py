"""Drawing through a real server: alone, in company, and all that a picture may be asked for."""

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from api.client import ApiError, Client
from core.diffusion.components import Components
from core.inference.engine import Engine
from core.inference.lora_shelf import LoraShelf
from core.inference.request import Progress, Request
from core.specs import GenerateSpec
from tests.support.nano import NUMPY_COPY, lora_file, nano_folders, nano_ssd_1b
from tests.support.psnr import psnr_db
from tests.support.server import Server, running, wait_until

__all__ = ["nano_folders", "nano_ssd_1b"]
pytestmark = NUMPY_COPY


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("drawing") / "home"
    with running(home, STILLROOM_WARM='["nano-ssd-1b", "nowhere"]') as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with server.client() as client:
        yield client


def spec_of(**fields: Any) -> dict[str, Any]:
    return {"base": "nano-ssd-1b", "prompt": "a red circle", "steps": 4, "seed": 5, **fields}


def drawn(client: Client, spec: dict[str, Any], folder: Path) -> list[Path]:
    job = client.wait(client.generate(spec)["id"])
    assert job["state"] == "succeeded", job["error"]
    images = (job["result"] or {})["images"]
    return [client.download(image, folder / f"{image}.png") for image in images]


def alone(components: Components, spec: dict[str, Any], folder: Path) -> Path:
    """As the engine draws it when nobody shares its batch."""
    filled = GenerateSpec.model_validate({"width": 64, "height": 64, **spec})
    told = Engine(components, LoraShelf(), lambda *_: 1).draw([Request(filled, [], folder)])
    (path,) = [each.picture.path for each in told if isinstance(each, Progress) and each.picture]
    return path


def test_what_is_warm_is_there_before_the_first_request(server: Server, client: Client) -> None:
    (worker,) = client.list_workers()
    assert worker["resident"] == ["nano-ssd-1b"]
    said = "'nowhere' of STILLROOM_WARM is not on this disk"
    wait_until(lambda: said in server.log(), 30, "what is not there is named")


def keep_busy(client: Client) -> str:
    """A drawing that is under way, for some seconds more; its id."""
    job = client.generate(spec_of(steps=150, images=2))
    for now, _ in client.watch(job["id"]):
        if now["state"] == "running":
            break
    return job["id"]


def test_those_who_wait_together_are_drawn_together_and_get_what_is_theirs(
    client: Client, nano_ssd_1b: Components, tmp_path: Path
) -> None:
    busy = keep_busy(client)
    specs = [
        spec_of(prompt=f"a {colour} circle", seed=seed)
        for seed, colour in enumerate(("red", "blue", "green", "black", "white", "gold"))
    ]
    with ThreadPoolExecutor(6) as pool:
        jobs = list(pool.map(lambda spec: client.generate(spec)["id"], specs))
    assert client.job(busy)["state"] == "running", "all others are waiting when it ends"
    client.wait(busy)
    batches = set()
    for job_id, spec in zip(jobs, specs, strict=True):
        job = client.wait(job_id)
        (image,) = (job["result"] or {})["images"]
        picture = client.download(image, tmp_path / f"{image}.png")
        expected = alone(nano_ssd_1b, spec, tmp_path / f"alone {image}")
        assert psnr_db(picture, expected) > 45
        begun = [e["data"] for e in client.events(job_id) if e["data"].get("state") == "running"]
        batches.add(begun[0].get("batch"))
    assert len(batches) == 1
    assert None not in batches


def test_one_of_a_batch_is_cancelled_and_the_others_go_on(client: Client) -> None:
    busy = keep_busy(client)
    long = [spec_of(steps=100, seed=seed) for seed in range(3)]
    jobs = [client.generate(spec)["id"] for spec in long]
    client.wait(busy)
    for job, _ in client.watch(jobs[1]):
        if job["progress"]["step"] > 0:
            break
    client.cancel(jobs[1])
    states = [client.wait(job_id)["state"] for job_id in jobs]
    assert states == ["succeeded", "cancelled", "succeeded"]


@pytest.mark.parametrize(("format_", "suffix"), [("jpeg", "jpg"), ("webp", "webp")])
def test_formats(format_: str, suffix: str, client: Client, tmp_path: Path) -> None:
    job = client.wait(client.generate(spec_of(format=format_))["id"])
    (image,) = (job["result"] or {})["images"]
    row = client.artifact(image)
    assert (row["format"], row["name"].rpartition(".")[2]) == (format_, suffix)
    content = client.download(image, tmp_path / "picture").read_bytes()
    assert Image.open(io.BytesIO(content)).format == format_.upper()


def test_a_picture_to_begin_with(client: Client, tmp_path: Path) -> None:
    start = tmp_path / "start.png"
    Image.new("RGB", (64, 64), "blue").save(start)
    dataset = client.create_dataset("start")["id"]
    (item,) = client.upload(dataset, [start])["items"]
    image = {"dataset": dataset, "image": item["id"], "strength": 0.25}
    (picture,) = drawn(client, spec_of(steps=8, image=image), tmp_path)
    assert np.abs(np.array(Image.open(picture)).astype(int) - (0, 0, 255)).mean() < 50
    job = client.generate(spec_of(steps=8, image=image))
    assert client.wait(job["id"])["progress"]["steps"] == 2
    for lost in ({"dataset": "dst_no"}, {"image": "img_no"}):
        with pytest.raises(ApiError) as refused:
            client.generate(spec_of(image=image | lost))
        assert refused.value.status == 404


def test_a_long_prompt_and_emphasis_count(client: Client, tmp_path: Path) -> None:
    long = ", ".join(["a red circle"] * 40)
    prompts = [long, f"{long}, on a blue background", "a (red:1.6) circle", "a red circle"]
    pictures = [drawn(client, spec_of(prompt=prompt), tmp_path)[0] for prompt in prompts]
    assert len({path.read_bytes() for path in pictures}) == 4


def test_pictures_are_told_prompt_by_prompt_whichever_is_drawn_first(
    client: Client, tmp_path: Path
) -> None:
    long = ", ".join(["a red circle"] * 40)
    paths = drawn(client, spec_of(prompt=[long, "a red circle"], images=2), tmp_path)
    told = []
    for path in paths:
        with Image.open(path) as image:
            told.append(json.loads(image.info["stillroom"]))
    assert [(made["prompt"], made["seed"]) for made in told] == [
        (prompt, seed) for prompt in (long, "a red circle") for seed in (5, 6)
    ]


def test_a_brought_lora_in_a_batch_is_its_senders_alone(
    client: Client, nano_ssd_1b: Components, tmp_path: Path
) -> None:
    lora = client.upload_lora(lora_file(nano_ssd_1b, tmp_path / "a.safetensors"))["id"]
    busy = client.generate(spec_of(steps=40))
    plain, styled = (
        client.generate(spec_of(**fields))["id"] for fields in ({}, {"loras": [{"artifact": lora}]})
    )
    client.wait(busy["id"])
    paths = []
    for job_id in (plain, styled):
        (image,) = (client.wait(job_id)["result"] or {})["images"]
        paths.append(client.download(image, tmp_path / f"{image}.png"))
    expected = alone(nano_ssd_1b, spec_of(), tmp_path / "alone")
    assert psnr_db(paths[0], expected) > 45
    assert psnr_db(paths[1], expected) < 35
