"""Another program's own code reads what we make; what it makes of that, as one line of JSON.

``python -m tests.bench.other_loaders comfyui|sd_scripts FOLDER LAYOUT KOHYA DIFFUSERS``: of a LoRA.
The diffusers file, of the same LoRA, says what each module's weights must change by.

``python -m tests.bench.other_loaders comfyui_detects FOLDER SHAPES``: of a checkpoint, of which a
JSON file tells the shapes by key. ComfyUI chooses its model by them.

Runs in whichever Python has what that program needs, so it imports nothing of ours but the layouts.
"""

import inspect
import io
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from core.layouts import LAYOUTS, Layout

RANK, ALPHA = 4, 10.0
"""Of the file: unlike each other, so that an alpha that is lost shows."""

Change = tuple[Tensor, Tensor, float]
"""Up, down and scale: what a LoRA adds to a weight is their product."""
Changes = dict[str, Change]
"""By the module's name in the other program."""


def main() -> None:
    program, folder, *given = sys.argv[1:]
    sys.path.insert(0, folder)
    said = detected(*given) if program == "comfyui_detects" else loaded(program, *given)
    sys.stdout.write(f"{json.dumps(said)}\n")


def loaded(program: str, layout: str, kohya: str, diffusers: str) -> dict[str, Any]:
    left_over: list[str] = []
    read = comfyui if program == "comfyui" else sd_scripts
    with redirect_stdout(io.StringIO()) as printed:  # where older versions complain
        names, changes = read(LAYOUTS[layout], load_file(kohya), left_over)
    left_over += [line for line in printed.getvalue().splitlines() if "not loaded" in line]
    worst, compared = 0.0, 0
    for module, expected in ours(Path(diffusers)):
        up_OR, down_RI, scale = changes[names[module]]
        compared += 1
        off = (up_OR @ down_RI) * scale - expected
        worst = max(worst, (off.norm() / expected.norm()).item())
    return {
        "left_over": left_over,
        "modules": len(changes),
        "compared": compared,
        "worst": worst,
    }


def detected(file: str) -> dict[str, Any]:
    """The model's name, and the keys that only we or only its UNet has, or in another shape."""
    start_comfyui()
    import comfy.model_detection
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    shapes = json.loads(Path(file).read_text())
    tensors = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    prefix = "model.diffusion_model."
    detect = comfy.model_detection.model_config_from_unet
    older = "dtype" in inspect.signature(detect).parameters
    config = detect(tensors, prefix, *((torch.float16,) if older else ()))
    operations = comfy.ops.disable_weight_init
    unet = UNetModel(**config.unet_config, device="meta", operations=operations)
    theirs = {(prefix + key, tuple(part.shape)) for key, part in unet.state_dict().items()}
    ours = {(key, tuple(shape)) for key, shape in shapes.items() if key.startswith(prefix)}
    return {"model": type(config).__name__, "keys": len(theirs), "left_over": sorted(ours ^ theirs)}


def ours(path: Path) -> Iterator[tuple[str, Tensor]]:
    """Module in diffusers' UNet and what its weight changes by: (alpha / rank) B A."""
    tensors = load_file(path)
    for key, a_RI in tensors.items():
        if key.endswith(".lora_A.weight"):
            module = key.removesuffix(".lora_A.weight").removeprefix("unet.")
            b_OR = tensors[key.replace(".lora_A.", ".lora_B.")]
            yield module, (b_OR @ a_RI) * (ALPHA / RANK)


def comfyui(
    layout: Layout, file: dict[str, Tensor], left_over: list[str]
) -> tuple[Mapping[str, str], Changes]:
    start_comfyui()
    import comfy.lora
    import comfy.utils

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            left_over.append(record.getMessage())

    logging.getLogger().addHandler(Ear(logging.WARNING))
    down = [depth for level in layout.down for depth in (level or (0, 0))]
    up = [depth for level in layout.up for depth in (level or (0, 0, 0))]
    config = {
        "num_res_blocks": [2, 2, 2],
        "channel_mult": [1, 2, 4],
        "transformer_depth": down,
        "transformer_depth_output": up[::-1],
        "transformer_depth_middle": -1 if layout.mid is None else layout.mid,
    }
    names = comfy.utils.unet_to_diffusers(config)
    weights = {f"diffusion_model.{name}": None for name in names.values()}
    model = SimpleNamespace(
        state_dict=lambda: weights, model_config=SimpleNamespace(unet_config=config)
    )
    key_map = comfy.lora.model_lora_keys_unet(model, {})
    changes: Changes = {}
    for key, patch in comfy.lora.load_lora(file, key_map).items():
        up_OR, down_RI, alpha, *_ = getattr(patch, "weights", None) or patch[1]
        changes[key] = (up_OR, down_RI, alpha / len(down_RI))
    modules = {
        name.removesuffix(".weight"): f"diffusion_model.{theirs}"
        for name, theirs in names.items()
        if name.endswith(".weight")
    }
    return modules, changes


def start_comfyui() -> None:
    try:
        import comfy.options  # a whole ComfyUI asks the command line for its device
    except ImportError:
        return  # its loader alone
    sys.argv = [sys.argv[0], "--cpu"]
    comfy.options.enable_args_parsing()


def sd_scripts(
    layout: Layout, file: dict[str, Tensor], left_over: list[str]
) -> tuple[Mapping[str, str], Changes]:
    """kohya's scripts know SDXL's own layout alone."""
    from library import sdxl_model_util, sdxl_original_unet
    from networks import lora

    with torch.device("meta"):
        unet = sdxl_original_unet.SdxlUNet2DConditionModel()
    network, weights = lora.create_network_from_weights(1.0, None, None, [], unet, dict(file))
    network.apply_to([], unet, apply_text_encoder=False, apply_unet=True)
    told = network.load_state_dict(weights, strict=False)
    left_over += [*told.missing_keys, *told.unexpected_keys]
    changes: Changes = {}
    for module in network.unet_loras:
        up_OR, down_RI = module.lora_up.weight.detach(), module.lora_down.weight.detach()
        changes[module.lora_name] = (up_OR, down_RI, float(module.scale))
    theirs: dict[str, Any] = sdxl_model_util.convert_diffusers_unet_state_dict_to_sdxl(
        {f"{name}.weight": name for name in layout.linear_modules()}
    )
    names = {
        module: "lora_unet_" + key.removesuffix(".weight").replace(".", "_")
        for key, module in theirs.items()
    }
    return names, changes


if __name__ == "__main__":
    main()
