"""Fetches a base model from the hub at its pinned commit: bytes first, resumed, every hash checked.

What is kept is one self-contained pipeline folder: configurations, tokenizers and half-precision
safetensors, with the VAE that works in half precision in place of the base's own.
"""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from httpx2 import HTTPError

from core import bases
from core.bases import FP16_VAE, Source
from core.config import Settings
from core.errors import Conflict, Unavailable
from core.files.atomic import sync
from core.files.space import require_room

_COMPONENTS = ("text_encoder", "text_encoder_2", "unet")
_TOKENIZERS = ("tokenizer", "tokenizer_2")
_PLAIN_FOLDERS = ("scheduler", *_TOKENIZERS)
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    source: Source
    path: str
    bytes: int
    sha256: str | None
    git_sha1: str | None
    """Small files are kept by git's own hash of them."""
    target: str
    """Its path in the pipeline folder."""


def pull(base_id: str, settings: Settings, tell: Callable[[str], None]) -> Path:
    """Makes the folder of ``base_id`` whole and returns it. Interrupted, it goes on where it was.

    Raises:
        BaseUnknown: no such id.
        Conflict: the base is made from the package, or a downloaded file has the wrong hash.
        Unavailable: the hub cannot be reached.
    """
    base = bases.find(base_id)
    folder = bases.folder(base, settings)
    if base.source is None:
        raise Conflict(f"'{base_id}' comes with the package: there is nothing to pull.")
    if bases.is_here(base, settings):
        tell(f"{base_id} is here already: {folder}")
        return folder
    files = _wanted(base.source, settings.hub_url)
    _bring(base_id, files, folder, settings.hub_url, tell)
    return folder


def pull_parts(settings: Settings, tell: Callable[[str], None]) -> Path:
    """Tokenizers and the VAE that works in half precision: what a checkpoint of one file lacks.

    Raises:
        Conflict: a downloaded file has the wrong hash.
        Unavailable: the hub cannot be reached.
    """
    folder = settings.models_path / bases.PARTS
    if folder.is_dir():
        tell(f"{bases.PARTS} are here already: {folder}")
        return folder
    source = bases.find("ssd-1b").source
    assert source, "it is not the package's own"
    files = [
        file
        for file in _list(source, settings.hub_url)
        if PurePosixPath(file.path).parent.as_posix() in _TOKENIZERS
    ]
    _bring(bases.PARTS, files + _half_vae(settings.hub_url), folder, settings.hub_url, tell)
    return folder


def _bring(
    name: str,
    files: list[RemoteFile],
    folder: Path,
    hub_url: str,
    tell: Callable[[str], None],
) -> None:
    total_bytes = sum(file.bytes for file in files)
    aside = folder.with_name(f".{folder.name}.part")
    aside.mkdir(parents=True, exist_ok=True)
    have = sum(path.stat().st_size for path in aside.rglob("*") if path.is_file())
    require_room(aside.parent, total_bytes - have)
    tell(f"{name}: {len(files)} files, {total_bytes / 1e9:.2f} GB, into {folder}")
    for file in files:
        tell(f"{file.target} ({file.bytes / 1e6:,.1f} MB)")
        _fetch(file, aside, hub_url)
    _settle(files, aside, folder)
    tell(f"{name}: all of it is here.")


def _wanted(source: Source, hub_url: str) -> list[RemoteFile]:
    """What a pipeline needs and nothing else: of several precisions, half."""
    files = {file.path: file for file in _list(source, hub_url)}
    chosen = [
        file
        for path, file in files.items()
        if path == "model_index.json"
        or PurePosixPath(path).parent.name in _PLAIN_FOLDERS
        or (PurePosixPath(path).parent.name in _COMPONENTS and path.endswith("/config.json"))
    ]
    for component in _COMPONENTS:
        weights = [path for path in files if _is_weights(path, component)]
        half = [path for path in weights if path.endswith(".fp16.safetensors")]
        chosen += [files[path] for path in half or weights]
    return chosen + _half_vae(hub_url)


def _half_vae(hub_url: str) -> list[RemoteFile]:
    vae = {file.path: file for file in _list(FP16_VAE, hub_url, into="vae/")}
    return [vae["config.json"], vae["diffusion_pytorch_model.safetensors"]]


def _is_weights(path: str, component: str) -> bool:
    return PurePosixPath(path).parent.as_posix() == component and path.endswith(".safetensors")


def _list(source: Source, hub_url: str, into: str = "") -> list[RemoteFile]:
    from huggingface_hub import HfApi  # slow to import, and only this verb needs it

    try:
        info = HfApi(endpoint=hub_url or None).model_info(
            source.repository, revision=source.revision, files_metadata=True
        )
    except (HTTPError, OSError) as error:
        raise Unavailable(f"The hub does not list {source.repository}: {error}") from error
    return [
        RemoteFile(
            source=source,
            path=file.rfilename,
            bytes=file.size or 0,
            sha256=file.lfs.sha256 if file.lfs else None,
            git_sha1=file.blob_id,
            target=into + file.rfilename.replace(".fp16.safetensors", ".safetensors"),
        )
        for file in info.siblings or []
    ]


def _fetch(file: RemoteFile, aside: Path, hub_url: str) -> None:
    from huggingface_hub import hf_hub_download

    try:
        path = hf_hub_download(
            file.source.repository,
            file.path,
            revision=file.source.revision,
            local_dir=_download_folder(aside, file.source),
            endpoint=hub_url or None,
        )
    except (HTTPError, OSError) as error:
        raise Unavailable(f"{file.path} did not arrive: {error}. Run the same again.") from error
    if not _matches(Path(path), file):
        Path(path).unlink()
        raise Conflict(
            f"{file.path} of {file.source.repository} has not the hash that the hub states. It was "
            "deleted: run the same again.",
            code="hash_mismatch",
        )


def _download_folder(aside: Path, source: Source) -> Path:
    return aside / "downloads" / source.repository.replace("/", "--")


def _matches(path: Path, file: RemoteFile) -> bool:
    if file.sha256:
        return _digest(path, hashlib.sha256()) == file.sha256
    blob = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    return _digest(path, blob) == file.git_sha1


def _digest(path: Path, digest: "hashlib._Hash") -> str:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _settle(files: list[RemoteFile], aside: Path, folder: Path) -> None:
    """Every file under its own name, then the folder under its own: never half a base."""
    for file in files:
        target = aside / file.target
        target.parent.mkdir(parents=True, exist_ok=True)
        (_download_folder(aside, file.source) / file.path).rename(target)
    shutil.rmtree(aside / "downloads")
    aside.rename(folder)
    sync(folder.parent)
