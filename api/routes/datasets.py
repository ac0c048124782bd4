"""Datasets: pictures to learn from."""

from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from sqlalchemy.orm import Session

from api import pages
from api.deps import (
    CursorDep,
    DatabaseDep,
    DecodersDep,
    Limit,
    ReaderDep,
    SettingsDep,
    StoreDep,
    ThumbnailSideDep,
    UploadsDep,
    WriterDep,
)
from api.downloads import Download, WantedDep, unchanged
from api.keyed import KeyedDocumentDep, KeyedFilesDep, made
from api.schemas.common import Page
from api.schemas.datasets import (
    DatasetCreate,
    DatasetRead,
    ImageChange,
    ImageRead,
    ItemRead,
    UploadRead,
)
from core import purge
from core.datasets import inspection, intake, pixels, removal
from core.datasets import service as datasets
from core.datasets.report import summaries
from core.db.models import Dataset, Image
from core.owners.idempotency import once, seen

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

_UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "Pictures, `.txt` captions, `metadata.jsonl`, zips.",
                        }
                    },
                }
            }
        },
    }
}
_PIXELS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The pixels; with `Accept: application/json` the Image.",
        "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
    },
    206: {"description": "The part asked for with `Range`."},
    304: {"description": "`If-None-Match` names what is here."},
}


@router.post("", status_code=201)
def create_dataset(
    response: Response,
    body: DatasetCreate,
    caller: WriterDep,
    database: DatabaseDep,
    keyed: KeyedDocumentDep,
) -> DatasetRead:
    with database.write() as session:
        create = partial(datasets.create, session, caller.owner, name=body.name, kind=body.kind)
        dataset, replayed = once(
            session, keyed, create, partial(datasets.get, session, caller.owner)
        )
        response.headers.update(made(f"{router.prefix}/{dataset.id}", replayed))
        return DatasetRead.of(dataset, datasets.summary(session, dataset))


@router.get("")
def list_datasets(
    caller: ReaderDep, database: DatabaseDep, cursor: CursorDep, limit: Limit = pages.LIMIT
) -> Page[DatasetRead]:
    """Newest first."""
    with database.read() as session:
        found, next_cursor = datasets.list_page(session, caller.owner, cursor=cursor, limit=limit)
        numbers = summaries(session, found)
        return Page(
            items=[DatasetRead.of(dataset, numbers[dataset.id]) for dataset in found],
            next_cursor=pages.encoded(next_cursor),
        )


@router.get("/{dataset_id}")
def read_dataset(dataset_id: str, caller: ReaderDep, database: DatabaseDep) -> DatasetRead:
    with database.read() as session:
        dataset = datasets.get(session, caller.owner, dataset_id)
        return DatasetRead.of(dataset, datasets.summary(session, dataset))


@router.delete("/{dataset_id}", status_code=204)
def delete_dataset(
    dataset_id: str,
    caller: WriterDep,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
) -> None:
    """With its pictures, and all that was made of them on the way to a result: encoded pictures and
    captions, class pictures, checkpoints. Artifacts stay until they or their jobs are deleted."""
    with database.write() as session:
        removal.remove(session, caller.owner, dataset_id)
    purge.finish(database, store, settings)


@router.post("/{dataset_id}/images", status_code=201, openapi_extra=_UPLOAD_BODY)
def add_images(
    response: Response,
    dataset_id: str,
    caller: WriterDep,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
    decoders: DecodersDep,
    uploads: UploadsDep,
    keyed: KeyedFilesDep,
) -> UploadRead:
    """Takes what can be taken; each file is answered for. Sending it all again is harmless, under
    an `Idempotency-Key` or without: the same bytes are found to be there."""
    with database.read() as session:
        seen(session, keyed)  # under the key of another upload nothing is taken
    items = intake.receive(
        database,
        store,
        decoders,
        settings,
        owner=caller.owner,
        dataset_id=dataset_id,
        uploads=uploads,
    )
    with database.write() if keyed else database.read() as session:
        find = partial(datasets.get, session, caller.owner)
        dataset, replayed = once(session, keyed, partial(find, dataset_id), find)
        response.headers.update(made(f"{router.prefix}/{dataset.id}", replayed))
        return UploadRead(
            items=[ItemRead.of(item) for item in items],
            dataset=DatasetRead.of(dataset, datasets.summary(session, dataset)),
        )


