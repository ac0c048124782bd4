"""Options that mirror a spec: one a field, help and default from the spec, absent stays absent."""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from types import GenericAlias, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

Command = Callable[..., Any]


@dataclass(frozen=True)
class Option:
    """``path`` is the field's place in the spec, ``name`` what the command line calls it."""

    path: tuple[str, ...]
    name: str
    field: FieldInfo

    @property
    def parameter(self) -> inspect.Parameter:
        kind = _kind(self.field.annotation)
        words = self.name.replace("_", "-")
        flags = [f"--{words}/--no-{words}"] if kind is bool else [f"--{words}"]
        option = typer.Option(*flags, help=self._help, show_default=False)
        required = len(self.path) == 1 and self.field.is_required()
        return inspect.Parameter(
            self.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if required else None,
            annotation=Annotated[kind if required else kind | None, option],
        )

    @property
    def _help(self) -> str:
        words = [self.field.description or ""]
        if get_origin(self.field.annotation) is Literal:
            words.append(", ".join(map(str, get_args(self.field.annotation))))
        if self.field.default not in (None, PydanticUndefined):
            words.append(f"[default: {self.field.default}]")
        return " ".join(words).strip()


def takes(
    spec: type[BaseModel],
    *,
    inside: Mapping[str, tuple[str, type[BaseModel]]] | None = None,
    called: Mapping[str, str] | None = None,
    without: Collection[str] = (),
) -> Callable[[Command], Command]:
    """Gives a command an option for each field of a spec, and what was given as its ``spec``.

    Args:
        spec: whose fields.
        inside: fields that are specs themselves, with what their options' names begin with.
        called: other names for options.
        without: fields that the command sees to itself.
    """
    options = list(_options(spec, (), "", inside or {}, called or {}, without))

    def give(command: Command) -> Command:
        @wraps(command)
        def with_options(**arguments: Any) -> Any:
            told: dict[str, Any] = {}
            for option in options:
                value = arguments.pop(option.name)
                if value is not None:
                    _put(told, option.path, value)
            return command(spec=told, **arguments)

        own = [p for p in inspect.signature(command).parameters.values() if p.name != "spec"]
        parameters = [*own, *(option.parameter for option in options)]
        keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
        with_options.__annotations__ = {p.name: p.annotation for p in keyword_only}
        setattr(with_options, "__signature__", inspect.Signature(keyword_only))  # noqa: B010
        return with_options

    return give


def given(**fields: object) -> dict[str, Any]:
    """What the person gave; the rest is left to the server, whose defaults rule."""
    return {name: value for name, value in fields.items() if value is not None}


def _options(
    spec: type[BaseModel],
    path: tuple[str, ...],
    prefix: str,
    inside: Mapping[str, tuple[str, type[BaseModel]]],
    called: Mapping[str, str],
    without: Collection[str],
) -> Iterator[Option]:
    for name, field in spec.model_fields.items():
        if name in inside:
            begin, inner = inside[name]
            yield from _options(inner, (*path, name), begin, {}, called, without)
        elif name not in without and field.annotation is not NoneType:
            option = prefix + name
            yield Option((*path, name), called.get(option, option), field)


def _put(told: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    *parents, name = path
    for parent in parents:
        told = told.setdefault(parent, {})
    told[name] = value


def _kind(annotation: Any) -> Any:
    """What the command line reads a field as."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(arguments[0])
    if origin is Literal:
        return str
    if origin in (Union, UnionType):
        kinds = [_kind(each) for each in arguments if each is not NoneType]
        return bool if bool in kinds else kinds[0]
    return GenericAlias(list, _kind(arguments[0])) if origin is list else annotation
