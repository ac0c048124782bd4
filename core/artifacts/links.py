"""Links: an artifact's bytes for whoever has the address, for a while and without a key.

Nothing is written down. A link is signed with what the database keeps of the key that asked for it,
so every API process on that database knows it again, and it ends when that key is deleted.
"""

import hmac
import re
from datetime import UTC, datetime, timedelta

from sqlalchemy.orm import Session

from core.artifacts import service
from core.db.models import Artifact, Key, now
from core.errors import NotFound

MIN_SECONDS = 60
MAX_SECONDS = 7 * 24 * 3600
"""A link cannot be taken back but with its artifact or its key."""
_TOKEN = re.compile(r"(?P<until>\d{10})\.(?P<key_id>key_[0-9a-z]{26})\.(?P<signature>[0-9a-f]{64})")


def sign(
    session: Session, owner: str, key_id: str, artifact_id: str, *, seconds: int
) -> tuple[str, datetime]:
    """A token that opens the artifact, and until when: not longer than the artifact is kept.

    Raises:
        NotFound: the owner has no such artifact.
    """
    artifact = _kept(service.get(session, owner, artifact_id))
    key = session.get(Key, key_id)
    if key is None:
        raise _not_good()  # deleted since it was looked at
    until = (now() + timedelta(seconds=seconds)).replace(microsecond=0)
    if artifact.expires_at is not None:
        until = min(until, artifact.expires_at.replace(microsecond=0))
    stamp = int(until.timestamp())
    return f"{stamp}.{key_id}.{_signature(key, artifact_id, stamp)}", until


def opened(session: Session, artifact_id: str, token: str) -> Artifact:
    """The artifact that ``token`` opens.

    Raises:
        NotFound: it opens nothing, for whatever reason: a stranger learns none.
    """
    told = _TOKEN.fullmatch(token)
    key = session.get(Key, told["key_id"]) if told else None
    if told is None or key is None:
        raise _not_good()
    stamp = int(told["until"])
    signed = hmac.compare_digest(told["signature"], _signature(key, artifact_id, stamp))
    # nothing signed here is further off: who holds a key could sign for a century with it
    if not signed or not 0 < _seconds_to(stamp) <= MAX_SECONDS or "read" not in key.scopes:
        raise _not_good()
    try:
        return _kept(service.get(session, key.owner, artifact_id))
    except NotFound as error:
        raise _not_good() from error


def _signature(key: Key, artifact_id: str, stamp: int) -> str:
    """By the key's stored hash: of 256 random bits, and never shown to anybody."""
    message = f"stillroom link 1\n{artifact_id}\n{stamp}"
    return hmac.digest(bytes.fromhex(key.sha256), message.encode(), "sha256").hex()


def _seconds_to(stamp: int) -> float:
    return (datetime.fromtimestamp(stamp, UTC) - now()).total_seconds()


def _kept(artifact: Artifact) -> Artifact:
    if artifact.expires_at is not None and artifact.expires_at <= now():
        raise NotFound(f"There is no artifact {artifact.id!r} any more.")
    return artifact


def _not_good() -> NotFound:
    return NotFound(
        "This link opens nothing: it has expired, was cut short, or the file or the key behind it "
        "is gone. Ask whoever gave it to you for another."
    )
