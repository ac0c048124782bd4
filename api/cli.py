"""The `stillroom` command: every verb, and one sentence on stderr when something cannot be."""

import sys
from collections.abc import Sequence

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from api.client import ClientError
from api.commands import (
    artifacts,
    datasets,
    doctor,
    download,
    jobs,
    keys,
    link,
    models,
    processes,
    upload,
    webhooks,
    workers,
)
from api.commands.terminal import err
from core.errors import ServiceError

app = typer.Typer(
    name="stillroom",
    help="Fine-tunes, distils and runs SSD-1B and its SDXL family on your own machines.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(processes.serve)
app.command()(processes.worker)
app.command("api")(processes.front_end)
app.command()(processes.migrate)
app.command()(processes.demo)
app.command()(doctor.doctor)
app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")
app.add_typer(datasets.app, name="dataset")
app.command("fine-tune")(jobs.fine_tune)
app.command()(jobs.distill)
app.command()(jobs.train)
app.command()(jobs.generate)
app.command()(jobs.extend)
app.command()(jobs.retry)
app.add_typer(jobs.app, name="jobs")
app.command()(jobs.watch)
app.command()(jobs.events)
app.command()(jobs.metrics)
app.command()(jobs.logs)
app.command()(jobs.pause)
app.command()(jobs.resume)
app.command()(jobs.cancel)
app.command()(download.download)
app.command()(link.link)
app.command()(upload.upload)
app.add_typer(artifacts.app, name="artifacts")
app.command()(workers.queue)
app.add_typer(workers.app, name="workers")
app.add_typer(webhooks.app, name="webhooks")


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script. ``arguments`` default to the command line's."""
    try:
        app(arguments)
    except ServiceError as error:
        _refuse(error.detail)
    except (ClientError, OSError) as error:
        _refuse(str(error))
    except ValidationError as error:
        _refuse(_setting_at_fault(error))
    except SettingsError as error:
        _refuse(_setting_without_form(error))


def _refuse(sentence: str) -> None:
    err.print(sentence, markup=False, soft_wrap=True)
    sys.exit(1)


def _setting_at_fault(error: ValidationError) -> str:
    """Names the variable: settings are the one thing the command line itself validates."""
    first = error.errors()[0]
    name = "_".join(["STILLROOM", *(str(part).upper() for part in first["loc"])])
    return f"{name}: {first['msg']}."


def _setting_without_form(error: SettingsError) -> str:
    """Of a list or a table of names, which are read as JSON; the error has the field in quotes."""
    _, field, *_ = str(error).split('"')
    return (
        f'STILLROOM_{field.upper()} is no JSON: write a list as ["a", "b"], a table of names as '
        '{"a": "b"}.'
    )
