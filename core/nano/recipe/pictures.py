"""``python -m core.nano.recipe.pictures OUT``: scenes as pictures with captions, to upload.

nano-ssd-1b was distilled on such a folder; its README says on which.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from core.nano.recipe import captions, corpus, folder, shapes
from core.nano.recipe.folder import UnfitFolder
from core.nano.recipe.scenes import Cutout, Scene

SEED = 9101
CAPTION_STREAM = 7
"""Of a scene's random numbers: another than its picture is drawn with."""


def main() -> None:
    arguments = argparse.ArgumentParser(
        prog="python -m core.nano.recipe.pictures", description=__doc__
    )
    arguments.add_argument("out", type=Path, help="a folder that is not there yet")
    arguments.add_argument("--count", type=int, default=8000)
    arguments.add_argument("--seed", type=int, default=SEED)
    arguments.add_argument("--data", type=Path, help="as for `python -m core.nano.recipe`")
    arguments.add_argument("--subjects", type=Path)
    given = arguments.parse_args()
    try:
        names = folder.subjects(given.subjects) if given.subjects else None
        icons = folder.read(given.data, names) if given.data else []
        given.out.mkdir(parents=True)
    except (UnfitFolder, FileExistsError) as refusal:
        arguments.error(str(refusal))
    write(given.out, scenes_of(shapes.cutouts(), icons, given.seed, given.count), given.seed)
    sys.stdout.write(f"{given.count} pictures in {given.out}\n")


def scenes_of(drawn: list[Cutout], icons: list[Cutout], seed: int, count: int) -> Iterator[Scene]:
    return (corpus.scene(drawn, icons, seed, ordinal) for ordinal in range(count))


def write(out: Path, scenes: Iterator[Scene], seed: int) -> None:
    """PNG files and the ``metadata.jsonl`` with their captions."""
    rows: list[dict[str, str]] = []
    for ordinal, scene in enumerate(scenes):
        name = f"{ordinal:05}.png"
        scene.picture.save(out / name)
        random = np.random.default_rng((seed, ordinal, CAPTION_STREAM))
        rows.append({"file_name": name, "text": captions.caption(scene.content, random)})
    (out / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")


if __name__ == "__main__":
    main()
