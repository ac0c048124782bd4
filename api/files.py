"""An artifact's files as answers."""

from functools import partial
from pathlib import PurePosixPath

from fastapi import Response

from api.bundle import Bundle
from api.downloads import Download, Wanted, unchanged
from core.artifacts import service as artifacts
from core.artifacts.service import StoredFile
from core.artifacts.store import Store
from core.db.models import Artifact

_MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".json": "application/json",
}


def answer(store: Store, artifact: Artifact, wanted: Wanted, *, may_show: bool = True) -> Response:
    """One file as it is; many as a zip, sorted and with fixed dates, so that its hash holds.

    ``may_show``: whether a browser may show pictures in place of saving them.
    """
    files = artifacts.files_of(artifact)
    same = unchanged(artifact.sha256, wanted)
    if same:
        return same
    if len(files) == 1:
        return download(store, artifact, files[0], may_show=may_show).answer(wanted)
    return _download_many(store, artifact, files).answer(wanted)


def download(
    store: Store, artifact: Artifact, file: StoredFile, *, may_show: bool = True
) -> Download:
    path = PurePosixPath(file.path)
    return Download(
        filename=path.name,
        media_type=_MEDIA_TYPES.get(path.suffix, "application/octet-stream"),
        tag=file.sha256,
        size=file.bytes,
        open=partial(store.open, file.store_key),
        inline=may_show and artifact.kind == "image",  # made here, pixel by pixel
    )


def _download_many(store: Store, artifact: Artifact, files: list[StoredFile]) -> Download:
    bundle = Bundle(store, files)
    return Download(
        filename=f"{artifact.name}.zip",
        media_type="application/zip",
        tag=artifact.sha256,
        size=bundle.size,
        open=bundle.read,
    )
