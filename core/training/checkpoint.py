"""Where a run stands, as a folder: tensors, facts, and a manifest that says what whole means.

Written aside and renamed, so a folder that has the name is whole; hashes tell of what happened to
it since. Never a pickle.
"""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from core import crash
from core.files.atomic import sync
from core.files.digest import sha256_of

TENSORS, FACTS, MANIFEST = "state.safetensors", "facts.json", "manifest.json"


class Damaged(Exception):
    """The message says which file is missing or not what was written."""


def write(folder: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """The folder whole or not at all; one of that name is replaced."""
    aside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, aside / TENSORS)
    crash.point("checkpoint: tensors")
    (aside / FACTS).write_text(json.dumps(facts))
    crash.point("checkpoint: facts")
    hashes = {name: sha256_of(aside / name) for name in (TENSORS, FACTS)}
    (aside / MANIFEST).write_text(json.dumps(hashes))
    crash.point("checkpoint: manifest")
    for path in (*aside.iterdir(), aside):
        sync(path)
    crash.point("checkpoint: synced")
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    crash.point("checkpoint: renamed")
    sync(folder.parent)


def read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What was written, on the CPU.

    Raises:
        Damaged: a file is missing, or its bytes are not those of the manifest.
    """
    try:
        hashes = json.loads((folder / MANIFEST).read_text())
        for name in (TENSORS, FACTS):
            if sha256_of(folder / name) != hashes[name]:
                raise Damaged(f"{name} of checkpoint {folder.name} is not what was written")
        return load_file(folder / TENSORS), json.loads((folder / FACTS).read_text())
    except (OSError, ValueError, KeyError) as error:
        raise Damaged(f"checkpoint {folder.name} cannot be read: {error}") from error


def prune(parent: Path, kept: int) -> None:
    """Removes all but the newest of the checkpoints in a folder, by their names."""
    folders = sorted(path for path in parent.iterdir() if not path.name.startswith("."))
    for folder in folders[:-kept]:
        aside = folder.with_name(f".{folder.name}.gone")
        with suppress(FileNotFoundError):  # whoever stores them has taken it away
            folder.rename(aside)
            shutil.rmtree(aside)
