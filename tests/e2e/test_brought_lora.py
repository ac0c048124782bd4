"""A LoRA that was made elsewhere, over a real socket: brought, drawn with, trained from."""

import io
from pathlib import Path

import pytest
from PIL import Image

from api.answers import Brought
from api.client import ApiError, Client
from core.layouts import SSD_1B
from tests.support import loras, pictures

ATTENTION = loras.unet_pairs(modules=SSD_1B.attention_modules())
DRAWING = {"base": "nano-ssd-1b", "prompt": "a red circle", "seed": 5, "steps": 3}


def bring(client: Client, path: Path, content: bytes) -> Brought:
    path.write_bytes(content)
    return client.upload_lora(path)


def drawn(client: Client, folder: Path, *artifacts: str) -> bytes:
    """The pixels."""
    stack = [{"artifact": artifact} for artifact in artifacts]
    done = client.wait(client.generate({**DRAWING, "loras": stack})["id"])
    assert done["state"] == "succeeded", done["error"]
    assert done["result"]
    path = client.download(done["result"]["images"][0], folder / "picture.png")
    return Image.open(io.BytesIO(path.read_bytes())).tobytes()


def test_every_dialect_draws_the_same_picture(client: Client, tmp_path: Path) -> None:
    """Alpha is half the rank, which multiplies without rounding."""
    halved = {place: (a, b / 2) for place, (a, b) in ATTENTION.items()}
    files = {
        "kohya_sgm": loras.spelt(loras.kohya_sgm, ATTENTION, 2),
        "kohya": loras.spelt(loras.kohya, ATTENTION, 2),
        "peft": loras.spelt(loras.peft, halved),
        "diffusers": loras.spelt(loras.diffusers, halved),
        "processors": loras.spelt(loras.bare_processors, halved),
    }
    brought = [
        bring(client, tmp_path / f"{name}.safetensors", loras.file_of(tensors))
        for name, tensors in files.items()
    ]
    assert len({artifact["id"] for artifact in brought}) == len(files)
    found = {drawn(client, tmp_path, artifact["id"]) for artifact in brought}
    assert len(found) == 1
    assert drawn(client, tmp_path) not in found


def test_a_training_begins_with_it(client: Client, tmp_path: Path) -> None:
    content = loras.file_of(loras.spelt(loras.kohya_sgm, ATTENTION, 2))
    lora = bring(client, tmp_path / "dog.safetensors", content)
    dataset = client.create_dataset("dog")["id"]
    client.upload(dataset, pictures.write(tmp_path / "pictures", 2))
    spec = {
        "base": "nano-ssd-1b",
        "dataset": dataset,
        "instance_prompt": "a photo of sks dog",
        "steps": 1,
        "lora": {"rank": 4, "alpha": 8},
        "init_from": lora["id"],
    }
    done = client.wait(client.fine_tune(spec)["id"])
    assert done["state"] == "succeeded", done["error"]
    with pytest.raises(ApiError, match=r"of rank 4, `lora\.rank` is 8"):
        client.fine_tune({**spec, "lora": {"rank": 8}})
