"""A LoRA on a UNet: trained beside it, saved as others read it, and read back before it counts.

y = W x + (alpha / rank) B A x, Hu et al., arXiv:2106.09685. The update is added by a forward hook
a module, so the UNet itself is never changed: taking the hooks off is all it takes to be clean.
Shapes: A is (rank, in), B (out, rank).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F

from core.diffusion import lora_file
from core.diffusion.components import Components
from core.diffusion.hooks import Hook, hooked
from core.diffusion.lora_file import Pair
from core.errors import ExportMismatch
from core.layouts import ATTENTION_TARGETS
from core.specs import LoraSpec

EFFECT_TOLERANCE = 0.05
"""Share of the LoRA's effect by which the file, read back, may miss the trained output: far below
what a lost alpha or a lost block does, far above rounding."""
ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
"""Share of the output that two orders of the same sums may differ by, after the whole UNet."""


class Lora(nn.Module):
    """The trainable matrices, float32 whatever the base is held in; dropout acts in train mode."""

    def __init__(self, unet: UNet2DConditionModel, spec: LoraSpec, *, seed: int) -> None:
        """One pair a target: A gaussian with deviation 1 / rank as diffusers' scripts draw it, and
        B zero, so that training starts at the base."""
        super().__init__()
        self.rank, self.alpha, self.dropout = spec.rank, spec.alpha, spec.dropout
        self.targets = _targets(unet)
        generator = torch.Generator().manual_seed(seed)
        self.a = nn.ParameterList()
        self.b = nn.ParameterList()
        for name in self.targets:
            layer = unet.get_submodule(name)
            a_RI = torch.randn(self.rank, layer.in_features, generator=generator) / self.rank
            b_OR = torch.zeros(layer.out_features, self.rank)
            self.a.append(nn.Parameter(a_RI.to(layer.weight.device)))
            self.b.append(nn.Parameter(b_OR.to(layer.weight.device)))

    @contextmanager
    def attached(self, unet: UNet2DConditionModel) -> Iterator[None]:
        """The UNet answers with the LoRA inside the block, and as before after it."""
        hooks = {
            unet.get_submodule(name): self._hook(a_RI, b_OR)
            for name, a_RI, b_OR in zip(self.targets, self.a, self.b, strict=True)
        }
        with hooked(hooks):
            yield

    def _hook(self, a_RI: Tensor, b_OR: Tensor) -> Hook:
        scale = self.alpha / self.rank

        def add_update(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            x = F.dropout(inputs[0], self.dropout, self.training)
            # Cast here, not where they live: gradients come back to the float32 matrices.
            return output + F.linear(F.linear(x, a_RI.to(x.dtype)), b_OR.to(x.dtype)) * scale

        return add_update

    def save(self, path: Path, *, trigger: str | None = None) -> None:
        """Writes the file that ``load_lora_weights`` of diffusers reads; float32, as trained."""
        pairs = {
            name: Pair(a_RI, b_OR)
            for name, a_RI, b_OR in zip(self.targets, self.a, self.b, strict=True)
        }
        lora_file.write(path, pairs, rank=self.rank, alpha=self.alpha, trigger=trigger)


def _targets(unet: UNet2DConditionModel) -> tuple[str, ...]:
    return tuple(
        name
        for name, _ in unet.named_modules()
        if ".transformer_blocks." in name and name.endswith(ATTENTION_TARGETS)
    )


@torch.no_grad()
def check_export(lora: Lora, path: Path, components: Components) -> None:
    """Reads the file back with diffusers into the bare base and compares outputs of the UNet.

    Raises:
        ExportMismatch: the file does not give the trained output within ``EFFECT_TOLERANCE`` of the
            LoRA's effect plus ``ROUNDING``; or gives the base's own; or is not finite.
    """
    lora.eval()
    base_BCHW = _probe(components)
    with lora.attached(components.unet):
        trained_BCHW = _probe(components)
    with _loaded_by_diffusers(path, components.unet):
        loaded_BCHW = _probe(components)
    if not loaded_BCHW.isfinite().all():
        raise ExportMismatch("the exported LoRA gives values that are not finite")
    if torch.equal(loaded_BCHW, base_BCHW):
        raise ExportMismatch("the exported LoRA changes nothing: train longer or at a higher rate")
    error = (loaded_BCHW - trained_BCHW).norm().item()
    effect = (trained_BCHW - base_BCHW).norm().item()
    rounding = ROUNDING[components.dtype] * trained_BCHW.norm().item()
    if error > EFFECT_TOLERANCE * effect + rounding:
        raise ExportMismatch(
            f"the exported LoRA, read back, is off by {error:.3g} where its effect is {effect:.3g}"
        )


@contextmanager
def _loaded_by_diffusers(path: Path, unet: UNet2DConditionModel) -> Iterator[None]:
    try:
        unet.load_lora_adapter(path.parent, weight_name=path.name, prefix="unet")
        yield
    finally:
        unet.unload_lora()


def _probe(components: Components) -> Tensor:
    """The UNet's output for one fixed noisy latent in the middle of the process, float32."""
    config = components.unet.config
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(components.device, components.dtype)

    output_BCHW: Tensor = components.unet(
        normal(1, config.in_channels, config.sample_size, config.sample_size),
        torch.tensor(500, device=components.device),
        encoder_hidden_states=normal(1, 77, config.cross_attention_dim),
        added_cond_kwargs={
            "text_embeds": normal(1, components.pooled_width),
            "time_ids": normal(1, 6).abs(),
        },
    ).sample
    return output_BCHW.float()
