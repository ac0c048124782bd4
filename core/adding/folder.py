"""A pipeline folder of diffusers': safetensors alone, classes that are known, nothing executed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.adding import shapes, strangers
from core.adding.family import FAMILIES, INDEX, SCHEDULER, TOKENIZERS, WEIGHTS, Family
from core.adding.found import Found, Part, header_of, piece
from core.adding.shapes import Shape
from core.errors import NotABase
from core.files.safetensors_header import Entry, shown
from core.layouts import Layout, UNetShape, find_layout
from core.originals import PREDICTIONS, WRAPPER

TOKENIZER_FILES = (
    *("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json"),
)
_SCHEDULERS = frozenset(
    f"{name}Scheduler"
    for name in (
        *("EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "LMSDiscrete", "PNDM", "LCM"),
        *("DDIM", "DDPM", "DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep"),
        *("DEISMultistep", "KDPM2Discrete", "KDPM2AncestralDiscrete", "TCD"),
    )
)
"""Of one noise: they differ in how they step, and a job says with which it draws."""
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Of a VAE's attention in folders of diffusers before 0.15."""
_KEPT = {
    "unet": ("sample_size",),
    "vae": ("scaling_factor", "latents_mean", "latents_std", "force_upcast"),
}
"""Of a part's own configuration; all else is the family's, or the weights would not fit."""


def examine(folder: Path) -> Found:
    """What the folder holds.

    Raises:
        NotABase: it is something else, or of another family, or not whole; names what is at fault.
    """
    index = _read(folder, INDEX)
    kind = index.get("_class_name")
    if kind != "StableDiffusionXLPipeline":
        raise NotABase(
            f"{folder.name} is a {shown(str(kind))}: bases are StableDiffusionXLPipeline, "
            f"{strangers.KNOWN}."
        )
    weights = {part: weights_of(folder, part) for part in WEIGHTS}
    layout, widths, family = _build(weights["unet"])
    configs = {part: family.config(part) | _kept(folder, part) for part in WEIGHTS}
    configs["unet"] |= layout.unet_overrides
    for tokenizer in TOKENIZERS:
        require_tokenizer(folder / tokenizer)
    latent_factor = 2 ** (len(configs["vae"]["block_out_channels"]) - 1)
    return Found(
        family=family,
        shape=UNetShape(layout, widths, configs["unet"]["sample_size"] * latent_factor),
        parts={part: part_of(path, part, configs[part], layout) for part, path in weights.items()},
        configs=configs,
        scheduler=_scheduler(folder),
        index=family.read(INDEX) | _empty_prompt(index),
        tokenizers=folder,
        vae_takes_halves=not configs["vae"]["force_upcast"],
        licence=None,
        files=(
            *(folder / name for name in (INDEX, SCHEDULER)),
            *(folder / part / "config.json" for part in WEIGHTS),
            *weights.values(),
            *(path for name in TOKENIZERS for path in tokenizer_files(folder / name)),
        ),
    )


def weights_of(folder: Path, part: str) -> Path:
    """The part's one file, in half precision where there are several. Raises NotABase."""
    name = WEIGHTS[part]
    half = folder / part / name.replace(".safetensors", ".fp16.safetensors")
    for path in (half, folder / part / name):
        if path.is_file():
            return path
    if list((folder / part).glob("*.safetensors.index*.json")):
        raise NotABase(
            f"{folder.name}/{part} is in several files: save it in one, with "
            "`pipe.save_pretrained(folder, max_shard_size='20GB')`."
        )
    if list((folder / part).glob("*.bin")):
        raise NotABase(
            f"{folder.name}/{part} has pickles (.bin) alone, which may run any program as they are "
            "opened: bring the folder with .safetensors."
        )
    raise NotABase(f"{folder.name} lacks {part}/{name}.")


