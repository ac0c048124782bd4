"""The two sizes in which SDXL's family is built, each with its parts' configurations."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import bases
from core.layouts import NANO_WIDTHS, REAL_WIDTHS

WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
    "text_encoder_2": "model.safetensors",
}
"""The parts that have weights, and the files' names in their folders."""
TOKENIZERS = ("tokenizer", "tokenizer_2")
SCHEDULER = "scheduler/scheduler_config.json"
INDEX = "model_index.json"


@dataclass(frozen=True)
class Family:
    """``folder`` is that of a pipeline, with or without weights."""

    name: str
    folder: Path

    def config(self, part: str) -> dict[str, Any]:
        return self.read(f"{part}/config.json")

    def read(self, path: str) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.folder / path).read_text("utf-8"))
        return told


REAL = Family("SDXL", Path(__file__).parent / "configs")
NANO = Family("the nano pair", bases.NANO_SDXL)
FAMILIES: Mapping[tuple[int, ...], Family] = {REAL_WIDTHS: REAL, NANO_WIDTHS: NANO}
"""By the UNet's widths."""
