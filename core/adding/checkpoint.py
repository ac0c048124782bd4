"""A whole pipeline in one safetensors file of the original layout: what Illustrious, Pony,
Juggernaut and SSD-1B-A1111 are shipped as, and what ``core.diffusion.single_file`` writes.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from core import originals
from core.adding import shapes, strangers
from core.adding.family import FAMILIES, INDEX, SCHEDULER, WEIGHTS, Family
from core.adding.found import Found, Part, Piece, header_of, piece
from core.adding.shapes import Shape
from core.errors import NotABase
from core.files.safetensors_header import Entry, Header, shown
from core.layouts import LAYOUTS, Layout, UNetShape
from core.originals import JOINED, WRAPPER, Names

_PREFIXES = {
    "unet": originals.UNET_PREFIX,
    "vae": originals.VAE_PREFIX,
    "text_encoder": originals.TEXT_PREFIX,
    "text_encoder_2": originals.TEXT_2_PREFIX,
}
_TEXT = originals.TEXT_PREFIX.removesuffix("transformer.text_model.")
HARMLESS = (
    # of the sampler that the model was trained with: SDXL's betas, which we have
    *("denoiser.sigmas", "betas", "alphas_cumprod", "alphas_cumprod_prev", "lvlb_weights"),
    *("sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod"),
    *("sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod"),
    *("posterior_variance", "posterior_log_variance_clipped"),
    *("posterior_mean_coef1", "posterior_mean_coef2"),
    # 0, 1, 2 ... and what compares texts with pictures: no picture is drawn with them
    f"{originals.TEXT_PREFIX}embeddings.position_ids",
    f"{_TEXT}transformer.text_projection.weight",
    f"{_TEXT}logit_scale",
    f"{originals.TEXT_2_PREFIX}logit_scale",
    # what is said by being there
    *(originals.VELOCITY, originals.ZERO_SNR),
)
"""Keys that other programs leave in such files, and that change nothing."""
HARMLESS_PREFIXES = (
    "model_ema.",
    *(f"{originals.VAE_PREFIX}{name}." for name in ("model_ema", "loss")),
)
"""Averages, beside the weights that are drawn with; what a VAE was trained by."""

_TRANSFORMER = re.compile(r"\.transformer_blocks\.\d+\.norm1\.weight$")
_WIDTHS = ("input_blocks.0.0.weight", *(f"input_blocks.{at}.0.in_layers.2.weight" for at in (4, 7)))
_SAYS_WHAT = ("modelspec.prediction_type", "modelspec.predict_key")
"""The second is ComfyUI's name for it."""


def examine(path: Path) -> Found:
    """What the file holds.

    Raises:
        NotABase: it is something else, or of another family, or not whole; names what is at fault.
    """
    header = header_of(path)
    strangers.refuse(path.name, header.tensors)
    _require_parts(path.name, header.tensors)
    layout = _layout(path.name, header.tensors)
    widths, family = _family(path.name, header.tensors)
    configs: dict[str, dict[str, Any]] = {part: family.config(part) for part in WEIGHTS}
    configs["unet"] |= layout.unet_overrides
    keys = set(header.tensors)
    parts: dict[str, Part] = {}
    for part, config in configs.items():
        found = _Places(path, part, config, header.tensors)
        parts[part] = dict(found.pieces(layout))
        keys -= found.taken
    _require_nothing_else(path.name, keys)
    latent_factor = 2 ** (len(configs["vae"]["block_out_channels"]) - 1)
    return Found(
        family=family,
        shape=UNetShape(layout, widths, configs["unet"]["sample_size"] * latent_factor),
        parts=parts,
        configs=configs,
        scheduler=_scheduler(path.name, header, family),
        index=family.read(INDEX),
        tokenizers=None,
        vae_takes_halves=not configs["vae"]["force_upcast"],
        licence=header.metadata.get("modelspec.license"),
        files=(path,),
    )


def _require_parts(name: str, keys: Iterable[str]) -> None:
    for part, prefix in _PREFIXES.items():
        if not any(key.startswith(prefix) for key in keys):
            raise NotABase(
                f"{name} lacks the {part} (`{prefix}…`): a base is a whole pipeline. Save it "
                "whole, as ComfyUI does with its node for checkpoints, or bring a folder of "
                "diffusers'."
            )


def _layout(name: str, keys: Iterable[str]) -> Layout:
    prefix = originals.UNET_PREFIX
    named = {key for key in keys if key.startswith(prefix) and _TRANSFORMER.search(key)}
    for layout in LAYOUTS.values():
        norms = (originals.UNET.of(f"{block}.norm1.weight") for block in layout.blocks())
        if named == {prefix + norm for norm in norms}:
            return layout
    raise NotABase(
        f"{name} has {len(named)} transformer blocks in its UNet, laid out otherwise than in "
        f"{strangers.KNOWN}."
    )


