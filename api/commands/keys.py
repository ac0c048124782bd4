"""`stillroom keys`: who may call."""

from typing import Annotated

import typer

from api.commands.connection import Home, Url, connect
from api.commands.terminal import line, say, table

app = typer.Typer(no_args_is_help=True, help="Keys: who may call.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    owner: Annotated[
        str | None, typer.Option(help="Whose rows it sees [default: yours].", show_default=False)
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(help="read, write or admin; repeat for several [default: read and write]."),
    ] = None,
    url: Url = None,
    home: Home = None,
) -> None:
    """Make a key. It is shown this once."""
    with connect(url, home) as client:
        key = client.create_key(name, owner=owner, scopes=scope or [])
    line(key["key"])
    say(f"{key['id']} acts for {key['owner']} with {', '.join(key['scopes'])}. Shown only now.")


@app.command("list")
def list_keys(url: Url = None, home: Home = None) -> None:
    """All keys, without their secrets."""
    with connect(url, home) as client:
        rows = [
            (key["id"], key["name"], key["owner"], ",".join(key["scopes"]), key["created_at"])
            for key in client.list_keys()
        ]
    table(("id", "name", "owner", "scopes", "made"), rows)


@app.command()
def delete(key_id: str, url: Url = None, home: Home = None) -> None:
    """End a key: from the next request on it opens nothing."""
    with connect(url, home) as client:
        client.delete_key(key_id)
    say(f"{key_id} is gone.")
