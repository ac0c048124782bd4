"""The server's state, and its refusals."""

from typing import Literal

from pydantic import BaseModel


class HealthRead(BaseModel):
    status: Literal["ok"]


class ReadyRead(BaseModel):
    status: Literal["ready"]
    workers: int


class ProblemRead(BaseModel):
    """RFC 9457. `code` is stable; `detail` is a sentence for a person."""

    class ErrorRead(BaseModel):
        pointer: str
        code: str
        detail: str

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[ErrorRead] | None = None
    allowed_actions: list[str] | None = None
    retry_after: int | None = None
