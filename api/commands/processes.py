"""`serve`, `worker`, `api`, `migrate`, `demo`: what starts a process, or is one."""

import os
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from api import launch
from api.commands.connection import Home, settings_for
from api.commands.terminal import say
from core.config import Settings

Host = Annotated[str | None, typer.Option(help="Address to listen on [default: 127.0.0.1].")]
Port = Annotated[int | None, typer.Option(help="Port to listen on [default: 8400].")]


def serve(
    home: Home = None,
    host: Host = None,
    port: Port = None,
    devices: Annotated[
        str | None,
        typer.Option(help="auto, cpu, or cuda:0=generate,cuda:1=train,cuda:2 [default: auto]."),
    ] = None,
) -> None:
    """Run the server: the HTTP API and one worker per device."""
    _become("worker.supervisor", home=home, host=host, port=port, devices=devices)


def worker(
    device: Annotated[str, typer.Option(help="cpu, cuda:0, ...")],
    home: Home = None,
) -> None:
    """Run one worker alone: what a second host does."""
    _become("worker.supervisor", "--workers-only", home=home, devices=device)


def front_end(home: Home = None, host: Host = None, port: Port = None) -> None:
    """Run the HTTP API alone, with no worker beside it."""
    _become("api", home=home, host=host, port=port)


def migrate(home: Home = None) -> None:
    """Bring the database to the newest revision."""
    from core.db.migrate import upgrade

    settings = settings_for(home)
    settings.prepare()
    upgrade(settings.effective_database_url)
    say(f"The database is at revision {newest_revision()}.")


def newest_revision() -> str:
    from alembic.script import ScriptDirectory

    from core.db.migrate import migrations_path

    return ScriptDirectory(str(migrations_path())).get_current_head() or "none"


def demo(
    home: Home = None,
    images: Annotated[
        Path | None,
        typer.Option(help="A folder with pictures of one subject, instead of ours."),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps.")] = None,
) -> None:
    """See the whole of it: a server of its own, a LoRA trained, used, downloaded and checked."""
    from api.demo.story import DEFAULT_STEPS, run

    run(settings_for(home), images=images, steps=steps or DEFAULT_STEPS)


def _become(module: str, *arguments: str, **settings: Any) -> NoReturn:
    """This process turns into ``python -m module``, so that signals reach it and nothing else.

    Raises:
        ValueError: a setting cannot be. It is told here, where a sentence is made of it.
    """
    Settings(**{name: value for name, value in settings.items() if value is not None})
    line = launch.command(module, *arguments)
    os.execve(line[0], line, launch.environment(**settings))
