"""What one owner may have of the house at a time, where the administrator has set a limit."""

from collections.abc import Collection

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from core.config import GIB, Settings
from core.db.models import Artifact, Dataset, Image, Job, Key, is_running
from core.errors import TooMany

RETRY_SECONDS = 600
"""Room comes when somebody deletes something: nobody knows when."""


def require_storage(session: Session, owner: str, settings: Settings, more_bytes: int = 0) -> None:
    """Raises TooMany where the owner's pictures and artifacts leave no room for so many more."""
    if settings.max_stored_bytes is not None:
        require_within(settings.max_stored_bytes, stored_bytes(session, owner), more_bytes)


def require_within(limit: int, used: int, more_bytes: int) -> None:
    if used >= limit or used + more_bytes > limit:
        adding = f" and this adds {_gib(more_bytes)}" if more_bytes else ""
        raise TooMany(
            f"Your pictures and artifacts take {_gib(used)}{adding}; {_gib(limit)} is your limit. "
            "Delete what you no longer need, or ask the administrator for more.",
            code="too_many_bytes",
            retry_after_seconds=RETRY_SECONDS,
        )


def stored_bytes(session: Session, owner: str) -> int:
    """As their rows tell: of pictures as they are stored, which may be a million times what was
    sent. Checkpoints go by themselves, and what was imported lies elsewhere."""
    artifacts = select(func.sum(Artifact.bytes)).where(Artifact.owner == owner)
    pictures = select(func.sum(func.coalesce(Image.stored_bytes, Image.bytes))).join(
        Dataset, Dataset.id == Image.dataset_id
    )
    pictures = pictures.where(Dataset.owner == owner, Dataset.folder.is_(None))
    return int(session.scalar(artifacts) or 0) + int(session.scalar(pictures) or 0)


def owners_at_limit(max_running: int) -> Select[str]:
    """Those of whom no further job may begin. Few jobs run, however many there are."""
    running = select(Job.owner).where(is_running).group_by(Job.owner)
    return running.having(func.count() >= max_running)


def count_running(session: Session, owners: Collection[str]) -> dict[str, int]:
    running = select(Job.owner, func.count()).where(is_running, Job.owner.in_(owners))
    return dict(session.execute(running.group_by(Job.owner)).all())


def hold(session: Session, owner: str) -> None:
    """Waits until nobody else counts what this owner has, and counts alone until the transaction
    ends. An owner without a key is not held: nobody acts for them any more."""
    session.execute(_first_keys([owner]).with_for_update())


def hold_free(session: Session, owners: Collection[str]) -> set[str]:
    """The same of those whom nobody else holds; waits for none."""
    free = session.execute(_first_keys(owners).with_for_update(skip_locked=True))
    return {owner for _, owner in free}


def _first_keys(owners: Collection[str]) -> Select[str, str]:
    first = select(func.min(Key.id)).where(Key.owner.in_(owners)).group_by(Key.owner)
    return select(Key.id, Key.owner).where(Key.id.in_(first))


def _gib(count: int) -> str:
    return f"{count / GIB:.2f} GiB" if count >= GIB / 100 else f"{count:,} bytes"
