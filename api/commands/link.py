"""`stillroom link`: an artifact for somebody who has no key."""

from typing import Annotated

import typer

from api.client import Client
from api.commands.terminal import line, say
from api.commands.verb import Told, verb

DAY_SECONDS = 24 * 3600


@verb
def link(
    client: Client,
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="An id.")],
    expires_in: Annotated[
        int, typer.Option(metavar="SECONDS", help="From 60 to 604800, seven days.")
    ] = DAY_SECONDS,
) -> Told:
    """Make a link that opens an artifact for whoever has it. It ends with the artifact, and with
    the key that made it."""
    made = client.link(artifact, expires_in)

    def show() -> None:
        line(made["url"])
        say(f"Opens {artifact} without a key until {made['expires_at']}.")

    return Told(made, show)
