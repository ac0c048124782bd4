"""LoRAs for nano-ssd-1b and its like, written by hand in each dialect, and files that are odd.

Keys are spelt here once more, and nothing of ours writes or reads them: what both sides got wrong
would not show. No torch: tests of the service side use it too.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from core.layouts import NANO_WIDTHS, SSD_1B, Layout

Array = np.ndarray[Any, Any]
Pairs = dict[tuple[str, str], tuple[Array, Array]]
"""A and B by model and module; in text encoders the path below ``layers``, as in ``0.mlp.fc1``."""

CONTEXT = {32: 128, 320: 2048}
TEXT_WIDTHS = {"text_encoder": 48, "text_encoder_2": 80}
TEXT_LAYERS = 3
TEXT_LINEAR = (
    *(f"self_attn.{name}_proj" for name in ("q", "k", "v", "out")),
    *("mlp.fc1", "mlp.fc2"),
)
STABILITY = {
    "down_blocks.1.attentions.0": "input_blocks_4_1",
    "down_blocks.1.attentions.1": "input_blocks_5_1",
    "down_blocks.2.attentions.0": "input_blocks_7_1",
    "down_blocks.2.attentions.1": "input_blocks_8_1",
    "mid_block.attentions.0": "middle_block_1",
    "up_blocks.0.attentions.0": "output_blocks_0_1",
    "up_blocks.0.attentions.1": "output_blocks_1_1",
    "up_blocks.0.attentions.2": "output_blocks_2_1",
    "up_blocks.1.attentions.0": "output_blocks_3_1",
    "up_blocks.1.attentions.1": "output_blocks_4_1",
    "up_blocks.1.attentions.2": "output_blocks_5_1",
}
LEVELS = {
    "down_blocks.1": 1,
    "down_blocks.2": 2,
    "mid_block": 2,
    "up_blocks.0": 2,
    "up_blocks.1": 1,
}


def unet_pairs(
    layout: Layout = SSD_1B,
    *,
    modules: tuple[str, ...] | None = None,
    widths: tuple[int, int, int] = NANO_WIDTHS,
    rank: int = 4,
    seed: int = 0,
) -> Pairs:
    """Of all linear layers, or of ``modules``; neither half is zero."""
    generator = np.random.default_rng(seed)
    return {
        ("unet", module): _pair(generator, _unet_size(module, widths), rank)
        for module in modules or layout.linear_modules()
    }


def text_pairs(*, rank: int = 4, seed: int = 1) -> Pairs:
    """Of all linear layers of the nano pair's text encoders."""
    generator = np.random.default_rng(seed)
    return {
        (model, f"{layer}.{name}"): _pair(generator, _text_size(name, width), rank)
        for model, width in TEXT_WIDTHS.items()
        for layer in range(TEXT_LAYERS)
        for name in TEXT_LINEAR
    }


def _pair(generator: np.random.Generator, size: tuple[int, int], rank: int) -> tuple[Array, Array]:
    inner, outer = size
    a = generator.normal(0, 1 / rank, (rank, inner)).astype(np.float32)
    return a, generator.normal(0, 0.05, (outer, rank)).astype(np.float32)


def _unet_size(module: str, widths: tuple[int, int, int]) -> tuple[int, int]:
    width = widths[LEVELS[module.partition(".attentions")[0]]]
    if module.endswith(("attn2.to_k", "attn2.to_v")):
        return CONTEXT[widths[0]], width
    if module.endswith("ff.net.0.proj"):
        return width, 8 * width
    return (4 * width, width) if module.endswith("ff.net.2") else (width, width)


def _text_size(name: str, width: int) -> tuple[int, int]:
    return {"mlp.fc1": (width, 4 * width), "mlp.fc2": (4 * width, width)}.get(name, (width, width))


# Dialects: key of A, of B, and what the rest of a module's keys begin with


def peft(model: str, module: str) -> tuple[str, str, str]:
    path = f"{model}.{_dotted(model, module)}"
    return f"{path}.lora_A.weight", f"{path}.lora_B.weight", path


def diffusers(model: str, module: str) -> tuple[str, str, str]:
    path = f"{model}.{_dotted(model, module)}"
    kind = "lora" if model == "unet" else "lora_linear_layer"
    return f"{path}.{kind}.down.weight", f"{path}.{kind}.up.weight", path


def processors(model: str, module: str, prefix: str = "unet.") -> tuple[str, str, str]:
    """As diffusers named attention before it used peft."""
    attention, _, layer = module.removesuffix(".0").rpartition(".")
    path = f"{prefix}{attention}.processor.{layer}_lora"
    return f"{path}.down.weight", f"{path}.up.weight", path


def bare_processors(model: str, module: str) -> tuple[str, str, str]:
    return processors(model, module, prefix="")


def kohya(model: str, module: str) -> tuple[str, str, str]:
    name = f"{_KOHYA[model]}_{_dotted(model, module)}".replace(".", "_")
    return f"{name}.lora_down.weight", f"{name}.lora_up.weight", name


def kohya_sgm(model: str, module: str) -> tuple[str, str, str]:
    if model != "unet":
        return kohya(model, module)
    (start,) = (one for one in STABILITY if module.startswith(f"{one}."))
    name = f"lora_unet_{STABILITY[start]}_{module[len(start) + 1 :].replace('.', '_')}"
    return f"{name}.lora_down.weight", f"{name}.lora_up.weight", name


_KOHYA = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
Dialect = Callable[[str, str], tuple[str, str, str]]
WHOLE: dict[str, Dialect] = {
    "peft": peft, "diffusers": diffusers, "kohya": kohya, "kohya_sgm": kohya_sgm,
}  # fmt: skip
"""Those that can name every layer."""


def _dotted(model: str, module: str) -> str:
    return module if model == "unet" else f"text_model.encoder.layers.{module}"


def spelt(dialect: Dialect, pairs: Pairs, alpha: float | None = None) -> dict[str, Array]:
    """Tensors by key; with ``alpha`` one beside each pair."""
    tensors: dict[str, Array] = {}
    for (model, module), (a, b) in pairs.items():
        down, up, start = dialect(model, module)
        tensors |= {down: a, up: b}
        if alpha is not None:
            tensors[f"{start}.alpha"] = np.array(alpha, np.float32)
    return tensors


# Files


def file_of(
    tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None, dtype: str = "F32"
) -> bytes:
    """As safetensors lays it out."""
    return raw_file(
        {key: (dtype, list(array.shape), _bytes(array, dtype)) for key, array in tensors.items()},
        metadata,
    )


def raw_file(
    tensors: Mapping[str, tuple[str, list[int], bytes]], metadata: Mapping[str, str] | None = None
) -> bytes:
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    at = 0
    for key, (dtype, shape, data) in tensors.items():
        header[key] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    return with_header(json.dumps(header).encode(), b"".join(data for *_, data in tensors.values()))


def with_header(header: bytes, data: bytes, length: int | None = None) -> bytes:
    """``length``: what is claimed of the header."""
    claimed = len(header) if length is None else length
    return claimed.to_bytes(8, "little") + header + data


def _bytes(array: Array, dtype: str) -> bytes:
    if dtype == "BF16":
        return (np.ascontiguousarray(array, "<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return array.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()