def _family(name: str, tensors: Mapping[str, Entry]) -> tuple[tuple[int, int, int], Family]:
    entries = [tensors.get(originals.UNET_PREFIX + key) for key in _WIDTHS]
    widths = tuple(entry.shape[0] if entry and entry.shape else 0 for entry in entries)
    if widths not in FAMILIES:
        raise NotABase(
            f"{name} has a UNet of widths {widths}: {strangers.KNOWN} have 320, 640, 1280."
        )
    first, second, third = widths
    return (first, second, third), FAMILIES[widths]


class _Places:
    """Where a part's tensors are in the file. ``taken`` are the keys that they were found at."""

    def __init__(
        self, path: Path, part: str, config: Mapping[str, Any], tensors: Mapping[str, Entry]
    ) -> None:
        self.path, self.part, self.config, self.tensors = path, part, config, tensors
        self.taken: set[str] = set()

    def pieces(self, layout: Layout) -> Iterator[tuple[str, Piece]]:
        match self.part:
            case "unet":
                named = shapes.unet(self.config, layout)
                yield from self._by_name(named, originals.UNET)
            case "vae":
                levels = len(self.config["block_out_channels"])
                names = originals.vae(levels, self.config["layers_per_block"] + 1)
                yield from self._by_name(shapes.vae(self.config), names)
            case "text_encoder":
                names = originals.text(self.config["num_hidden_layers"])
                yield from self._by_name(shapes.text_encoder(self.config), names)
            case _:
                yield from self._second_text_encoder()

    def _by_name(self, wanted: Mapping[str, Shape], names: Names) -> Iterator[tuple[str, Piece]]:
        for key, shape in wanted.items():
            yield key, self._whole(names.of(key.removeprefix(WRAPPER)), shape)

    def _second_text_encoder(self) -> Iterator[tuple[str, Piece]]:
        names = originals.text_2(self.config["num_hidden_layers"])
        for key, shape in shapes.text_encoder(self.config).items():
            name = key.removeprefix(WRAPPER)
            layer, _, rest = name.partition(".self_attn.")
            module, _, kind = rest.rpartition(".")
            if f"self_attn.{module}" in JOINED:
                original = originals.joined(int(layer.rpartition(".")[2]), kind)
                yield key, self._third(original, shape, JOINED.index(f"self_attn.{module}"))
            elif name == "text_projection.weight":
                yield key, self._whole(originals.TEXT_2_PROJECTION, shape, transposed=True)
            elif name == "embeddings.position_embedding.weight":
                yield key, self._whole(originals.TEXT_2_POSITIONS, shape)
            else:
                yield key, self._whole(names.of(name), shape)

    def _whole(self, name: str, shape: Shape, *, transposed: bool = False) -> Piece:
        key, entry = self._entry(name)
        if self.part == "vae" and entry.shape == (*shape, 1, 1):  # a linear layer as a convolution
            entry = replace(entry, shape=shape)
        return piece(self.path, key, entry, shape, transposed=transposed)

    def _third(self, name: str, shape: Shape, which: int) -> Piece:
        """Of a matrix whose rows are three in a row."""
        key, entry = self._entry(name)
        whole = piece(self.path, key, entry, (3 * shape[0], *shape[1:]))
        size = whole.bytes // 3
        begin = whole.begin + which * size
        return replace(whole, shape=shape, begin=begin, end=begin + size)

    def _entry(self, name: str) -> tuple[str, Entry]:
        key = _PREFIXES[self.part] + name
        if key not in self.tensors:
            raise NotABase(f"{self.path.name} lacks `{key}`, which a model of this layout has.")
        self.taken.add(key)
        return key, self.tensors[key]


def _require_nothing_else(name: str, keys: Iterable[str]) -> None:
    strange = sorted(
        key for key in keys if key not in HARMLESS and not key.startswith(HARMLESS_PREFIXES)
    )
    if strange:
        more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
        raise NotABase(
            f"{name} holds `{shown(strange[0])}`{more}, of which nothing is known: it may be a "
            "model of another kind, and without them it would draw otherwise than it was made to."
        )


def _scheduler(name: str, header: Header, family: Family) -> dict[str, Any]:
    """The family's, with what the file says that its UNet predicts."""
    said = {header.metadata[key] for key in _SAYS_WHAT if key in header.metadata}
    if strange := said - {*originals.PREDICTIONS, *originals.PREDICTIONS.values()}:
        raise NotABase(
            f"{name} says that it predicts '{shown(strange.pop())}': bases predict epsilon or v."
        )
    velocity = originals.VELOCITY in header.tensors or bool(said - {"epsilon"})
    scheduler = family.read(SCHEDULER)
    if velocity:
        scheduler["prediction_type"] = "v_prediction"
    if originals.ZERO_SNR in header.tensors:
        # only from the last timestep on does the first step start at pure noise
        scheduler |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return scheduler
