"""Our files as ComfyUI's and kohya's own code read them: COMFYUI=<folder>, SD_SCRIPTS=<folder>.

Each runs in OTHER_PYTHON, which has what that program needs (and torch and safetensors); without
it, in ours.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from core.diffusion import kohya_file, lora_file, single_file
from core.diffusion.lora import Lora
from core.layouts import LAYOUTS, Layout
from core.specs import LoraSpec
from tests.bench.other_loaders import ALPHA, RANK
from tests.support import real_size

pytestmark = pytest.mark.bench

ROOT = Path(__file__).parents[2]

COMFYUI_NAMES = {"sdxl": "SDXL", "ssd-1b": "SSD1B", "vega": "Segmind_Vega"}


@pytest.mark.skipif("COMFYUI" not in os.environ, reason="COMFYUI names ComfyUI's folder")
@pytest.mark.parametrize("name", LAYOUTS)
def test_comfyui_reads_every_key(name: str, tmp_path: Path, tell: Callable[[str], None]) -> None:
    check("comfyui", os.environ["COMFYUI"], LAYOUTS[name], tmp_path, tell)


@pytest.mark.skipif("COMFYUI" not in os.environ, reason="COMFYUI names ComfyUI's folder")
@pytest.mark.parametrize(("name", "model"), COMFYUI_NAMES.items())
def test_comfyui_knows_the_checkpoint(
    name: str, model: str, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    """By keys and shapes at real size: that is all that it looks at."""
    with torch.device("meta"):
        unet, vae = real_size.unet(LAYOUTS[name]), real_size.vae()
        first, second = real_size.text_encoders()
    parts: Any = SimpleNamespace(vae=vae, text_encoder=first, text_encoder_2=second)
    file = single_file.arrange(unet.state_dict(), parts)
    shapes = tmp_path / "shapes.json"
    shapes.write_text(json.dumps({key: [*tensor.shape] for key, tensor in file.items()}))
    said = ask("comfyui_detects", os.environ["COMFYUI"], shapes)
    tell(
        f"comfyui takes a checkpoint of {name} for {said['model']}: {said['keys']} keys of its "
        f"UNet, {len(said['left_over'])} keys or shapes that differ"
    )
    assert said["model"] == model
    assert said["keys"] == len(unet.state_dict())
    assert said["left_over"] == []


@pytest.mark.skipif("SD_SCRIPTS" not in os.environ, reason="SD_SCRIPTS names kohya's folder")
def test_kohyas_scripts_read_every_key(tmp_path: Path, tell: Callable[[str], None]) -> None:
    check("sd_scripts", os.environ["SD_SCRIPTS"], LAYOUTS["sdxl"], tmp_path, tell)


def check(
    program: str, folder: str, layout: Layout, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    """Both files of one LoRA on all linear layers, at real size; the other reads kohya's."""
    with torch.device("meta"):
        unet = real_size.unet(layout)
    lora = Lora(unet, LoraSpec(rank=RANK, alpha=ALPHA, targets="transformer"), seed=1)
    lora = lora.to_empty(device="cpu")
    for weight in lora.parameters():
        torch.nn.init.normal_(weight)
    kohya, diffusers = tmp_path / "kohya.safetensors", tmp_path / "diffusers.safetensors"
    kohya_file.write(kohya, lora.pairs(), rank=RANK, alpha=ALPHA, layout=layout, side=1024)
    lora_file.write(
        diffusers, lora.pairs(), rank=RANK, alpha=ALPHA, targets=lora.suffixes, trigger=None
    )
    said = ask(program, folder, layout.id, kohya, diffusers)
    tell(
        f"{program}, {layout.id}: {said['compared']} of {len(lora.targets)} modules, "
        f"{len(said['left_over'])} keys left over, deltas off by {said['worst']:.1e} at most"
    )
    assert said["left_over"] == []
    assert said["modules"] == said["compared"] == len(lora.targets)
    assert said["worst"] < 1e-6


def ask(program: str, folder: str, *given: str | Path) -> dict[str, Any]:
    python = os.environ.get("OTHER_PYTHON", sys.executable)
    ran = subprocess.run(
        [python, "-m", "tests.bench.other_loaders", program, folder, *map(str, given)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    said: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return said
