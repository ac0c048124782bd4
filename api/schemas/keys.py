"""Keys."""

from datetime import datetime

from pydantic import BaseModel, Field

from api.schemas.common import Name, Sent
from core.db.models import Key
from core.owners.service import Scope


class KeyCreate(Sent):
    name: Name
    owner: Name | None = Field(None, description="Whose rows it sees. Default: yours.")
    scopes: list[Scope] = Field(["read", "write"], min_length=1, max_length=16)


class KeyRead(BaseModel):
    id: str
    owner: str
    name: str
    scopes: list[Scope]
    created_at: datetime

    @classmethod
    def of(cls, key: Key) -> "KeyRead":
        return cls.model_validate(key, from_attributes=True)


class KeyMade(KeyRead):
    key: str | None = Field(
        description="The key itself. It is never shown again, so it is null where the same "
        "request had made it before: delete that one and make another."
    )
