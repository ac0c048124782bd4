"""What a computation holds at its peak, counted without computing: tensors that have no data.

Fake tensors go through the very code, kernels' choice included (attention that keeps no square
matrix), so real sizes are counted in seconds on any machine.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from core.diffusion.features import places, recorded
from core.diffusion.live_bytes import LiveBytes
from core.diffusion.lora import Lora
from core.diffusion.losses import mse_per_sample
from core.layouts import REAL_WIDTHS, SDXL, UNetShape
from core.nano import shape
from core.specs import DistillSpec, LoraSpec
from core.training import optimizer
from core.training.distillation import feature_error
from tests.support import real_size

HALF = torch.bfloat16


def of_a_step(base: UNetShape, side: int, lora: LoraSpec, *, checkpointing: bool) -> int:
    """Activations and gradients of a LoRA step of batch 1 in half precision, in bytes."""
    with FakeTensorMode():
        unet = _unet(base)
        adapter = Lora(unet, lora, seed=0)
        if checkpointing:
            unet.enable_gradient_checkpointing()
            unet.train()
        live = LiveBytes(unet, adapter)
        with live, adapter.attached(unet):
            loss = _predict(unet, base, side).float().square().mean()
            torch.autograd.backward(loss)
    return live.peak


def of_a_forward(base: UNetShape, side: int) -> int:
    """Of the UNet without gradients, batch 1, half precision."""
    with FakeTensorMode():
        unet = _unet(base)
        live = LiveBytes(unet)
        with live, torch.no_grad():
            _predict(unet, base, side)
    return live.peak


def of_the_vae(base: UNetShape, side: int) -> tuple[int, int]:
    """Of encoding and of decoding one picture in half precision."""
    with FakeTensorMode():
        vae = _vae(base)
        cells = side // 2 ** (len(vae.config.block_out_channels) - 1)
        encoding, decoding = LiveBytes(vae), LiveBytes(vae)
        with encoding, torch.no_grad():
            vae.encode(torch.empty(1, 3, side, side, dtype=HALF))
        with decoding, torch.no_grad():
            vae.decode(torch.empty(1, 4, cells, cells, dtype=HALF))
    return encoding.peak, decoding.peak


def of_a_distillation(student: UNetShape, side: int, batch: int, *, checkpointing: bool) -> int:
    """Activations and gradients of a step of a student of SDXL's, in half precision, in bytes.

    Norms give float32, as they do on a card under autocast; the CPU's autocast leaves them alone.
    """
    with FakeTensorMode():
        teacher = _unet(replace(student, layout=SDXL))
        unet = _unet(student, torch.float32).requires_grad_(True).train()
        for module in unet.modules():
            if isinstance(module, nn.GroupNorm | nn.LayerNorm):
                module.register_forward_hook(lambda *called: called[-1].float())
        if checkpointing:
            unet.enable_gradient_checkpointing()
        live = LiveBytes(teacher, unet)
        with live:
            teach(teacher, unet, student, side, batch)
    return live.peak


def numbers_of_adafactor(student: UNetShape) -> int:
    """That the optimizer keeps after a step, but for single numbers."""
    with FakeTensorMode():
        weights = list(_unet(student, torch.float32).requires_grad_(True).parameters())
        spec = DistillSpec(teacher="sdxl", dataset="d")
        adafactor = optimizer.build([nn.Parameter(weight) for weight in weights], spec)
        for weight in adafactor.param_groups[0]["params"]:
            weight.grad = torch.empty_like(weight)
        adafactor.step()
        kept = [value for state in adafactor.state.values() for value in state.values()]
        return sum(one.numel() for one in kept if isinstance(one, Tensor) and one.dim())


def teach(teacher: Any, unet: Any, student: UNetShape, side: int, batch: int) -> None:
    """Forward and backward of a distillation's step, on torch's default device."""
    compared, device = places(unet), next(unet.parameters()).device.type
    with torch.no_grad(), recorded(teacher, compared) as taught:
        told_BCHW = _predict(teacher, student, side, batch)
    with torch.autocast(device, HALF, cache_enabled=False), recorded(unet, compared) as said:
        answer_BCHW = _predict(unet, student, side, batch)
    parts = [mse_per_sample(answer_BCHW, told_BCHW).mean()] * 2
    parts += [feature_error(said[place], taught[place]) for place in compared]
    torch.autograd.backward(torch.stack(parts).sum())


def _unet(base: UNetShape, dtype: torch.dtype = HALF) -> Any:
    with _default_dtype(dtype):
        unet = (
            real_size.unet(base.layout) if base.widths == REAL_WIDTHS else shape.unet(base.layout)
        )
    return unet.requires_grad_(False)


def _vae(base: UNetShape) -> Any:
    with _default_dtype(HALF):
        vae = real_size.vae() if base.widths == REAL_WIDTHS else shape.vae()
    return vae.requires_grad_(False)


def _predict(unet: Any, base: UNetShape, side: int, batch: int = 1) -> Tensor:
    cells = side // (8 if base.widths == REAL_WIDTHS else 4)
    width = unet.config.cross_attention_dim
    pooled = unet.config.projection_class_embeddings_input_dim
    pooled -= 6 * unet.config.addition_time_embed_dim
    predicted_BCHW: Tensor = unet(
        torch.empty(batch, 4, cells, cells, dtype=HALF),
        torch.ones(batch, dtype=torch.long),
        encoder_hidden_states=torch.empty(batch, 77, width, dtype=HALF),
        added_cond_kwargs={
            "text_embeds": torch.empty(batch, pooled, dtype=HALF),
            "time_ids": torch.empty(batch, 6, dtype=HALF),
        },
    ).sample
    return predicted_BCHW


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