@router.get("/{dataset_id}/images")
def list_images(
    dataset_id: str,
    caller: ReaderDep,
    database: DatabaseDep,
    cursor: CursorDep,
    limit: Limit = pages.LIMIT,
) -> Page[ImageRead]:
    """Newest first."""
    with database.read() as session:
        dataset = datasets.get(session, caller.owner, dataset_id)
        images, next_cursor = datasets.list_images_page(
            session, dataset, cursor=cursor, limit=limit
        )
        return Page(
            items=_read(session, dataset, images),
            next_cursor=pages.encoded(next_cursor),
        )


@router.get("/{dataset_id}/images/{image_id}", response_model=ImageRead, responses=_PIXELS)
def read_image(
    dataset_id: str,
    image_id: str,
    caller: ReaderDep,
    database: DatabaseDep,
    store: StoreDep,
    decoders: DecodersDep,
    wanted: WantedDep,
    size: ThumbnailSideDep,
    accept: Annotated[str, Header(include_in_schema=False)] = "*/*",
) -> ImageRead | Response:
    """Pixels, re-encoded as PNG without metadata; with `size` a thumbnail."""
    with database.read() as session:
        dataset = datasets.get(session, caller.owner, dataset_id)
        image = datasets.get_image(session, dataset, image_id)
        if accept.split(",")[0].partition(";")[0].strip() == "application/json":
            return _read(session, dataset, [image])[0]
    tag = image.sha256 if size is None else f"{image.sha256}-{size}"
    same = unchanged(tag, wanted)
    if same:
        return same
    download = partial(
        Download,
        filename=PurePosixPath(image.filename).with_suffix(".png").name,
        media_type="image/png",
        tag=tag,
        inline=True,
    )
    reference = pixels.reference_to(dataset, image)
    if size is None and reference:
        png = pixels.png(reference, decoders)
        return download(size=png.size_bytes, open=png.chunks, close=png.file.close).answer(wanted)
    if size is None:
        key = pixels.stored_at(image)
        return download(size=store.size(key), open=partial(store.open, key)).answer(wanted)
    small = pixels.thumbnail(dataset, image, store, decoders, size)
    return download(size=len(small), open=lambda *part: iter([small[slice(*part)]])).answer(wanted)


def _read(session: Session, dataset: Dataset, images: Sequence[Image]) -> list[ImageRead]:
    flaws = inspection.flaws_of(session, dataset, images)
    return [ImageRead.of(image, flaws[image.id]) for image in images]


@router.patch("/{dataset_id}/images/{image_id}")
def change_image(
    dataset_id: str, image_id: str, body: ImageChange, caller: WriterDep, database: DatabaseDep
) -> ImageRead:
    """Gives a picture another caption, as long as the dataset is not frozen."""
    with database.write() as session:
        dataset = datasets.get_changeable(session, caller.owner, dataset_id)
        image = datasets.get_image(session, dataset, image_id)
        if "caption" in body.model_fields_set:
            image.caption = body.caption
        return _read(session, dataset, [image])[0]


@router.delete("/{dataset_id}/images/{image_id}", status_code=204)
def delete_image(
    dataset_id: str,
    image_id: str,
    caller: WriterDep,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
) -> None:
    """As long as the dataset is not frozen and no drawing that waits begins with it."""
    with database.write() as session:
        removal.remove_image(session, caller.owner, dataset_id, image_id)
    purge.finish(database, store, settings)
