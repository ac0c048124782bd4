"""`stillroom models`: the base models, and fetching one."""

from typing import Annotated

import typer

from api.commands.connection import Home, Url, connect, settings_for
from api.commands.terminal import say, table

app = typer.Typer(invoke_without_command=True, help="Base models: list them, fetch one.")


@app.callback()
def list_models(context: typer.Context, url: Url = None, home: Home = None) -> None:
    """Base models: list them, fetch one."""
    if context.invoked_subcommand is not None:
        return
    with connect(url, home) as client:
        models = client.list_models()
    table(
        ("id", "layout", "parameters", "native px", "available"),
        [
            (
                model["id"],
                model["layout"],
                f"{model['parameters']:,}",
                model["native_size"],
                "yes" if model["available"] else model.get("why_not") or "no",
            )
            for model in models
        ],
    )


@app.command()
def pull(
    base: Annotated[str, typer.Argument(help="ssd-1b, sdxl or vega.")], home: Home = None
) -> None:
    """Fetch a base model into the home: says how much first, resumes, checks every hash."""
    from core import pull as hub

    say(f"{base} is at {hub.pull(base, settings_for(home), say)}.")
