"""A LoRA on a UNet: trained beside it, saved as others read it, and read back before it counts.

y = W x + (alpha / rank) B A x, Hu et al., arXiv:2106.09685. The update is added by a forward hook
a module, so the UNet itself is never changed: taking the hooks off is all it takes to be clean.
Shapes: A is (rank, in), B (out, rank).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F

from core.diffusion.adapter import Updates
from core.diffusion.components import Components
from core.diffusion.hooks import Hook, hooked
from core.diffusion.lora_file import Pair
from core.diffusion.probe import ROUNDING, probe
from core.errors import ExportMismatch, LayoutMismatch
from core.layouts import ATTENTION_TARGETS, TRANSFORMER_TARGETS
from core.specs import LoraSpec

EFFECT_TOLERANCE = 0.01
"""Share of the LoRA's effect by which the file, read back, may miss the trained output: above
rounding, below what is lost with an alpha or with an attention module that matters. (Of seven of
nano-ssd-1b's, five take 0.04 to 0.9 of the effect along, two less than this.)"""


class Lora(nn.Module):
    """The trainable matrices, float32 whatever the base is held in; dropout acts in train mode."""

    def __init__(self, unet: UNet2DConditionModel, spec: LoraSpec, *, seed: int) -> None:
        """One pair a target: A gaussian with deviation 1 / rank as diffusers' scripts draw it, and
        B zero, so that training starts at the base."""
        super().__init__()
        self.rank, self.alpha, self.dropout = spec.rank, spec.alpha, spec.dropout
        self.suffixes = SUFFIXES[spec.targets]
        self.targets = _targets(unet, self.suffixes)
        self._silent = False
        generator = torch.Generator().manual_seed(seed)
        self.a = nn.ParameterList()
        self.b = nn.ParameterList()
        for name in self.targets:
            layer = unet.get_submodule(name)
            a_RI = torch.randn(self.rank, layer.in_features, generator=generator) / self.rank
            b_OR = torch.zeros(layer.out_features, self.rank)
            self.a.append(nn.Parameter(a_RI.to(layer.weight.device)))
            self.b.append(nn.Parameter(b_OR.to(layer.weight.device)))

    @torch.no_grad()
    def begin_with(self, updates: Updates) -> None:
        """Takes another LoRA's matrices over, so that it does what that one does.

        Raises:
            LayoutMismatch: it has other modules, or a module in another size; names it.
        """
        if odd := sorted(updates.keys() ^ set(self.targets)):
            raise LayoutMismatch(f"only one of the two LoRAs has `{odd[0]}`: their targets differ")
        for name, a_RI, b_OR in zip(self.targets, self.a, self.b, strict=True):
            theirs = updates[name]
            if theirs.a_RI.shape != a_RI.shape or theirs.b_OR.shape != b_OR.shape:
                raise LayoutMismatch(
                    f"`{name}` is of another size or rank in the LoRA to begin with"
                )
            a_RI.copy_(theirs.a_RI)
            b_OR.copy_(theirs.b_OR * (self.rank / self.alpha))

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """Every matrix by module and letter."""
        matrices_a = {f"{name}.a": a_RI for name, a_RI in zip(self.targets, self.a, strict=True)}
        matrices_b = {f"{name}.b": b_OR for name, b_OR in zip(self.targets, self.b, strict=True)}
        return matrices_a | matrices_b

    @contextmanager
    def attached(self, unet: UNet2DConditionModel) -> Iterator[None]:
        """The UNet answers with the LoRA inside the block, and as before after it."""
        hooks = {
            unet.get_submodule(name): self._hook(a_RI, b_OR)
            for name, a_RI, b_OR in zip(self.targets, self.a, self.b, strict=True)
        }
        with hooked(hooks):
            yield

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside, nothing is dropped."""
        self.eval()
        try:
            yield
        finally:
            self.train()

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Inside, the UNet answers as the base alone, attached or not."""
        self._silent = True
        try:
            yield
        finally:
            self._silent = False

    def _hook(self, a_RI: Tensor, b_OR: Tensor) -> Hook:
        scale = self.alpha / self.rank

        def add_update(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if self._silent:
                return output
            x = F.dropout(inputs[0], self.dropout, self.training)
            # Cast here, not where they live: gradients come back to the float32 matrices.
            inner_NR = F.linear(x, a_RI.to(x.dtype)).flatten(0, -2)
            # one kernel for product, scale and sum, and no tensor in between
            b_RO = b_OR.to(x.dtype).t()
            output.view(-1, output.shape[-1]).addmm_(inner_NR, b_RO, alpha=scale)
            return output

        return add_update

    def pairs(self) -> dict[str, Pair]:
        """The matrices by module, for a file."""
        return {
            name: Pair(a_RI, b_OR)
            for name, a_RI, b_OR in zip(self.targets, self.a, self.b, strict=True)
        }


SUFFIXES = {"attention": ATTENTION_TARGETS, "transformer": TRANSFORMER_TARGETS}
"""Ends of the names of what ``LoraSpec.targets`` means."""


def _targets(unet: UNet2DConditionModel, suffixes: tuple[str, ...]) -> tuple[str, ...]:
    ends = tuple(f".{suffix}" for suffix in suffixes)
    return tuple(
        name for name, _ in unet.named_modules() if ".attentions." in name and name.endswith(ends)
    )


@torch.no_grad()
def check_export(lora: Lora, paths: Sequence[Path], components: Components) -> None:
    """Reads each file back with diffusers into the bare base and compares outputs of the UNet.

    Raises:
        ExportMismatch: a file does not give the trained output within ``EFFECT_TOLERANCE`` of the
            LoRA's effect plus ``ROUNDING``; or gives the base's own; or is not finite.
    """
    base_BCHW = probe(components.unet)
    with lora.evaluating(), lora.attached(components.unet):
        trained_BCHW = probe(components.unet)
    effect = (trained_BCHW - base_BCHW).norm().item()
    rounding = ROUNDING[components.dtype] * trained_BCHW.norm().item()
    for path in paths:
        with _loaded_by_diffusers(path, components.unet):
            loaded_BCHW = probe(components.unet)
        if not loaded_BCHW.isfinite().all():
            raise ExportMismatch(f"{path.name} gives values that are not finite")
        if torch.equal(loaded_BCHW, base_BCHW):
            raise ExportMismatch(f"{path.name} changes nothing: train longer or at a higher rate")
        error = (loaded_BCHW - trained_BCHW).norm().item()
        if error > EFFECT_TOLERANCE * effect + rounding:
            raise ExportMismatch(
                f"{path.name}, read back, is off by {error:.3g} where its effect is {effect:.3g}"
            )


@contextmanager
def _loaded_by_diffusers(path: Path, unet: UNet2DConditionModel) -> Iterator[None]:
    """As ``load_lora_weights`` does it, for the UNet alone."""
    weights, alphas, metadata = StableDiffusionXLPipeline.lora_state_dict(
        str(path.parent),
        weight_name=path.name,
        unet_config=unet.config,
        return_lora_metadata=True,
        local_files_only=True,
    )
    try:
        StableDiffusionXLPipeline.load_lora_into_unet(
            weights, network_alphas=alphas, unet=unet, metadata=metadata
        )
        yield
    finally:
        unet.unload_lora()
