"""What a computation holds at its peak, counted without computing: tensors that have no data.

Fake tensors go through the very code, kernels' choice included (attention that keeps no square
matrix), so real sizes are counted in seconds on any machine.
"""

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from core.bases import BaseModel
from core.diffusion.lora import Lora
from core.layouts import REAL_WIDTHS
from core.nano import shape
from core.specs import LoraSpec
from tests.support import real_size

HALF = torch.bfloat16


class Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside, ``peak`` is the most bytes that storages made there have held at once."""

    def __init__(self, *held: nn.Module) -> None:
        """``held``: modules whose weights were there before."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak: int = 0
        self._now: int = 0
        self._sizes = {
            weight.untyped_storage()._cdata: 0 for module in held for weight in _weights(module)
        }

    def __torch_dispatch__(
        self,
        function: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_iter(result):
            if isinstance(leaf, Tensor):
                self._see(leaf)
        return result

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._free, key)

    def _free(self, key: int) -> None:
        self._now -= self._sizes.pop(key)


def of_a_step(base: BaseModel, side: int, lora: LoraSpec, *, checkpointing: bool) -> int:
    """Activations and gradients of a LoRA step of batch 1 in half precision, in bytes."""
    with FakeTensorMode():
        unet = _unet(base)
        adapter = Lora(unet, lora, seed=0)
        if checkpointing:
            unet.enable_gradient_checkpointing()
            unet.train()
        live = Live(unet, adapter)
        with live, adapter.attached(unet):
            loss = _predict(unet, base, side).float().square().mean()
            torch.autograd.backward(loss)
    return live.peak


def of_a_forward(base: BaseModel, side: int) -> int:
    """Of the UNet without gradients, batch 1, half precision."""
    with FakeTensorMode():
        unet = _unet(base)
        live = Live(unet)
        with live, torch.no_grad():
            _predict(unet, base, side)
    return live.peak


def of_the_vae(base: BaseModel, side: int) -> tuple[int, int]:
    """Of encoding and of decoding one picture in half precision."""
    with FakeTensorMode():
        vae = _vae(base)
        cells = side // 2 ** (len(vae.config.block_out_channels) - 1)
        encoding, decoding = Live(vae), Live(vae)
        with encoding, torch.no_grad():
            vae.encode(torch.empty(1, 3, side, side, dtype=HALF))
        with decoding, torch.no_grad():
            vae.decode(torch.empty(1, 4, cells, cells, dtype=HALF))
    return encoding.peak, decoding.peak


def _unet(base: BaseModel) -> Any:
    with _default_dtype(HALF):
        unet = (
            real_size.unet(base.layout) if base.widths == REAL_WIDTHS else shape.unet(base.layout)
        )
    return unet.requires_grad_(False)


def _vae(base: BaseModel) -> Any:
    with _default_dtype(HALF):
        vae = real_size.vae() if base.widths == REAL_WIDTHS else shape.vae()
    return vae.requires_grad_(False)


def _predict(unet: Any, base: BaseModel, side: int) -> Tensor:
    cells = side // (8 if base.widths == REAL_WIDTHS else 4)
    width = unet.config.cross_attention_dim
    pooled = unet.config.projection_class_embeddings_input_dim
    pooled -= 6 * unet.config.addition_time_embed_dim
    predicted_BCHW: Tensor = unet(
        torch.empty(1, 4, cells, cells, dtype=HALF),
        torch.ones(1, dtype=torch.long),
        encoder_hidden_states=torch.empty(1, 77, width, dtype=HALF),
        added_cond_kwargs={
            "text_embeds": torch.empty(1, pooled, dtype=HALF),
            "time_ids": torch.empty(1, 6, dtype=HALF),
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


def _weights(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
