"""`stillroom artifacts`: what jobs made, and what was brought."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Annotated

import typer

from api.answers import Artifact
from api.client import Client
from api.commands.terminal import bytes_text, say
from api.commands.verb import Told, gone, rows, verb

app = typer.Typer(no_args_is_help=True, help="Artifacts: what jobs made, and what was brought.")

ArtifactId = Annotated[str, typer.Argument(metavar="ARTIFACT", help="An id.")]


@app.command("list")
@verb
def list_artifacts(
    client: Client,
    job: Annotated[str | None, typer.Option(help="Of this job.")] = None,
    kind: Annotated[str | None, typer.Option(help="lora, unet, image or report.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 50,
) -> Told:
    """The newest artifacts."""
    found = list(islice(client.list_artifacts(job=job, kind=kind), limit))
    return rows(found, ("id", "role", "name", "size", "job", "expires"), _row)


def _row(artifact: Artifact) -> tuple[object, ...]:
    return (
        artifact["id"],
        artifact["role"],
        artifact["name"],
        bytes_text(artifact["bytes"]),
        artifact["job"],
        artifact["expires_at"],
    )


@app.command()
@verb
def rename(client: Client, artifact_id: ArtifactId, name: str) -> Told:
    """Give an artifact another name, which its download has too."""
    artifact = client.rename_artifact(artifact_id, name)
    return Told(artifact, lambda: say(f"{artifact_id} is {artifact['name']}."))


@app.command()
@verb
def expire(
    client: Client,
    artifact_id: ArtifactId,
    days: Annotated[
        float | None, typer.Option(min=0.001, help="From now [default: never].")
    ] = None,
) -> Told:
    """Have an artifact deleted later, if no job needs it then; without --days, not any more."""
    at = None if days is None else datetime.now(UTC) + timedelta(days=days)
    artifact = client.expire_artifact(artifact_id, at)
    until = artifact["expires_at"]
    told = f"expires at {until}" if until else "does not expire"
    return Told(artifact, lambda: say(f"{artifact_id} {told}."))


@app.command()
@verb
def delete(client: Client, artifact_id: ArtifactId) -> Told:
    """Delete an artifact and its files."""
    client.delete_artifact(artifact_id)
    return gone(artifact_id)
