"""What all bodies share: names, pages, flaws, and what is refused in any of them."""

import re
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, model_validator

from core.pictures.refusal import Flaw
from core.specs import Id

Row = TypeVar("Row")
MAX_KEYS = 200
"""Of one JSON object: several times what the longest spec has."""
NO_TEXT = re.compile("[\0\ud800-\udfff]")
NO_CONTROLS = r"^[^\x00-\x1f\x7f]*$"
Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, pattern=NO_CONTROLS, strip_whitespace=True),
]
Label = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[\w./-]+$")]
LABEL_FILTER = re.compile(r"[\w./-]{1,63}:[^\x00]*")
LabelValue = Annotated[str, StringConstraints(max_length=255, pattern=NO_CONTROLS)]


def storable(text: str) -> str:
    """Refuses what JSON can say and no database can keep."""
    if NO_TEXT.search(text):
        raise ValueError("it holds a zero byte or half a surrogate pair")
    return text


def few_keys(sent: Any) -> Any:
    """Before its fields are looked at: each one that is wrong would be explained."""
    if isinstance(sent, dict) and len(sent) > MAX_KEYS:
        raise ValueError(f"it has {len(sent)} fields where {MAX_KEYS} are the most")
    return sent


StorableId = Annotated[Id, AfterValidator(storable)]


class Sent(BaseModel):
    """A body. What we do not know is refused by name, never passed over."""

    model_config = ConfigDict(extra="forbid")
    _few_fields = model_validator(mode="before")(few_keys)


class Page(BaseModel, Generic[Row]):
    items: list[Row]
    next_cursor: str | None


class FlawRead(BaseModel):
    code: str
    detail: str

    @classmethod
    def of(cls, flaw: Flaw) -> "FlawRead":
        return cls(code=flaw.code, detail=flaw.detail)
