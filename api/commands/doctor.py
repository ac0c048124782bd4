"""`stillroom doctor`: what is here, what is missing, and what to do about it."""

import json
from collections.abc import Iterator
from dataclasses import asdict

import typer

from api.client import ClientError
from api.commands.connection import Home, Profile, Url, connect, settings_for
from api.commands.terminal import line, table
from api.commands.verb import Json
from api.doctor import cards, fits, machine, torch_build
from api.doctor.observation import Observation
from core.config import Settings

_MARKS = {"good": "ok", "note": "note", "bad": "BAD"}


def doctor(
    url: Url = None, home: Home = None, profile: Profile = None, as_json: Json = False
) -> None:
    """Look at this machine, the home and the server; ends with 1 where something is bad."""
    from api.doctor import house  # SQLAlchemy: the only verb of a client that opens a database

    settings = settings_for(home)
    found = [*_machine(settings), *house.checks(settings)]
    try:
        with connect(url, home, profile) as client:
            found += house.server(client)
    except ClientError as error:
        found.append(Observation("note", "server", str(error)))
    if as_json:
        line(json.dumps([asdict(each) for each in found], ensure_ascii=False))
    else:
        rows = [(_MARKS[each.verdict], each.about, each.says) for each in found]
        table(("", "of", "found"), rows)
    raise typer.Exit(any(each.verdict == "bad" for each in found))


def _machine(settings: Settings) -> Iterator[Observation]:
    told, plugged_in = cards.told_by_driver(), cards.on_the_bus()
    yield machine.system()
    yield machine.python()
    yield machine.torch(torch_build.installed(), told, plugged_in)
    yield from machine.cards_found(told, plugged_in)
    yield machine.memory()
    yield machine.disk(settings)
    for card in told or ():
        yield from fits.on(card)
