"""Base models as a server knows them: those of the package's catalogue, and those that its
administrator added.
"""

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from core import bases
from core.adding import intake
from core.adding.intake import Addition
from core.bases import BaseModel
from core.config import Settings
from core.db.engine import Database
from core.db.models import AddedBase, Job, Worker
from core.errors import BaseUnknown, Conflict, NotFound
from core.layouts import LAYOUTS
from core.workers.host import identity


def find(session: Session, base_id: str) -> BaseModel:
    """Raises BaseUnknown."""
    if base_id in bases.CATALOGUE:
        return bases.CATALOGUE[base_id]
    row = session.get(AddedBase, base_id)
    if row is None:
        raise bases.unknown(base_id, [base.id for base in everything(session)])
    return _model(row)


def everything(session: Session) -> list[BaseModel]:
    """The catalogue first, then what was added, by name."""
    rows = session.scalars(select(AddedBase).order_by(AddedBase.id))
    return [*bases.CATALOGUE.values(), *(_model(row) for row in rows)]


def hold(session: Session, base_id: str) -> None:
    """Keeps an added base until this transaction ends: whoever removes it finds the job that is
    being made. Raises BaseUnknown when it is gone already."""
    row = select(AddedBase.id).where(AddedBase.id == base_id)
    if session.scalar(row.with_for_update(read=True, key_share=True)) is None:
        raise BaseUnknown(f"The base model '{base_id}' was just removed.")


def add(
    name: str,
    path: Path,
    settings: Settings,
    tell: Callable[[str], None],
    *,
    velocity: bool = False,
    licence: str | None = None,
) -> BaseModel:
    """A base of this home, from a file or folder anywhere on its disk; its row if there is none.

    Workers that run already tell of it with their next beat.

    Raises:
        NotABase: it is none of the family; names what is at fault.
        Conflict: the name is that of other weights, or the disk has no room.
    """
    addition = intake.examine(name, path, settings, tell, velocity=velocity, licence=licence)
    database = Database.of(settings)
    try:
        with database.read() as session:
            _require_same(session, addition, settings)
        with intake.converted(addition, settings, tell) as put, database.write() as session:
            if not _require_same(session, addition, settings):
                session.add(_row(addition))
                session.flush()
            put()  # last: what is written here alone can be taken back
    finally:
        database.dispose()
    return addition.base


def remove(name: str, settings: Settings) -> list[str]:
    """Takes row and folder away. Returns the hosts whose disks hold it still.

    Raises:
        NotFound: neither is there.
        Conflict: a job that has not ended needs it; names it.
    """
    intake.require_name(name)
    database = Database.of(settings)
    try:
        with database.write() as session:
            known = _forget(session, name)
            others = _holders(session, name, settings)
    finally:
        database.dispose()
    if not intake.remove(name, settings) and not known:
        raise NotFound(f"No base model of the name '{name}' was added here.")
    return others


def _model(row: AddedBase) -> BaseModel:
    first, second, third = row.widths
    return BaseModel(
        LAYOUTS[row.layout],
        (first, second, third),
        row.native_size,
        row.id,
        row.licence,
        source=None,
        prediction_type=row.prediction_type,
        place=row.place,
    )


def _row(addition: Addition) -> AddedBase:
    base = addition.base
    return AddedBase(
        id=base.id,
        place=base.place,
        layout=base.layout.id,
        widths=list(base.widths),
        native_size=base.native_size,
        prediction_type=base.prediction_type,
        own_vae=addition.own_vae,
        licence=base.licence[:255],
        sha256=addition.sha256,
    )


def _require_same(session: Session, addition: Addition, settings: Settings) -> bool:
    """Whether the name is taken already, by what is to be added. Raises Conflict when by another:
    a job would draw otherwise from host to host."""
    base = addition.base
    row = session.get(AddedBase, base.id)
    if row is None:
        if others := _holders(session, base.id, settings):
            raise Conflict(
                f"The name '{base.id}' is free, but the disk of {', '.join(others)} holds a base "
                f"of that name: run `stillroom models remove {base.id}` there."
            )
        return False
    if row.sha256 != addition.sha256:
        raise Conflict(
            f"'{base.id}' was added from other bytes (SHA-256 {row.sha256}, and here "
            f"{addition.sha256}): bring the same file or folder, or choose another name."
        )
    if row.prediction_type != base.prediction_type:
        raise Conflict(
            f"'{base.id}' was added as one that predicts {row.prediction_type}, and this would "
            f"predict {base.prediction_type}: say `--v-prediction` on every host or on none."
        )
    if row.own_vae != addition.own_vae:
        theirs = "its own VAE" if row.own_vae else "the VAE that works in half precision"
        raise Conflict(
            f"'{base.id}' was added with {theirs}, and here it would be the other: have "
            "`stillroom models pull parts` run on every host or on none."
        )
    return True


def _forget(session: Session, name: str) -> bool:
    """False where there is no row. Raises Conflict."""
    row = session.get(AddedBase, name, with_for_update=True)
    if row is None:
        return False
    needs = or_(Job.base == name, Job.also_base == name)
    needed = session.scalar(select(Job.id).where(needs, Job.finished_at.is_(None)).limit(1))
    if needed:
        raise Conflict(
            f"'{needed}' has not ended and needs '{name}': cancel it, or wait until it has ended."
        )
    session.execute(delete(AddedBase).where(AddedBase.id == name))
    return True


def _holders(session: Session, name: str, settings: Settings) -> list[str]:
    """Other hosts whose workers tell of a base of that name."""
    here = identity(settings.run_path)
    told = session.execute(select(Worker.host, Worker.bases).order_by(Worker.host)).all()
    hosts = [host for host, held in told if name in held and host != here]
    return sorted({host.partition("/")[0] for host in hosts})
