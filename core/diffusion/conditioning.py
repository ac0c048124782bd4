"""What the UNet is told besides the noisy latent: the prompt, and SDXL's size and crop numbers.

L is 77 tokens, D the two text encoders' widths together, P the second one's projection.
Podell et al., SDXL, arXiv:2307.01952, sections 2.1 and 2.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from core.diffusion.components import Components


@dataclass(frozen=True)
class Conditioning:
    """A prompt as the UNet takes it: ``text_1LD`` to attend to, ``pooled_1P`` beside the time."""

    text_1LD: Tensor
    pooled_1P: Tensor


class TextEncoders(Protocol):
    """What of a base reads prompts: ``Components``, and diffusers' pipelines too."""

    @property
    def text_encoder(self) -> CLIPTextModel: ...
    @property
    def text_encoder_2(self) -> CLIPTextModelWithProjection: ...
    @property
    def tokenizer(self) -> CLIPTokenizer: ...
    @property
    def tokenizer_2(self) -> CLIPTokenizer: ...
    @property
    def device(self) -> torch.device: ...


def encode(encoders: TextEncoders, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Text (B, L, D) and pooled (B, P) of prompts; differentiable.

    Both encoders' last hidden state but one, side by side, and the second's pooled output. A prompt
    longer than the encoders take is cut at 77 tokens.
    """
    first = encoders.text_encoder(
        _tokens(encoders.tokenizer, prompts, encoders.device), output_hidden_states=True
    )
    second = encoders.text_encoder_2(
        _tokens(encoders.tokenizer_2, prompts, encoders.device), output_hidden_states=True
    )
    text_BLD = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
    return text_BLD, second.text_embeds


@torch.no_grad()
def encode_prompt(components: Components, prompt: str) -> Conditioning:
    """``encode`` of one prompt."""
    return Conditioning(*encode(components, [prompt]))


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


def _tokens(tokenizer: CLIPTokenizer, prompts: Sequence[str], device: torch.device) -> Tensor:
    encoded = tokenizer(
        list(prompts),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    tokens_BL: Tensor = encoded.input_ids.to(device)
    return tokens_BL
