"""Datasets: pictures to learn from."""

from functools import partial
from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response

from api import pages
from api.deps import (
    CursorDep,
    DatabaseDep,
    Limit,
    ReaderDep,
    SettingsDep,
    StoreDep,
    ThumbnailSideDep,
    UploadsDep,
    WriterDep,
)
from api.downloads import Download, WantedDep, unchanged
from api.schemas import (
    DatasetCreate,
    DatasetRead,
    ImageRead,
    ItemRead,
    Page,
    UploadRead,
)
from core.datasets import intake, pictures
from core.datasets import service as datasets
from core.datasets.report import summaries

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
def create_dataset(body: DatasetCreate, caller: WriterDep, database: DatabaseDep) -> DatasetRead:
    with database.write() as session:
        dataset = datasets.create(session, caller.owner, name=body.name, kind=body.kind)
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


@router.post("/{dataset_id}/images", status_code=201, openapi_extra=_UPLOAD_BODY)
def add_images(
    dataset_id: str,
    caller: WriterDep,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
    uploads: UploadsDep,
) -> UploadRead:
    """Takes what can be taken; each file is answered for. Sending it all again is harmless."""
    items = intake.receive(
        database, store, settings, owner=caller.owner, dataset_id=dataset_id, uploads=uploads
    )
    with database.read() as session:
        dataset = datasets.get(session, caller.owner, dataset_id)
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
    """In the order they came."""
    with database.read() as session:
        dataset = datasets.get(session, caller.owner, dataset_id)
        images, next_cursor = datasets.list_images_page(
            session, dataset, cursor=cursor, limit=limit
        )
        return Page(
            items=[ImageRead.of(image) for image in images],
            next_cursor=pages.encoded(next_cursor),
        )


@router.get("/{dataset_id}/images/{image_id}", response_model=ImageRead, responses=_PIXELS)
def read_image(
    dataset_id: str,
    image_id: str,
    caller: ReaderDep,
    database: DatabaseDep,
    store: StoreDep,
    wanted: WantedDep,
    size: ThumbnailSideDep,
    accept: Annotated[str, Header(include_in_schema=False)] = "*/*",
) -> ImageRead | Response:
    """Pixels, re-encoded as PNG without metadata; with `size` a thumbnail."""
    with database.read() as session:
        dataset = datasets.get(session, caller.owner, dataset_id)
        image = datasets.get_image(session, dataset, image_id)
        if accept.split(",")[0].partition(";")[0].strip() == "application/json":
            return ImageRead.of(image)
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
    if size is None:
        length = store.size(image.store_key)
        return download(size=length, open=partial(store.open, image.store_key)).answer(wanted)
    small = pictures.thumbnail(partial(store.read, image.store_key), size)
    return download(size=len(small), open=lambda *part: iter([small[slice(*part)]])).answer(wanted)
