"""Options that mirror a spec: help and default come from the spec, absent stays absent."""

from typing import Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined


def mirror(spec: type[BaseModel], field: str, *names: str) -> Any:
    """The option of one field; ``names`` where it is not called as the field is."""
    about = spec.model_fields[field]
    words = [about.description or ""]
    if get_origin(about.annotation) is Literal:
        words.append(", ".join(map(str, get_args(about.annotation))))
    if about.default not in (None, PydanticUndefined):
        words.append(f"[default: {about.default}]")
    return typer.Option(*names, help=" ".join(words).strip(), show_default=False)


def given(**fields: object) -> dict[str, Any]:
    """What the person gave; the rest is left to the server, whose defaults rule."""
    return {name: value for name, value in fields.items() if value is not None}
