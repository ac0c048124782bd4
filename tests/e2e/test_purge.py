"""A picture is deleted, and nothing of it is left: not in the home, the store or the database."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.client import Client
from core.retention import LOOK_SECONDS
from tests.support import pictures
from tests.support.server import Server, running, wait_until

PIECE_BYTES = 24
"""Long enough to be nobody else's."""
PIECES = 40
"""Of a file, spread over it."""
ROOMS = {"blobs", "cache", "loras"}
"""Folders of the home that a training and a drawing with it leave something in."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A home of this test's own: of another one's pictures the cache would keep class pictures."""
    with running(tmp_path_factory.mktemp("purge") / "home") as server:
        yield server


def files_of(home: Path) -> list[Path]:
    return [path for path in home.rglob("*") if path.is_file()]


def derived(home: Path) -> list[Path]:
    """What holds pictures, or was made of them."""
    rooms = ROOMS | {"unets", "scratch"}
    return [path for path in files_of(home) if path.relative_to(home).parts[0] in rooms]


def marks_of(path: Path) -> set[bytes]:
    """The file's hash, as text and as bytes, and pieces of it that are like nothing else."""
    data = path.read_bytes()
    digest = hashlib.sha256(data)
    step = max(1, (len(data) - PIECE_BYTES) // PIECES)
    pieces = (data[start : start + PIECE_BYTES] for start in range(0, len(data), step))
    odd = {piece for piece in pieces if len(piece) == PIECE_BYTES and len({*piece}) > 12}
    return {digest.hexdigest().encode(), digest.digest(), *odd}


def left(home: Path, marks: dict[str, set[bytes]]) -> list[str]:
    """What is found of each, and where."""
    found = []
    for path in files_of(home):
        data = path.read_bytes()
        found += [
            f"{name} in {path.relative_to(home)}"
            for name, each in marks.items()
            if any(mark in data for mark in each)
        ]
    return found


def train(client: Client, dataset: str) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "base": "nano-ssd-1b",
        "dataset": dataset,
        "instance_prompt": "a photo of sks dog",
        "class_prompt": "a photo of a dog",
        "prior": {"images": 2},
        "steps": 4,
        "checkpoint_every": 2,
        "keep_every": 2,
        "sample": {"prompts": ["sks dog"], "every": 2, "steps": 2},
    }
    job = client.wait(client.fine_tune(spec)["id"])
    assert job["state"] == "succeeded", job["error"]
    drawing = {"base": "nano-ssd-1b", "prompt": "sks dog", "steps": 2}
    drawing |= {"loras": [{"job": job["id"]}]}
    drawn = client.wait(client.generate(drawing)["id"])
    assert drawn["state"] == "succeeded", drawn["error"]
    return {"job": job["id"], "drawn": drawn["id"]}


def test_nothing_is_left_of_a_picture(server: Server, tmp_path: Path) -> None:
    home = server.settings.root
    with server.client() as client:
        sent = pictures.write(tmp_path, 3)
        dataset = client.create_dataset("dog")["id"]
        client.upload(dataset, sent)
        made = train(client, dataset)
        wait_until(lambda: not files_of(home / "scratch"), 60, "the worker has tidied up")
        marks = {str(path): marks_of(path) for path in [*sent, *derived(home)]}
        assert {path.relative_to(home).parts[0] for path in derived(home)} == ROOMS
        assert {told.split(" in ")[0] for told in left(home, marks)} == {*marks}

        client.delete_dataset(dataset)
        files = [
            file
            for job in made.values()
            for artifact in client.artifacts_of(job)
            for file in artifact["files"]
        ]
        kept = [path for path in derived(home) if path.is_relative_to(home / "blobs")]
        assert len(kept) == len(files)  # neither pictures nor checkpoints

        for job in made.values():
            client.delete_job(job)
        assert derived(home) == []
    # at once, unless somebody read in the database just then: retention comes back to it
    seconds = 1.5 * LOOK_SECONDS
    wait_until(lambda: left(home, marks) == [], seconds, "nothing is left of it")


def test_what_two_datasets_share_stays_for_the_other(server: Server, tmp_path: Path) -> None:
    home = server.settings.root
    with server.client() as client:
        paths = pictures.write(tmp_path, 2)
        first, second = (client.create_dataset(name)["id"] for name in ("one", "two"))
        client.upload(first, paths)
        client.upload(second, paths[:1])
        made = [train(client, dataset) for dataset in (first, second)]
        cached = {path.name for path in derived(home) if path.suffix == ".safetensors"}
        for each in made:
            for job in each.values():
                client.delete_job(job)
        client.delete_dataset(first)
        kept = {path.name for path in derived(home) if path.suffix == ".safetensors"}
        assert kept < cached
        assert len(kept) == 1 + 2 + 2  # a picture, two captions, two class pictures
        client.delete_dataset(second)
        assert derived(home) == []
