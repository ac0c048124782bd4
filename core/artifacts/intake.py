"""A LoRA that somebody brings: examined, kept as it was sent, found again when it comes again."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from core import crash
from core.artifacts import deletions, service
from core.artifacts.service import StoredFile
from core.artifacts.store import Store
from core.config import GIB, Settings
from core.db.engine import Database
from core.db.models import Artifact, now
from core.errors import TooLarge
from core.files.digest import sha256_of_open
from core.files.names import shown
from core.ids import new_id
from core.loras.examination import Examined, examine
from core.owners import quotas

KIND = "lora"
_SUFFIX = ".safetensors"
_MAX_STEM = 200


@dataclass(frozen=True)
class Upload:
    """A file as sent. ``filename`` is text, whatever it looks like; ``name`` is the artifact's,
    the file's where there is none."""

    filename: str
    content: BinaryIO
    name: str | None = None


def receive(
    database: Database, store: Store, settings: Settings, *, owner: str, upload: Upload
) -> Artifact:
    """The artifact: the same bytes are the one that is there.

    Raises:
        TooLarge, TooMany, Unprocessable, LayoutMismatch: the file is not taken; says why.
    """
    filename = _filename(upload.filename)
    size = upload.content.seek(0, 2)
    _require_size(size, filename, settings)
    sha256 = sha256_of_open(upload.content)
    with database.read() as session:
        known = _brought_before(session, owner, sha256)
        if known:
            return known
        quotas.require_storage(session, owner, settings, size)
    examined = examine(upload.content, filename)
    stored = _place(filename, size, sha256)
    with deletions.unless_kept(database, store, stored.store_key):
        upload.content.seek(0)
        store.put_file(stored.store_key, upload.content)
        crash.point("inside an upload of a LoRA")
        with database.write() as session:
            quotas.hold(session, owner)  # two of the same bytes would both find nothing
            if known := _brought_before(session, owner, sha256):
                return known
            quotas.require_storage(session, owner, settings, size)
            deletions.keep(session, stored.store_key)
            return _record(session, owner, upload.name or filename, stored, examined)


def _filename(sent: str) -> str:
    """The last part of what was sent, with the ending that loaders look for."""
    name = PurePosixPath(shown(sent).replace("\\", "/")).name or KIND
    return f"{name.removesuffix(_SUFFIX)[-_MAX_STEM:]}{_SUFFIX}"


def _place(filename: str, size: int, sha256: str) -> StoredFile:
    """Under a key of its own, named by the artifact's id to be."""
    key = f"artifacts/{new_id('art')}/{KIND}{_SUFFIX}"
    return StoredFile(filename, size, sha256, key)


def _require_size(size: int, filename: str, settings: Settings) -> None:
    if size > settings.max_lora_bytes:
        raise TooLarge(
            f"{filename} has {size:,} bytes and {settings.max_lora_bytes / GIB:g} GiB are taken: "
            "save it in half precision, or with a smaller rank."
        )


def _brought_before(session: Session, owner: str, sha256: str) -> Artifact | None:
    """Not made by a job, which may be forgotten with all that it made, nor one whose time is up."""
    return session.scalar(
        select(Artifact)
        .where(
            Artifact.owner == owner,
            Artifact.kind == KIND,
            Artifact.sha256 == sha256,
            Artifact.job_id.is_(None),
            or_(Artifact.expires_at.is_(None), Artifact.expires_at > now()),
        )
        .order_by(Artifact.id)
        .limit(1)
    )


def _record(
    session: Session, owner: str, name: str, stored: StoredFile, examined: Examined
) -> Artifact:
    return service.record(
        session,
        artifact_id=stored.store_key.split("/")[1],
        owner=owner,
        job_id=None,
        kind=KIND,
        role=KIND,
        name=name,
        format=examined.format,
        files=[stored],
        layout=examined.layout,
        facts=examined.facts,
    )
