"""`stillroom download`: an artifact, or all that a job made."""

from pathlib import Path
from typing import Annotated, TypedDict

import typer

from api.answers import Artifact
from api.client import Client, ClientError, is_folder
from api.commands import programs
from api.commands.programs import Program, ProgramName
from api.commands.terminal import bytes_text, line, say, short, transferring
from api.commands.verb import Told, verb
from core.files.digest import sha256_of


class Fetched(TypedDict):
    """A file or a folder that is there now, whole."""

    path: str
    artifact: str
    sha256: str


@verb
def download(
    client: Client,
    what: Annotated[str, typer.Argument(metavar="JOB|ARTIFACT", help="An id.")],
    to: Annotated[
        Path | None,
        typer.Option(
            help="Folder [default: here; for a job, a folder with its id].", dir_okay=True
        ),
    ] = None,
    program: Annotated[
        ProgramName | None,
        typer.Option(
            "--for",
            help="The one file that it reads, into its folder, which is --to.",
            show_default=False,
        ),
    ] = None,
) -> Told:
    """Fetch files; each is checked against its SHA-256 before it takes its name. One that broke off
    goes on where it was."""
    if program is not None:
        fetched = [_place(client, what, programs.known(program), to)]
    elif what.startswith("job_"):
        fetched = download_all(client, what, to or Path(what))
    else:
        artifact = client.artifact(what)
        fetched = [_fetch(client, artifact, to or Path(), artifact["name"])]

    def show() -> None:
        for each in fetched:
            line(each["path"])

    return Told(fetched, show)


def _place(client: Client, what: str, program: Program, root: Path | None) -> Fetched:
    """Puts the file that ``program`` reads where it looks for it, and says what to do there."""
    if root is None:
        raise typer.BadParameter(f"Give {program.title}'s folder with --to.")
    artifact = _readable(client, what) if what.startswith("job_") else client.artifact(what)
    folder = programs.place(program, artifact, root)
    job = client.job(artifact["job"]) if artifact["job"] else None
    name = programs.file_name(artifact, job)
    fetched = _fetch(client, artifact, folder, name)
    say(programs.advice(program, artifact, folder / name))
    return fetched


def _readable(client: Client, job_id: str) -> Artifact:
    """The file of a job's that other programs read."""
    for artifact in client.artifacts_of(job_id):
        if artifact["role"] in ("lora_kohya", "checkpoint"):
            return artifact
    raise ClientError(
        f"{job_id} has made no LoRA and no checkpoint: it is {client.job(job_id)['state']}."
    )


def download_all(client: Client, job_id: str, folder: Path) -> list[Fetched]:
    artifacts = list(client.artifacts_of(job_id))
    if not artifacts:
        state = client.job(job_id)["state"]
        raise ClientError(f"{job_id} has made nothing to download: it is {state}.")
    return [
        _fetch(client, artifact, folder, name, f"{artifact['id']}-{Path(name).name}")
        for artifact, name in zip(artifacts, _names(artifacts), strict=True)
    ]


def _names(artifacts: list[Artifact]) -> list[str]:
    """Each artifact's name; one that stands for several gets the id before it."""
    names = [artifact["name"] for artifact in artifacts]
    return [
        f"{artifact['id']}-{name}" if names.count(name) > 1 else name
        for artifact, name in zip(artifacts, names, strict=True)
    ]


def _fetch(client: Client, artifact: Artifact, folder: Path, *names: str) -> Fetched:
    """Under the first of the names that the folder has nothing else by: two jobs may call their
    pictures alike."""
    # names are text of somebody's: never a way out of the folder
    path = _free(artifact, [folder / Path(name).name for name in names])
    if not all(place.exists() for place in _places(artifact, path)):
        with transferring(path.name) as tell:
            client.download(artifact, path, tell=tell)
        say(f"{artifact['role']}, {bytes_text(artifact['bytes'])}")
    return {"path": short(path), "artifact": artifact["id"], "sha256": artifact["sha256"]}


def _free(artifact: Artifact, paths: list[Path]) -> Path:
    for path in paths:
        if not _is_strange(artifact, path):
            return path
    raise ClientError(
        f"{short(paths[0])} is something else already; move it, or give another folder with --to."
    )


def _is_strange(artifact: Artifact, path: Path) -> bool:
    """Whether there is something else where its files belong. Some of them alone are not: of a
    folder, a download that broke off leaves the first."""
    if is_folder(artifact) and path.is_file():
        return True
    there = {place: sha256 for place, sha256 in _places(artifact, path).items() if place.exists()}
    return any(not place.is_file() or sha256_of(place) != there[place] for place in there)


def _places(artifact: Artifact, path: Path) -> dict[Path, str]:
    """Where its files belong, with their hashes."""
    if not is_folder(artifact):
        return {path: artifact["sha256"]}
    return {path / Path(file["path"]).name: file["sha256"] for file in artifact["files"]}
