"""What a job is asked to do: one frozen model a kind, checked once at submit and stored as JSON.

Unknown fields are refused. A field of the contract that this version cannot honour yet keeps its
place and takes only its neutral value, so that asking for more is refused by name (``NotYet``).
"""

from math import ceil
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    model_validator,
)

DEFAULT_STEPS = 500
"""Of a fine-tune: what DiffEngine's DreamBooth configuration takes."""
HELD_OUT_FROM = 20
HELD_OUT_SHARE = 0.05
"""Of so many pictures or more. Of fewer, all are learnt."""
MAX_SEED = 2**32 - 1
"""Seeds are unsigned 32 bit: what every program that reads our metadata can hold."""

Id = Annotated[str, StringConstraints(max_length=200)]
"""Several times as long as ours are: a refusal repeats it."""
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
Prompt = Annotated[str, StringConstraints(max_length=4000)]
FilledPrompt = Annotated[str, StringConstraints(min_length=1, max_length=4000, pattern=r"\S")]
Side = Annotated[int, Field(ge=32, le=2048, multiple_of=8)]
"""A picture's side in pixels."""
Precision = Literal["auto", "fp32", "bf16", "fp16"]
"""``auto``: fp32 on the CPU, bf16 on CUDA. Trainable weights are fp32 whatever is chosen."""


def _refuse_until_built(value: object, info: ValidationInfo) -> None:
    if value is not None and value is not False:
        raise ValueError(f"`{info.field_name}` is not available in this version: leave it out")


NotYet = Annotated[None, BeforeValidator(_refuse_until_built)]


class Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class LoraSpec(Spec):
    """The adapter: y = W x + (alpha / rank) B A x on each target. Hu et al., arXiv:2106.09685."""

    rank: int = Field(8, ge=1, le=256, description="Rank of A and B. 8 is DiffEngine's default.")
    alpha: float = Field(
        default_factory=lambda given: float(given.get("rank", 8)),
        gt=0,
        le=4096,
        description="Scale of the update is alpha / rank. Default: rank, so 1.",
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of inputs dropped before A.")
    targets: Literal["attention", "transformer"] = Field(
        "attention",
        description="attention: to_q, to_k, to_v and to_out.0 of every block, as the diffusers "
        "scripts. transformer: also feed-forward, proj_in and proj_out, as kohya.",
    )
    dora: NotYet = None


class SampleSpec(Spec):
    """Pictures drawn while training runs, always from the same seeds, so that they compare."""

    prompts: list[FilledPrompt] = Field(
        min_length=1, max_length=8, description="One picture each; up to 8."
    )
    every: int = Field(100, ge=1, description="Steps between two rounds; the last step always.")
    steps: int = Field(25, ge=1, le=150, description="Denoising steps.")
    guidance: float = Field(5.0, ge=0, le=30, description="Classifier-free guidance scale.")


class PriorSpec(Spec):
    """Prior preservation: pictures of the class, drawn by the base, are learnt beside."""

    weight: float = Field(1.0, gt=0, le=100, description="Of the class pictures' loss.")
    images: int = Field(
        100,
        ge=0,
        le=1000,
        description="Class pictures; 100 is the scripts' count. 0: draw none, and hold the UNet to "
        "the base's own answer for the class prompt on the subject's pictures.",
    )


class FineTuneSpec(Spec):
    """A LoRA from pictures: of one subject (DreamBooth, Ruiz et al., arXiv:2208.12242), or each
    with its own caption."""

    base: Id = Field(description="A base model's id, see GET /v1/models.")
    dataset: Id = Field(description="A dataset's id.")
    method: Literal["dreambooth", "captioned"] = Field(
        "dreambooth", description="captioned: every picture is learnt with its own caption."
    )
    instance_prompt: FilledPrompt | None = Field(
        None,
        description="Names the subject with a rare word, as in 'a photo of sks dog'; for every "
        "picture. null: each picture's own caption.",
    )
    class_prompt: FilledPrompt | None = Field(
        None,
        description="Names the class, as in 'a photo of a dog'. Needed with `prior`; without it, "
        "the report still tells how far the LoRA moves the class.",
    )
    prior: PriorSpec | None = Field(
        None, description="Keeps the class what it was. null: only the subject is learnt."
    )
    lora: LoraSpec = LoraSpec()
    init_from: Id | None = Field(
        None, description="A LoRA artifact of the same rank to begin with. null: a fresh one."
    )
    text_encoder: NotYet = None
    resolution: Side | None = Field(None, description="Pixels a side. Default: the base's native.")
    steps: int | None = Field(
        None, ge=1, le=100_000, description=f"Optimizer steps. Default {DEFAULT_STEPS}."
    )
    epochs: int | None = Field(
        None, ge=1, le=10_000, description="Passes over the pictures, instead of steps."
    )
    batch_size: int = Field(1, ge=1, le=64, description="Pictures in one forward pass.")
    accumulation: int = Field(1, ge=1, le=256, description="Forward passes to one optimizer step.")
    optimizer: Literal["adamw", "adafactor"] = Field(
        "adamw", description="adafactor keeps less state: a row and a column a matrix."
    )
    learning_rate: float = Field(1e-4, gt=0, le=1, description="1e-4: the scripts' LoRA default.")
    weight_decay: float = Field(1e-2, ge=0, le=1, description="AdamW's decoupled decay.")
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    warmup_steps: int = Field(0, ge=0, le=100_000, description="Steps of linear rise from 0.")
    max_grad_norm: float = Field(1.0, gt=0, description="Global norm that gradients are cut to.")
    snr_gamma: float | None = Field(
        None, gt=0, le=100, description="Min-SNR weighting's gamma; 5 is the paper's. null: off."
    )
    noise_offset: float = Field(
        0.0, ge=0, le=1, description="Share of noise that is one value a channel; 0.05 is usual."
    )
    caption_dropout: float = Field(
        0.0, ge=0, le=1, description="Share of samples learnt with no words; 0.1 keeps guidance."
    )
    flip: bool = Field(False, description="Also learn mirrored pictures; off: subjects have sides.")
    crop: Literal["center", "random"] = "center"
    crop_variants: int = Field(4, ge=1, le=64, description="Fixed crops a picture, for random.")
    buckets: NotYet = None
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Decay of an average of the weights, which is then what is "
        "sampled and exported. null: the weights themselves.",
    )
    gradient_checkpointing: Literal["auto"] | bool = Field(
        "auto", description="Trade a second forward pass for memory. auto: where it is short."
    )
    precision: Precision = "auto"
    deterministic: bool = Field(False, description="Bit-equal reruns on one GPU; slower there.")
    seed: Seed | None = Field(None, description="Drawn at submit when absent.")
    sample: SampleSpec | None = None
    keep_every: int | None = Field(
        None,
        ge=1,
        description="Steps between two LoRAs kept on the way, with samples if there "
        "are any. null: only the last is kept.",
    )
    checkpoint_every: int | None = Field(
        None, ge=1, description="Steps between two checkpoints. null: by what one costs, in time."
    )
    trigger: str | None = Field(
        None, max_length=200, description="The word to use in prompts; written into the file."
    )

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give either `steps` or `epochs`, not both")
        if self.method == "captioned" and self.instance_prompt is not None:
            raise ValueError(
                "`instance_prompt` is for `dreambooth`: `captioned` takes each picture's caption"
            )
        if self.prior is not None and self.class_prompt is None:
            raise ValueError("`prior` needs `class_prompt`, as in 'a photo of a dog'")
        if self.steps is not None and self.warmup_steps >= self.steps > 1:
            raise ValueError(
                f"`warmup_steps` {self.warmup_steps} must be below `steps` {self.steps}"
            )
        return self

    @property
    def views_per_picture(self) -> int:
        """Crops, and with ``flip`` each of them mirrored too."""
        crops = self.crop_variants if self.crop == "random" else 1
        return crops * (2 if self.flip else 1)

    def count_steps(self, num_pictures: int) -> int:
        """Optimizer steps of a run; the last step of an epoch may reach into the next."""
        if self.epochs is None:
            return self.steps or DEFAULT_STEPS
        learnt = num_pictures - count_held_out(num_pictures)
        return ceil(self.epochs * learnt / (self.batch_size * self.accumulation))


