"""`stillroom keys`: who may call."""

from typing import Annotated

import typer

from api.client import Client
from api.commands.terminal import line, say
from api.commands.verb import Told, gone, rows, verb

app = typer.Typer(no_args_is_help=True, help="Keys: who may call.")


@app.command()
@verb
def create(
    client: Client,
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    owner: Annotated[
        str | None, typer.Option(help="Whose rows it sees [default: yours].", show_default=False)
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="read, write or admin; repeat for several [default: read and write]."),
    ] = None,
) -> Told:
    """Make a key. It is shown this once."""
    key = client.create_key(name, owner=owner, scopes=scope or [])

    def show() -> None:
        line(key["key"])
        say(f"{key['id']} acts for {key['owner']} with {', '.join(key['scopes'])}. Shown only now.")

    return Told(key, show)


@app.command("list")
@verb
def list_keys(client: Client) -> Told:
    """All keys, without their secrets."""
    return rows(
        list(client.list_keys()),
        ("id", "name", "owner", "scopes", "made"),
        lambda key: (
            key["id"],
            key["name"],
            key["owner"],
            ",".join(key["scopes"]),
            key["created_at"],
        ),
    )


@app.command()
@verb
def delete(client: Client, key_id: str) -> Told:
    """End a key: from the next request on it opens nothing."""
    client.delete_key(key_id)
    return gone(key_id)
