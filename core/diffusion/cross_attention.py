"""Cross attention that reads the text once: it is the same at each denoising step, and with it
are its keys and values, a LoRA's part among them.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional as F


class _TextOnce:
    """What SDXL's cross attention answers, with the keys and values of the first call.

    N are rows, L latent positions, C channels, H heads, D what each head sees.
    """

    def __init__(self) -> None:
        self._keys_values_NHTD: tuple[Tensor, Tensor] | None = None

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """``hidden_states`` (N, L, C), ``encoder_hidden_states`` (N, T, text): names of diffusers,
        which passes them by name."""
        assert attention_mask is None, "SDXL's has none"
        if self._keys_values_NHTD is None:
            self._keys_values_NHTD = (
                _by_head(attn.to_k(encoder_hidden_states), attn.heads),
                _by_head(attn.to_v(encoder_hidden_states), attn.heads),
            )
        query_NHLD = _by_head(attn.to_q(hidden_states), attn.heads)
        attended_NHLD = F.scaled_dot_product_attention(query_NHLD, *self._keys_values_NHTD)
        answer: Tensor = attn.to_out[0](attended_NHLD.transpose(1, 2).flatten(2))
        return answer


@contextmanager
def text_read_once(unet: nn.Module) -> Iterator[None]:
    """Within the block the UNet must be given one text only, and may be given it many times."""
    with ExitStack() as stack:
        for module in unet.modules():
            if isinstance(module, Attention) and module.is_cross_attention:
                stack.callback(module.set_processor, module.processor)
                module.set_processor(_TextOnce())
        yield


def _by_head(tensor_NLC: Tensor, heads: int) -> Tensor:
    return tensor_NLC.view(*tensor_NLC.shape[:2], heads, -1).transpose(1, 2)