def count_held_out(num_pictures: int) -> int:
    """How many pictures a fine-tune keeps out of its lesson, to be measured by."""
    return round(num_pictures * HELD_OUT_SHARE) if num_pictures >= HELD_OUT_FROM else 0


class LoraUse(Spec):
    """One LoRA of a stack and its weight; 1 is as trained, 0 is off, below 0 turns it round."""

    artifact: Id
    job: NotYet = None
    weight: float = Field(1.0, ge=-10, le=10)


class GenerateSpec(Spec):
    """Pictures from prompts. Prompt by prompt; image k of a prompt uses ``seed + k``."""

    base: Id = Field(description="A base model's id, see GET /v1/models.")
    loras: list[LoraUse] = Field([], max_length=8, description="Applied together, in this order.")
    prompt: FilledPrompt | Annotated[list[FilledPrompt], Field(min_length=1, max_length=64)]
    negative_prompt: Prompt | None = Field(None, description="null: what the base does for none.")
    images: int = Field(1, ge=1, le=16, description="Pictures a prompt.")
    steps: int = Field(25, ge=1, le=150, description="Denoising steps.")
    guidance: float = Field(5.0, ge=0, le=30, description="Classifier-free guidance; <= 1: none.")
    scheduler: Literal["euler", "euler_a", "ddim", "dpmpp_2m_karras", "unipc", "lcm"] = "euler"
    width: Side | None = Field(None, description="Pixels. Default: the base's native size.")
    height: Side | None = Field(None, description="Pixels. Default: the base's native size.")
    seed: Seed | None = Field(None, description="Drawn at submit when absent.")
    image: NotYet = None
    precision: Precision = "auto"
    format: Literal["png"] = "png"

    @property
    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


AnySpec = FineTuneSpec | GenerateSpec
SPECS: dict[str, type[FineTuneSpec] | type[GenerateSpec]] = {
    "fine_tune": FineTuneSpec,
    "generate": GenerateSpec,
}
