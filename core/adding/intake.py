"""From a path of the administrator's to a base's folder in the home, whole or not at all."""

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from core import bases
from core.adding import checkpoint, conversion, folder, lenders, strangers
from core.adding.family import REAL
from core.adding.found import Found
from core.bases import BaseModel
from core.config import Settings
from core.errors import Conflict, NotABase
from core.files.atomic import sync
from core.files.digest import sha256_of
from core.files.lock import LockFile
from core.files.space import require_room

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,39}")

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Addition:
    """``sha256`` is of the file, or of the folder's files; ``own_vae`` says whose VAE it draws
    with."""

    base: BaseModel
    sha256: str
    own_vae: bool
    found: Found
    tokenizers: Path


def require_name(name: str) -> None:
    """Raises NotABase where a base may not be called so."""
    if not _NAME.fullmatch(name):
        raise NotABase(
            f"'{name}' is no name for a base: up to 40 of a-z, 0-9, dot and dash, and the first is "
            "a letter or a digit."
        )
    if name in bases.CATALOGUE:
        raise NotABase(f"'{name}' is a base of the catalogue: it is not one to add or to remove.")


def examine(
    name: str, path: Path, settings: Settings, tell: Tell, *, velocity: bool, licence: str | None
) -> Addition:
    """What is to be added as ``name``: headers first, then the bytes for their hash.

    Args:
        velocity: it predicts that, whatever it says itself.
        licence: in place of what it says itself.

    Raises:
        NotABase: it is no base of the family, or tokenizers are not on this disk.
    """
    require_name(name)
    found = _found(path)
    if velocity:
        found = replace(found, scheduler={**found.scheduler, "prediction_type": "v_prediction"})
    tokenizers = found.tokenizers or lenders.tokenizers(found.family, settings)
    found, own_vae = _with_half_vae(found, settings, tell)
    tell(f"{name}: {_described(found)}. Reading it for its hash.")
    digest = _sha256(path, found.files)
    predicts = str(found.scheduler["prediction_type"])
    base = BaseModel(
        **vars(found.shape),
        id=name,
        licence=licence or found.licence or "not stated",
        source=None,
        prediction_type=predicts,
        place=_place(name, digest, predicts, own_vae),
    )
    return Addition(base, digest, own_vae, found, tokenizers)


@contextmanager
def converted(addition: Addition, settings: Settings, tell: Tell) -> Iterator[Callable[[], None]]:
    """The folder, aside; what is yielded puts it where it belongs. What was not put there is gone
    when the block ends, or at the next attempt where this process was killed.

    Raises:
        Conflict: another process adds the same, or the disk has no room.
    """
    target = bases.folder(addition.base, settings)
    aside = target.with_name(f".{addition.base.id}.part")
    with _alone(addition.base.id, settings):
        shutil.rmtree(aside, ignore_errors=True)
        if target.is_dir():  # put there, and then its row was not written
            yield lambda: None
            return
        for other in _of(addition.base.id, settings):  # of a row that is gone
            shutil.rmtree(other)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        require_room(target.parent, conversion.weigh(addition.found))
        try:
            conversion.write(addition.found, addition.tokenizers, aside, tell)
            yield lambda: _put(aside, target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def remove(name: str, settings: Settings) -> bool:
    """Takes the folders of that name off this disk; False where there was none."""
    with _alone(name, settings):
        gone = _of(name, settings)
        for path in gone:
            aside = path.with_name(f".{name}.part")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)  # first out of sight: what has the name is whole
            shutil.rmtree(aside, ignore_errors=True)
    return bool(gone)


def _found(path: Path) -> Found:
    if path.is_dir():
        return folder.examine(path)
    if not path.is_file():
        raise NotABase(f"There is no {path}.")
    strangers.refuse_formats(path)
    return checkpoint.examine(path)


def _with_half_vae(found: Found, settings: Settings, tell: Tell) -> tuple[Found, bool]:
    """With the VAE that works in half precision, where its own may not and this disk has one."""
    if found.vae_takes_halves:
        return found, True
    lent = lenders.half_vae(found.family, settings)
    if lent is None:
        tell(
            "It draws with its own VAE. SDXL's overflows in half precision and paints black; "
            "`stillroom models pull parts` brings one that does not, for bases added after it."
        )
        return found, True
    where, part = lent
    tell(f"It draws with the VAE of {where}, which works in half precision, not with its own.")
    config = {**found.configs["vae"], "force_upcast": False}
    parts, configs = {**found.parts, "vae": part}, {**found.configs, "vae": config}
    return replace(found, parts=parts, configs=configs), False


def _described(found: Found) -> str:
    size = conversion.weigh(found) / 1e9
    zero = ", zero terminal SNR" if found.scheduler.get("rescale_betas_zero_snr") else ""
    build = "" if found.family is REAL else f" of the size of {found.family.name}"
    predicts = found.scheduler["prediction_type"]
    return f"layout {found.shape.layout.id}{build}, predicts {predicts}{zero}, {size:.2f} GB"


def _sha256(path: Path, files: tuple[Path, ...]) -> str:
    """Of the file; of a folder, of the names and hashes of what was looked at."""
    if path.is_file():
        return sha256_of(path)
    lines = [f"{file.relative_to(path)} {sha256_of(file)}\n" for file in sorted(files)]
    return sha256("".join(lines).encode()).hexdigest()


def _place(name: str, digest: str, predicts: str, own_vae: bool) -> str:
    """Another folder for whatever would draw otherwise."""
    told = f"{digest} {predicts} {own_vae}"
    return f"{name}{bases.AT}{sha256(told.encode()).hexdigest()[:12]}"


@contextmanager
def _alone(name: str, settings: Settings) -> Iterator[None]:
    lock = LockFile.take(settings.run_path / f"adding-{name}.lock")
    if lock is None:
        raise Conflict(f"Another process is adding or removing '{name}': wait until it has ended.")
    try:
        yield
    finally:
        lock.release()


def _put(aside: Path, target: Path) -> None:
    aside.rename(target)
    sync(target.parent)


def _of(name: str, settings: Settings) -> list[Path]:
    return list(settings.added_path.glob(f"{name}{bases.AT}*"))
