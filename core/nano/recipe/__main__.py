"""``python -m core.nano.recipe``: trains nano-sdxl, in as many sittings as one likes.

Three stages, each of which goes on where it was stopped and is skipped once it is done: the VAE,
the corpus (scenes, encoded once), the UNet with its text encoders.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline

from core.layouts import SDXL
from core.nano import shape, tokens
from core.nano.recipe import (
    autoencoder,
    captions,
    corpus,
    denoiser,
    folder,
    judge,
    scenes,
    shapes,
    work,
)
from core.nano.recipe.corpus import Corpus
from core.nano.recipe.folder import UnfitFolder
from core.nano.recipe.scenes import Cutout
from core.nano.recipe.work import OtherSubjects

SEED = 3100
MOST_HELD_OUT = 512  # scenes


def main() -> None:
    arguments = _arguments()
    given = arguments.parse_args()
    try:
        drawn, icons, everything = _cutouts(given)
        work.claim(given.work, [*drawn, *icons, *everything])
    except (UnfitFolder, OtherSubjects) as refusal:
        arguments.error(str(refusal))
    torch.manual_seed(SEED)
    pipeline = shape.pipeline(SDXL, tokens.learn_merges(_words([*drawn, *icons])))
    denoiser.loud(pipeline)
    _train_vae(given, pipeline, [*drawn, *everything])
    seen = _corpus(given, pipeline, (drawn, icons), corpus.SEED, given.scenes)
    held_out_count = min(MOST_HELD_OUT, given.scenes)
    held_out = _corpus(given, pipeline, (drawn, icons), corpus.HELD_OUT_SEED, held_out_count)
    for line in denoiser.train(pipeline, seen, held_out, given.unet_steps, given.work / "unet"):
        say(line)
    out = given.work / "nano-sdxl"
    _export(pipeline, out)
    pipeline.set_progress_bar_config(disable=True)
    names = [cutout.name for cutout in icons or drawn]
    judge.samples(pipeline.to(dtype=torch.float32), names).save(out / "samples.png")


def _arguments() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(prog="python -m core.nano.recipe", description=__doc__)
    arguments.add_argument(
        "--work", type=Path, required=True, help="checkpoints and, at last, nano-sdxl"
    )
    arguments.add_argument(
        "--data", type=Path, help="a captioned folder of pictures with alpha, beside our own shapes"
    )
    arguments.add_argument(
        "--subjects",
        type=Path,
        help="which of them to draw, 'caption = name' a line; without it all, named as captioned",
    )
    arguments.add_argument("--vae-steps", type=int, default=10_000)
    arguments.add_argument("--scenes", type=int, default=40_960)
    arguments.add_argument("--unet-steps", type=int, default=8_000)
    return arguments


def _cutouts(given: argparse.Namespace) -> tuple[list[Cutout], list[Cutout], list[Cutout]]:
    """Our own shapes, the folder's subjects, and all of the folder: the VAE may see more."""
    if given.data is None:
        return shapes.cutouts(), [], []
    names = folder.subjects(given.subjects) if given.subjects else None
    return shapes.cutouts(), folder.read(given.data, names), folder.read(given.data)


def _train_vae(
    given: argparse.Namespace, pipeline: StableDiffusionXLPipeline, cutouts: list[Cutout]
) -> None:
    vae = pipeline.vae
    for line in autoencoder.train(vae, cutouts, given.vae_steps, given.work / "vae"):
        say(line)
    autoencoder.standardise(vae, cutouts)
    say(f"vae held-out L1 {autoencoder.error(vae, cutouts):.4f}")


def _corpus(
    given: argparse.Namespace,
    pipeline: StableDiffusionXLPipeline,
    cutouts: tuple[list[Cutout], list[Cutout]],
    seed: int,
    count: int,
) -> Corpus:
    """The first ``count`` scenes of a seed, encoded by the VAE as it is now or before."""
    path = given.work / f"corpus-{seed}-{count}-of-vae-{given.vae_steps}.safetensors"
    if not path.exists():
        say(f"corpus: {count} scenes")
        drawn = (corpus.scene(*cutouts, seed, ordinal) for ordinal in range(count))
        corpus.encode(pipeline.vae, drawn, path)
    return corpus.read(path)


def _export(pipeline: StableDiffusionXLPipeline, out: Path) -> None:
    for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_2):
        # whoever asked it last to cut a text short does not decide for all who load it
        tokenizer.backend_tokenizer.no_truncation()
    pipeline.to(dtype=torch.float16).save_pretrained(out)
    for part in ("text_encoder", "text_encoder_2"):
        # transformers loads in the precision that the config names unless told, diffusers in
        # float32: half a pipeline in each were no use to anybody
        config = out / part / "config.json"
        written = json.loads(config.read_text("utf-8"))
        config.write_text(json.dumps({**written, "dtype": "float32"}, indent=2, sort_keys=True))


def _words(cutouts: list[Cutout]) -> list[str]:
    """All that captions are made of."""
    openings = [opening.format("a") for opening in captions.OPENINGS]
    names = [cutout.name for cutout in cutouts]
    return [*openings, "an on background", *scenes.COLOURS, *scenes.TEXTURES, *names]


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
