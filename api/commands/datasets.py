"""`stillroom dataset`: pictures to learn from."""

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from api.answers import Dataset, UploadedFile
from api.client import Client
from api.commands.connection import Home, Url, connect
from api.commands.terminal import bytes_text, facts, line, say, table

app = typer.Typer(no_args_is_help=True, help="Datasets: pictures to learn from.")

Paths = Annotated[
    list[Path], typer.Argument(help="Pictures, captions, zips or folders.", show_default=False)
]


@app.command()
def create(
    name: str,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Pictures, captions, zips or folders to begin with."),
    ] = None,
    captioned: Annotated[
        bool, typer.Option("--captioned", help="Every picture has its own caption.")
    ] = False,
    url: Url = None,
    home: Home = None,
) -> None:
    """Make a dataset; its id is printed."""
    with connect(url, home) as client:
        dataset = client.create_dataset(name, "captioned" if captioned else "instance")
        line(dataset["id"])
        if paths:
            send(client, dataset["id"], paths)


@app.command()
def upload(dataset_id: str, paths: Paths, url: Url = None, home: Home = None) -> None:
    """Send pictures. What is there already is not doubled, so simply repeat what broke off."""
    with connect(url, home) as client:
        send(client, dataset_id, paths)


def send(client: Client, dataset_id: str, paths: list[Path]) -> None:
    answer = client.upload(dataset_id, paths)
    for item in answer["items"]:
        for flaw in item["problems"]:
            say(f"{item['filename']}: {flaw['detail']}")
    kept = sum(_is_new(item) for item in answer["items"])
    say(f"{kept} new; {answer['dataset']['name']} now holds {_size(answer['dataset'])}.")


def _is_new(item: UploadedFile) -> bool:
    there = any(flaw["code"] == "already_there" for flaw in item["problems"])
    return item["kind"] == "image" and item["id"] is not None and not there


def _size(dataset: Dataset) -> str:
    noun = "picture" if dataset["images"] == 1 else "pictures"
    return f"{dataset['images']} {noun}, {bytes_text(dataset['bytes'])}"


@app.command("list")
def list_datasets(
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 50,
    url: Url = None,
    home: Home = None,
) -> None:
    """The newest datasets."""
    with connect(url, home) as client:
        rows = [
            (dataset["id"], dataset["name"], dataset["kind"], dataset["images"], _state(dataset))
            for dataset in islice(client.list_datasets(), limit)
        ]
    table(("id", "name", "kind", "pictures", "state"), rows)


def _state(dataset: Dataset) -> str:
    if dataset["frozen"]:
        return "frozen"
    return "ready" if dataset["report"]["ready"] else "not ready"


@app.command()
def show(dataset_id: str, url: Url = None, home: Home = None) -> None:
    """One dataset, what is wrong with it, and its pictures."""
    with connect(url, home) as client:
        dataset = client.dataset(dataset_id)
        images = list(client.list_images(dataset_id))
    facts(
        [
            ("id", dataset["id"]),
            ("name", dataset["name"]),
            ("kind", dataset["kind"]),
            ("state", _state(dataset)),
            ("holds", _size(dataset)),
            ("made", dataset["created_at"]),
            *(("problem", flaw["detail"]) for flaw in dataset["report"]["problems"]),
        ]
    )
    table(
        ("id", "file", "pixels", "caption"),
        [(i["id"], i["filename"], f"{i['width']}x{i['height']}", i.get("caption")) for i in images],
    )
