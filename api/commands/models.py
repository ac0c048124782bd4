"""`stillroom models`: the base models, fetching one, and bringing one of one's own."""

from pathlib import Path
from typing import Annotated, Any

import typer

from api.client import Client
from api.commands.connection import Home, ready_home, settings_for
from api.commands.terminal import say
from api.commands.verb import Told, rows, verb

app = typer.Typer(
    invoke_without_command=True, help="Base models: list them, fetch one, bring your own."
)


@app.callback()
@verb
def models(client: Client) -> Told:
    """Base models: list them, fetch one, bring your own."""
    return _listed(client)


@app.command("list")
@verb
def list_models(client: Client) -> Told:
    """All base models, and why those that are not there are not."""
    return _listed(client)


def _listed(client: Client) -> Told:
    columns = ("id", "layout", "parameters", "native px", "available")
    return rows(client.list_models(), columns, _row)


def _row(model: dict[str, Any]) -> tuple[object, ...]:
    return (
        model["id"],
        model["layout"],
        f"{model['parameters']:,}",
        model["native_size"],
        "yes" if model["available"] else model.get("why_not") or "no",
    )


@app.command()
def pull(
    base: Annotated[
        str,
        typer.Argument(
            help="ssd-1b, sdxl or vega; or parts: tokenizers and VAE, for checkpoints of one file."
        ),
    ],
    home: Home = None,
) -> None:
    """Fetch a base model into the home: says how much first, resumes, checks every hash."""
    from core import pull as hub
    from core.bases import PARTS

    settings = settings_for(home)
    here = hub.pull_parts(settings, say) if base == PARTS else hub.pull(base, settings, say)
    say(f"{base}: {here}")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What jobs are to call it: a-z, 0-9, dot, dash.")],
    path: Annotated[
        Path,
        typer.Argument(help="A .safetensors of the original layout, or a folder of diffusers'."),
    ],
    v_prediction: Annotated[
        bool,
        typer.Option("--v-prediction", help="It predicts the velocity, and does not say so."),
    ] = False,
    licence: Annotated[
        str | None, typer.Option(help="To show beside it [default: what it says itself].")
    ] = None,
    home: Home = None,
) -> None:
    """Bring a base model of your own: it is checked, and converted once into the home."""
    from core import catalogue

    settings = ready_home(home)
    base = catalogue.add(name, path, settings, say, velocity=v_prediction, licence=licence)
    say(
        f"{base.id} is there: layout {base.layout.id}, {base.native_size} px, predicts "
        f"{base.prediction_type}. Workers of this home take jobs for it from their next beat on."
    )


@app.command()
def remove(name: str, home: Home = None) -> None:
    """Take away a base model that was added, unless a job that has not ended needs it."""
    from core import catalogue

    others = catalogue.remove(name, ready_home(home))
    say(f"{name} is gone from this home.")
    if others:
        say(f"{', '.join(others)} hold it still: run the same there.")
