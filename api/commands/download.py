"""`stillroom download`: an artifact, or all that a job made."""

from pathlib import Path
from typing import Annotated

import typer

from api.answers import Artifact
from api.client import Client, ClientError, is_folder
from api.commands.connection import Home, Url, connect
from api.commands.terminal import bytes_text, line, say, short
from core.files.digest import sha256_of


def download(
    what: Annotated[str, typer.Argument(metavar="JOB|ARTIFACT", help="An id.")],
    to: Annotated[
        Path | None,
        typer.Option(
            help="Folder [default: here; for a job, a folder with its id].", dir_okay=True
        ),
    ] = None,
    url: Url = None,
    home: Home = None,
) -> None:
    """Fetch files; each is checked against its SHA-256 before it takes its name."""
    with connect(url, home) as client:
        if what.startswith("job_"):
            download_all(client, what, to or Path(what))
        else:
            artifact = client.artifact(what)
            _fetch(client, artifact, to or Path(), artifact["name"])


def download_all(client: Client, job_id: str, folder: Path) -> None:
    artifacts = list(client.artifacts_of(job_id))
    if not artifacts:
        state = client.job(job_id)["state"]
        raise ClientError(f"{job_id} has made nothing to download: it is {state}.")
    for artifact, name in zip(artifacts, _names(artifacts), strict=True):
        _fetch(client, artifact, folder, name)


def _names(artifacts: list[Artifact]) -> list[str]:
    """Each artifact's name; one that stands for several gets the id before it."""
    names = [artifact["name"] for artifact in artifacts]
    return [
        f"{artifact['id']}-{name}" if names.count(name) > 1 else name
        for artifact, name in zip(artifacts, names, strict=True)
    ]


def _fetch(client: Client, artifact: Artifact, folder: Path, name: str) -> None:
    path = folder / Path(name).name  # names are text of somebody's: never a way out of the folder
    places = _places(artifact, path)
    there = [place for place in places if place.exists()]
    strange = any(not place.is_file() or sha256_of(place) != places[place] for place in there)
    if strange or (is_folder(artifact) and path.is_file()):
        raise ClientError(
            f"{short(path)} is something else already; move it, or give another folder with --to."
        )
    if len(there) < len(places):  # of a folder, a download that broke off leaves the first files
        client.download(artifact, path)
        say(f"{artifact['role']}, {bytes_text(artifact['bytes'])}")
    line(short(path))


def _places(artifact: Artifact, path: Path) -> dict[Path, str]:
    """Where its files belong, with their hashes."""
    if not is_folder(artifact):
        return {path: artifact["sha256"]}
    return {path / Path(file["path"]).name: file["sha256"] for file in artifact["files"]}
