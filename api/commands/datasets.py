"""`stillroom dataset`: pictures to learn from."""

import json
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from api.answers import Dataset, Upload, UploadedFile
from api.client import Client, ClientError
from api.commands.connection import Home, ready_home
from api.commands.terminal import bytes_text, counting, facts, line, say, table, transferring
from api.commands.verb import Json, Told, gone, rows, verb
from api.uploads import files_of

if TYPE_CHECKING:
    from core.datasets.importing.report import Report

app = typer.Typer(no_args_is_help=True, help="Datasets: pictures to learn from.")

Paths = Annotated[
    list[Path], typer.Argument(help="Pictures, captions, zips or folders.", show_default=False)
]


@app.command()
@verb
def create(
    client: Client,
    name: str,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Pictures, captions, zips or folders to begin with."),
    ] = None,
    captioned: Annotated[
        bool, typer.Option("--captioned", help="Every picture has its own caption.")
    ] = False,
) -> Told:
    """Make a dataset; its id is printed."""
    if paths:
        files_of(paths)  # what is not there is said before anything is made
    dataset = client.create_dataset(name, "captioned" if captioned else "instance")
    if paths:
        dataset = _filled(client, dataset["id"], paths)
    return Told(dataset, lambda: line(dataset["id"]))


def _filled(client: Client, dataset_id: str, paths: list[Path]) -> Dataset:
    try:
        return send(client, dataset_id, paths)["dataset"]
    except ClientError:
        say(f"{dataset_id} is made: go on with `stillroom dataset upload {dataset_id}`.")
        raise


@app.command()
@verb
def upload(client: Client, dataset_id: str, paths: Paths) -> Told:
    """Send pictures. What is there already is not doubled, so simply repeat what broke off."""
    return Told(send(client, dataset_id, paths), lambda: None)


def send(client: Client, dataset_id: str, paths: list[Path]) -> Upload:
    """Sends them, and says of each file what is wrong with it."""
    with transferring("sending") as tell:
        answer = client.upload(dataset_id, paths, tell=tell)
    for item in answer["items"]:
        for flaw in item["problems"]:
            say(f"{item['filename']}: {flaw['detail']}")
    kept = sum(_is_new(item) for item in answer["items"])
    say(f"{kept} new; {answer['dataset']['name']} now holds {_size(answer['dataset'])}.")
    return answer


def _is_new(item: UploadedFile) -> bool:
    there = any(flaw["code"] == "already_there" for flaw in item["problems"])
    return item["kind"] == "image" and item["id"] is not None and not there


def _size(dataset: Dataset) -> str:
    noun = "picture" if dataset["images"] == 1 else "pictures"
    return f"{dataset['images']} {noun}, {bytes_text(dataset['bytes'])}"


@app.command("import")
def import_folder(
    path: Annotated[
        Path, typer.Argument(help="A folder below STILLROOM_IMPORT_ROOTS, or a .tar in one.")
    ],
    name: Annotated[str, typer.Option(help="Of the dataset.")],
    kind: Annotated[
        Literal["captioned", "instance"] | None,
        typer.Option(help="[default: captioned where a picture has a caption]"),
    ] = None,
    owner: Annotated[str, typer.Option(help="Whose it is.")] = "admin",
    decode: Annotated[
        bool, typer.Option("--decode", help="Unpack every picture too, to find damaged ones: slow.")
    ] = False,
    as_json: Json = False,
    home: Home = None,
) -> None:
    """Make a dataset of pictures that lie on this server's disk, and stay there; its id is printed.

    Captions are those of .txt files, of a metadata.jsonl or .parquet, or of WebDataset shards.
    """
    from core.datasets.importing import importer

    settings = ready_home(home)
    with counting() as tell:
        report = importer.import_folder(
            path, settings, tell, name=name, kind=kind, owner=owner, decode=decode
        )
    if as_json:
        line(json.dumps(asdict(report)))
    else:
        line(report.dataset)
        _tell(report)


def _tell(report: "Report") -> None:
    for left_out in report.left_out:
        for sentence in left_out.first:
            say(sentence)
        say(f"{left_out.code}: {left_out.files:,} left out.")
    how = "" if report.decoded else " Headers were read, pixels were not decoded."
    say(
        f"{report.name} ({report.layout}, {report.kind}) holds {report.images:,} pictures, "
        f"{bytes_text(report.bytes)}, where they are.{how}"
    )


@app.command("list")
@verb
def list_datasets(
    client: Client,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 50,
) -> Told:
    """The newest datasets."""
    return rows(
        list(islice(client.list_datasets(), limit)),
        ("id", "name", "kind", "pictures", "state"),
        lambda each: (each["id"], each["name"], each["kind"], each["images"], _state(each)),
    )


def _state(dataset: Dataset) -> str:
    if dataset["frozen"]:
        return "frozen"
    return "ready" if dataset["report"]["ready"] else "not ready"


@app.command()
@verb
def show(
    client: Client,
    dataset_id: str,
    limit: Annotated[int, typer.Option(min=1, help="The first so many pictures.")] = 50,
) -> Told:
    """One dataset, what is wrong with it, and its first pictures."""
    dataset = client.dataset(dataset_id)
    images = list(islice(client.list_images(dataset_id), limit))

    def tell() -> None:
        facts(
            [
                ("id", dataset["id"]),
                ("name", dataset["name"]),
                ("kind", dataset["kind"]),
                ("state", _state(dataset)),
                ("holds", _size(dataset)),
                ("made", dataset["created_at"]),
                *(("problem", flaw["detail"]) for flaw in dataset["report"]["problems"]),
                *(("advice", flaw["detail"]) for flaw in dataset["report"]["suggestions"]),
            ]
        )
        table(
            ("id", "file", "pixels", "caption"),
            [(i["id"], i["filename"], f"{i['width']}x{i['height']}", i["caption"]) for i in images],
        )

    return Told({"dataset": dataset, "images": images}, tell)


@app.command()
@verb
def caption(
    client: Client,
    dataset_id: str,
    image_id: str,
    text: Annotated[str | None, typer.Argument(help="Left out: none.")] = None,
) -> Told:
    """Give a picture another caption, as long as no job uses the dataset."""
    image = client.set_caption(dataset_id, image_id, text)
    told = "no caption" if image["caption"] is None else f"the caption {image['caption']!r}"
    return Told(image, lambda: say(f"{image['filename']} has {told}."))


@app.command()
@verb
def drop(client: Client, dataset_id: str, image_id: str) -> Told:
    """Take a picture out, as long as no job uses the dataset."""
    client.delete_image(dataset_id, image_id)
    return gone(image_id)


@app.command()
@verb
def delete(client: Client, dataset_id: str) -> Told:
    """Delete a dataset with all that was made of its pictures on the way; what jobs made of it for
    good stays until they are deleted."""
    client.delete_dataset(dataset_id)
    return gone(dataset_id)
