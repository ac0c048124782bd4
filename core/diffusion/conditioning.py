"""What the UNet is told besides the noisy latent: the prompt, and SDXL's size and crop numbers.

L is 77 tokens, D the two text encoders' widths together, P the second one's projection.
Podell et al., SDXL, arXiv:2307.01952, sections 2.1 and 2.2.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from core.diffusion.components import Components


@dataclass(frozen=True)
class Conditioning:
    """A prompt as the UNet takes it: ``text_1LD`` to attend to, ``pooled_1P`` beside the time."""

    text_1LD: Tensor
    pooled_1P: Tensor


@torch.no_grad()
def encode_prompt(components: Components, prompt: str) -> Conditioning:
    """Both encoders' last hidden state but one, side by side, and the second's pooled output.

    A prompt longer than the encoders take is cut at 77 tokens.
    """
    first = components.text_encoder(
        _tokens(components.tokenizer, prompt, components.device), output_hidden_states=True
    )
    second = components.text_encoder_2(
        _tokens(components.tokenizer_2, prompt, components.device), output_hidden_states=True
    )
    return Conditioning(
        text_1LD=torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1),
        pooled_1P=second.text_embeds,
    )


def encode_negative(components: Components, negative_prompt: str | None) -> Conditioning:
    """The other side of guidance: ``negative_prompt``, or for None what the base was trained on.

    That is zeros or the empty prompt, as the base's ``model_index.json`` says.
    """
    if negative_prompt is not None or not components.zero_unconditional:
        return encode_prompt(components, negative_prompt or "")
    shape_of = encode_prompt(components, "")
    return Conditioning(
        text_1LD=torch.zeros_like(shape_of.text_1LD),
        pooled_1P=torch.zeros_like(shape_of.pooled_1P),
    )


def time_ids(
    *, original_hw: tuple[int, int], crop_top_left: tuple[int, int], target_hw: tuple[int, int]
) -> Tensor:
    """SDXL's six numbers, in pixels, shape (1, 6), float32 on the CPU.

    They stay float32 into the UNet, which embeds them: bfloat16 cannot tell 4000 from 4010.

    Args:
        original_hw: the picture's height and width before anything was done to it.
        crop_top_left: where the crop starts, in the resized picture.
        target_hw: height and width of the crop.
    """
    return torch.tensor([[*original_hw, *crop_top_left, *target_hw]], dtype=torch.float32)


def _tokens(tokenizer: CLIPTokenizer, prompt: str, device: torch.device) -> Tensor:
    encoded = tokenizer(
        prompt,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    tokens_1L: Tensor = encoded.input_ids.to(device)
    return tokens_1L
