"""What is sent as a LoRA and is none, or none of those taken: each by its name, with a way out."""

import re

from core.errors import LayoutMismatch, Unprocessable

_AGAIN = (
    "train it again as a plain LoRA, or merge it into its base with the tool that made it and "
    "extract a LoRA from the difference"
)
_KEYS = (
    (re.compile(r"\.hada_[wt]\d"), "unsupported_lora", f"is LoHa's, which is not taken: {_AGAIN}"),
    (re.compile(r"\.lokr_[wt]\d"), "unsupported_lora", f"is LoKr's, which is not taken: {_AGAIN}"),
    (
        re.compile(r"^(clip_[lg]|emb_params|text_encoders_[01])$|^bundle_emb\."),
        "unsupported_lora",
        "is a learnt word (textual inversion, pivotal tuning's embeddings.pti), which is not "
        "taken: bring the LoRA that was trained with it, a file of its own",
    ),
    (
        re.compile(r"\.lora_mid\."),
        "unsupported_lora",
        "is LoCon's, for a convolution, which is not taken: train again without `conv_dim`",
    ),
    (
        re.compile(
            r"^(model|conditioner|first_stage_model|cond_stage_model|embeddings|encoder|decoder|"
            r"text_model|conv_in|conv_out|time_embedding|add_embedding)\b"
            r"|^(unet\.)?(down_blocks|mid_block|up_blocks)\.(?!.*lora)"
        ),
        "not_a_lora",
        "is a whole model's: bring the small file with the LoRA alone. A base model is what an "
        "administrator names in STILLROOM_BASES",
    ),
)
_BEYOND_TRANSFORMERS = re.compile(
    r"resnets|samplers|skip_connection|(in|out|emb)_layers|conv_(in|out)|_op\b|_conv\b"
)
_HEADS = (
    (b"PK", "a zip, as PyTorch's .ckpt, .pt and .bin files are: it may hold a program"),
    (b"\x80", "a pickle, as .ckpt, .pt and .bin files are: it may hold a program"),
    (b"\x1f\x8b", "a packed archive: unpack it and send the .safetensors file that is inside"),
)
_TAR = (257, b"ustar")


def other_file(filename: str, head: bytes) -> Unprocessable:
    """``head``: the first 512 bytes of something that does not begin as safetensors do."""
    what = "no safetensors file"
    for start, name in _HEADS:
        if head.startswith(start):
            what = name
    if head[_TAR[0] :].startswith(_TAR[1]):
        what = (
            "a tar archive, as Replicate's trained_model.tar: unpack it and send lora.safetensors"
        )
    return Unprocessable(
        f"{filename} is {what}. Only .safetensors files are taken; PyTorch's own are turned into "
        "one by `safetensors.torch.save_file`.",
        code="not_safetensors",
    )


def unknown_key(key: str) -> Unprocessable:
    for pattern, code, what in _KEYS:
        if pattern.search(key):
            return Unprocessable(f"`{key}` {what}.", code=code)
    return Unprocessable(
        f"`{key}` is no LoRA's key in peft's, diffusers' or kohya's form: convert the file to one "
        "of these first.",
        code="unsupported_lora",
    )


def unknown_module(key: str) -> Unprocessable:
    if _BEYOND_TRANSFORMERS.search(key):
        return convolution(key)
    return LayoutMismatch(
        f"`{key}` is for no linear layer that the transformers or text encoders of the SDXL family "
        "have: the LoRA was made for another model. Bring one for SDXL, SSD-1B or Vega."
    )


def convolution(key: str) -> Unprocessable:
    return Unprocessable(
        f"`{key}` is for a ResNet or a convolution (LoCon), which is not taken: train again "
        "without `conv_dim`, or take such keys out of the file.",
        code="unsupported_lora",
    )


def malformed(detail: str) -> Unprocessable:
    return Unprocessable(detail, code="malformed_lora")


def not_finite(key: str) -> Unprocessable:
    return Unprocessable(
        f"`{key}` holds values that are infinite or not numbers: its training broke down. Take an "
        "earlier state of it.",
        code="not_finite",
    )
