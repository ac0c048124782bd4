"""A verb of the server's: what each takes beside its own arguments, and how its answer is told."""

import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from api.client import ApiError
from api.commands.connection import Home, Profile, Url, connect
from api.commands.terminal import line, say, table

Json = Annotated[bool, typer.Option("--json", help="The server's answer, as JSON.")]


@dataclass(frozen=True)
class Told:
    """``document`` is what the server said, for programs; ``show`` tells a person. ``code`` is what
    the command ends with. ``then`` is what remains to be done once a person knows that much; its
    own document is the one for programs."""

    document: object
    show: Callable[[], None]
    code: int = 0
    then: "Callable[[], Told] | None" = None


def verb(command: Callable[..., Told]) -> Callable[..., None]:
    """Gives a command the options that lead to a server, hands it a ``client`` for that server, and
    tells what it returns. As a group's callback it is silent where a verb of the group follows."""

    @wraps(command)
    def with_server(
        context: typer.Context,
        url: str | None,
        home: Path | None,
        profile: str | None,
        as_json: bool,
        **arguments: Any,
    ) -> None:
        if context.invoked_subcommand is not None:
            return
        with connect(url, home, profile) as client, _refusals_told(as_json):
            told = command(client=client, **arguments)
            while told.then:
                if not as_json:
                    told.show()
                told = told.then()
        if as_json:
            line(json.dumps(told.document, ensure_ascii=False))
        else:
            told.show()
        if told.code:
            raise typer.Exit(told.code)

    own = [p for p in inspect.signature(command).parameters.values() if p.name != "client"]
    parameters = [_option("context", typer.Context, inspect.Parameter.empty), *own, *_SERVER]
    keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    with_server.__annotations__ = {p.name: p.annotation for p in keyword_only}
    setattr(with_server, "__signature__", inspect.Signature(keyword_only))  # noqa: B010
    return with_server


@contextmanager
def _refusals_told(as_json: bool) -> Iterator[None]:
    """For programs a refusal is an answer of the server's like any other, with its stable code."""
    try:
        yield
    except ApiError as error:
        if as_json:
            line(json.dumps(error.problem, ensure_ascii=False))
        raise


def rows(
    documents: list[Any], columns: tuple[str, ...], row: Callable[[Any], Sequence[object]]
) -> Told:
    """A list: a row of a table for each document."""
    return Told(documents, lambda: table(columns, [row(each) for each in documents]))


def gone(id: str) -> Told:
    """What is said of something that was deleted."""
    return Told({"deleted": id}, lambda: say(f"{id} is gone."))


def _option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
    )


_SERVER = (
    _option("url", Url, None),
    _option("home", Home, None),
    _option("profile", Profile, None),
    _option("as_json", Json, False),
)
