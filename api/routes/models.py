"""Base models: what can be trained and run here, and why not where it cannot."""

from fastapi import APIRouter

from api.deps import DatabaseDep, ReaderDep
from api.schemas.common import Page
from api.schemas.devices import ModelRead
from core import bases, catalogue
from core.bases import BaseModel
from core.workers import service as workers

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("")
def list_models(_caller: ReaderDep, database: DatabaseDep) -> Page[ModelRead]:
    """The whole catalogue and what the administrator added, in one page."""
    with database.read() as session:
        held = workers.bases_on_workers(session)
        known = catalogue.everything(session)
    items = [_read(base, base.is_ours or base.id in held) for base in known]
    return Page(items=items, next_cursor=None)


def _read(base: BaseModel, available: bool) -> ModelRead:
    return ModelRead(
        id=base.id,
        layout=base.layout.id,
        parameters=base.parameters,
        native_size=base.native_size,
        prediction_type=base.prediction_type,
        licence=base.licence,
        available=available,
        why_not=None if available else bases.how_to_get(base),
    )