def part_of(path: Path, part: str, config: Mapping[str, Any], layout: Layout) -> Part:
    """The tensors of a part's file, all of them. Raises NotABase."""
    tensors = {_our_name(key, part): (key, entry) for key, entry in header_of(path).tensors.items()}
    pieces = {}
    for key, shape in _shapes(part, config, layout).items():
        if key not in tensors:
            raise NotABase(f"{path.parent.name}/{path.name} lacks `{key}`.")
        theirs, entry = tensors.pop(key)
        pieces[key] = piece(path, theirs, entry, shape)
    for key, _ in tensors.values():
        if not key.endswith("embeddings.position_ids"):
            raise NotABase(
                f"{path.parent.name}/{path.name} holds `{shown(key)}`, of which nothing is known."
            )
    return pieces


def require_tokenizer(folder: Path) -> None:
    """Raises NotABase."""
    names = {path.name for path in tokenizer_files(folder)}
    if not ({"vocab.json", "merges.txt"} <= names or "tokenizer.json" in names):
        raise NotABase(f"{folder.parent.name} lacks {folder.name}/vocab.json and merges.txt.")


def tokenizer_files(folder: Path) -> list[Path]:
    return [folder / name for name in TOKENIZER_FILES if (folder / name).is_file()]


def _build(unet: Path) -> tuple[Layout, tuple[int, int, int], Family]:
    """Of a UNet, told from its header."""
    tensors = header_of(unet).tensors
    strangers.require_four_channels(unet.parent.parent.name, tensors.get("conv_in.weight"))
    keys = ("conv_in", *(f"down_blocks.{level}.resnets.0.conv1" for level in (1, 2)))
    entries: list[Entry | None] = [tensors.get(f"{key}.weight") for key in keys]
    widths = tuple(entry.shape[0] if entry and entry.shape else 0 for entry in entries)
    layouts = find_layout(tensors)
    if len(layouts) != 1 or widths not in FAMILIES:
        raise NotABase(
            f"{unet.parent.parent.name} has a UNet of widths {widths} and other blocks than those "
            f"of {strangers.KNOWN}."
        )
    first, second, third = widths
    return layouts[0], (first, second, third), FAMILIES[widths]


def _shapes(part: str, config: Mapping[str, Any], layout: Layout) -> dict[str, Shape]:
    if part == "unet":
        return shapes.unet(config, layout)
    return shapes.vae(config) if part == "vae" else shapes.text_encoder(config)


def _our_name(key: str, part: str) -> str:
    if part == "vae" and ".attentions." in key:
        module, _, layer = key.rpartition(".attentions.0.")
        name, _, kind = layer.rpartition(".")
        return f"{module}.attentions.0.{_OLD_NAMES.get(name, name)}.{kind}"
    if part.startswith("text") and not key.startswith((WRAPPER, "text_projection")):
        return WRAPPER + key
    return key


def _kept(folder: Path, part: str) -> dict[str, Any]:
    config = _read(folder, f"{part}/config.json")
    side = config.get("sample_size")
    if part == "unet" and side is not None and not (type(side) is int and 8 <= side <= 512):
        raise NotABase(f"{folder.name}/unet/config.json has the sample_size {shown(str(side))}.")
    return {name: config[name] for name in _KEPT.get(part, ()) if config.get(name) is not None}


def _empty_prompt(index: Mapping[str, Any]) -> dict[str, Any]:
    name = "force_zeros_for_empty_prompt"
    return {name: bool(index[name])} if name in index else {}


def _scheduler(folder: Path) -> dict[str, Any]:
    scheduler = _read(folder, SCHEDULER)
    kind, predicts = scheduler.get("_class_name"), scheduler.get("prediction_type", "epsilon")
    if kind not in _SCHEDULERS or predicts not in PREDICTIONS:
        raise NotABase(
            f"{folder.name} has a {shown(str(kind))} that predicts {shown(str(predicts))}: bases "
            "are of DDPM's noise and predict epsilon or v_prediction."
        )
    return {**scheduler, "prediction_type": predicts}


def _read(folder: Path, path: str) -> dict[str, Any]:
    try:
        told = json.loads((folder / path).read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise NotABase(f"{folder.name} lacks {path}.") from None
    except (ValueError, RecursionError):
        raise NotABase(f"{path} of {folder.name} is no JSON.") from None
    if not isinstance(told, dict):
        raise NotABase(f"{path} of {folder.name} is no table.")
    return told
