"""What a job is asked to do: one frozen model a kind, checked once at submit and stored as JSON.

Unknown fields are refused. A field of the contract that this version cannot honour yet keeps its
place and takes only its neutral value, so that asking for more is refused by name (``NotYet``).
"""

from math import ceil
from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    model_validator,
)

HELD_OUT_FROM = 20
HELD_OUT_SHARE = 0.05
"""Of so many pictures or more. Of fewer, all are learnt."""
MAX_STEPS = 100_000
"""That a training may take in all, extensions included."""
MAX_SEED = 2**32 - 1
"""Seeds are unsigned 32 bit: what every program that reads our metadata can hold."""

Kind = Literal["fine_tune", "distill", "generate"]
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


class TrainingSpec(Spec):
    """What every training is told: of which pictures it learns, how long, how."""

    default_steps: ClassVar[int]

    dataset: Id = Field(description="A dataset's id.")
    resolution: Side | None = Field(None, description="Pixels a side. Default: the base's native.")
    steps: int | None = Field(None, ge=1, le=MAX_STEPS, description="Optimizer steps.")
    epochs: int | None = Field(
        None, ge=1, le=10_000, description="Passes over the pictures, instead of steps."
    )
    batch_size: int = Field(1, ge=1, le=64, description="Pictures in one forward pass.")
    accumulation: int = Field(1, ge=1, le=256, description="Forward passes to one optimizer step.")
    optimizer: Literal["adamw", "adafactor"] = Field(
        "adamw", description="adafactor keeps less state: a row and a column a matrix."
    )
    learning_rate: float = Field(1e-4, gt=0, le=1)
    weight_decay: float = Field(1e-2, ge=0, le=1, description="AdamW's decoupled decay.")
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    warmup_steps: int = Field(0, ge=0, le=MAX_STEPS, description="Steps of linear rise from 0.")
    max_grad_norm: float = Field(1.0, gt=0, description="Global norm that gradients are cut to.")
    snr_gamma: float | None = Field(
        None, gt=0, le=100, description="Min-SNR weighting's gamma; 5 is the paper's. null: off."
    )
    caption_dropout: float = Field(
        0.0, ge=0, le=1, description="Share of samples learnt with no words; 0.1 keeps guidance."
    )
    flip: bool = Field(False, description="Also learn mirrored pictures; off: subjects have sides.")
    crop: Literal["center", "random"] = "center"
    crop_variants: int = Field(4, ge=1, le=64, description="Fixed crops a picture, for random.")
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
        description="Steps between two results kept on the way, loadable as the last one is, with "
        "samples if there are any. null: only the last is kept.",
    )
    checkpoint_every: int | None = Field(
        None, ge=1, description="Steps between two checkpoints. null: by what one costs, in time."
    )

    @model_validator(mode="after")
    def _has_one_length(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give either `steps` or `epochs`, not both")
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
            return self.steps or self.default_steps
        learnt = num_pictures - count_held_out(num_pictures)
        return ceil(self.epochs * learnt / (self.batch_size * self.accumulation))


class FineTuneSpec(TrainingSpec):
    """A LoRA from pictures: of one subject (DreamBooth, Ruiz et al., arXiv:2208.12242), or each
    with its own caption."""

    kind: ClassVar[Kind] = "fine_tune"
    default_steps: ClassVar[int] = 500
    """What DiffEngine's DreamBooth configuration takes."""

    base: Id = Field(description="A base model's id, see GET /v1/models, or a unet artifact's.")
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
    steps: int | None = Field(
        None, ge=1, le=MAX_STEPS, description=f"Optimizer steps. Default {default_steps}."
    )
    learning_rate: float = Field(1e-4, gt=0, le=1, description="1e-4: the scripts' LoRA default.")
    noise_offset: float = Field(
        0.0, ge=0, le=1, description="Share of noise that is one value a channel; 0.05 is usual."
    )
    buckets: NotYet = None
    trigger: str | None = Field(
        None, max_length=200, description="The word to use in prompts; written into the file."
    )

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.method == "captioned" and self.instance_prompt is not None:
            raise ValueError(
                "`instance_prompt` is for `dreambooth`: `captioned` takes each picture's caption"
            )
        if self.prior is not None and self.class_prompt is None:
            raise ValueError("`prior` needs `class_prompt`, as in 'a photo of a dog'")
        return self


LAYERS: dict[str, list[int]] = {"ssd-1b": [0, 1, 2, 3], "vega": [0, 1]}
"""Which blocks of a teacher's stack of ten a student of each layout keeps, unless told: those of
its own names."""


class StudentSpec(Spec):
    """What learns: a UNet of a smaller layout, cut out of its teacher or trained before."""

    layout: Literal["ssd-1b", "vega"] = "ssd-1b"
    init: Literal["teacher", "pretrained"] = Field(
        "teacher",
        description="teacher: begin with the teacher's own weights, cut. pretrained: with `weights`"
        ", to widen what they know.",
    )
    layers: list[Annotated[int, Field(ge=0, le=9)]] = Field(
        default_factory=lambda given: LAYERS[given.get("layout", "ssd-1b")],
        max_length=10,
        description="For `teacher`: which of a stack of ten blocks to keep where the layout has "
        "fewer, in order; [0, 1, 2, 6] is what Segmind's SSD-1B looks like. Default: the first.",
    )
    weights: Id | None = Field(
        None, description="For `pretrained`: a base model's id, or a unet artifact's."
    )

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        wanted = len(LAYERS[self.layout])
        if len(self.layers) != wanted or self.layers != sorted(set(self.layers)):
            raise ValueError(
                f"`layers` {self.layers} must be {wanted} different numbers from 0 to 9, in order: "
                f"{self.layout} keeps {wanted} of a stack of ten blocks"
            )
        if self.init == "teacher" and self.weights is not None:
            raise ValueError(
                '`weights` is for `init` "pretrained": a student cut out of its teacher has the '
                "teacher's"
            )
        return self


class LossSpec(Spec):
    """How much each part of the loss counts; 1, 0.5, 0.5 are Segmind's."""

    task: float = Field(1.0, ge=0, le=1000, description="Of the error to what is to be predicted.")
    output: float = Field(0.5, ge=0, le=1000, description="Of the error to the teacher's answer.")
    feature: float = Field(
        0.5,
        ge=0,
        le=1000,
        description="Of the sum of errors to the teacher's features, each counted once: 26 for "
        "ssd-1b and vega.",
    )

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if self.task == self.output == self.feature == 0:
            raise ValueError("`task`, `output` and `feature` are all 0: nothing would be learnt")
        return self


class DistillSpec(TrainingSpec):
    """A UNet that learns to answer as a larger one does. Gupta et al., arXiv:2401.02677."""

    kind: ClassVar[Kind] = "distill"
    default_steps: ClassVar[int] = 10_000

    teacher: Id = Field(description="A base model of SDXL's layout, see GET /v1/models.")
    student: StudentSpec = StudentSpec()
    loss: LossSpec = LossSpec()
    init_from: Id | None = Field(
        None, description="Another way to name `student.weights`: a unet artifact to go on from."
    )
    steps: int | None = Field(
        None, ge=1, le=MAX_STEPS, description=f"Optimizer steps. Default {default_steps}."
    )
    optimizer: Literal["adamw", "adafactor"] = Field(
        "adafactor", description="adafactor keeps less state: a row and a column a matrix."
    )
    learning_rate: float = Field(1e-5, gt=0, le=1, description="1e-5: Segmind's.")

    @property
    def base(self) -> str:
        """What lends everything beside the UNet."""
        return self.teacher

    @property
    def start(self) -> str | None:
        """The weights that the student begins with; None: the teacher's."""
        return self.init_from or self.student.weights

    @model_validator(mode="after")
    def _has_one_start(self) -> Self:
        named = [name for name in (self.init_from, self.student.weights) if name]
        if self.student.init == "pretrained" and len(named) != 1:
            raise ValueError(
                '`student.init` is "pretrained": name the weights to begin with in '
                "`student.weights`, a base model or a unet artifact, or in `init_from`"
            )
        if self.student.init == "teacher" and named:
            raise ValueError(
                '`init_from` goes on from trained weights: it needs `student.init` "pretrained"'
            )
        return self


def count_held_out(num_pictures: int) -> int:
    """How many pictures a training keeps out of its lesson, to be measured by."""
    return round(num_pictures * HELD_OUT_SHARE) if num_pictures >= HELD_OUT_FROM else 0


class LoraUse(Spec):
    """One LoRA of a stack and its weight; 1 is as trained, 0 is off, below 0 turns it round."""

    artifact: Id | None = Field(None, description="A LoRA's id.")
    job: Id | None = Field(None, description="In its place, the job that makes it: waits for that.")
    weight: float = Field(1.0, ge=-10, le=10)

    @model_validator(mode="after")
    def _names_one(self) -> Self:
        if (self.artifact is None) == (self.job is None):
            raise ValueError("name either `artifact` or the `job` that makes it")
        return self


LCM_STEPS = 50
"""Of the teacher's, which an LCM jumps over. Luo et al., arXiv:2310.04378, section 4.3."""


class StartImage(Spec):
    """A picture of a dataset to begin with: scaled and cropped to the size that is asked for."""

    dataset: Id
    image: Id
    strength: float = Field(
        0.6, gt=0, le=1, description="How far to go from it; 1 leaves little of it."
    )


class GenerateSpec(Spec):
    """Pictures from prompts. Prompt by prompt; image k of a prompt uses ``seed + k``."""

    kind: ClassVar[Kind] = "generate"
    base: Id = Field(description="A base model's id, see GET /v1/models, or a unet artifact's.")
    loras: list[LoraUse] = Field([], max_length=8, description="Applied together, in this order.")
    prompt: FilledPrompt | Annotated[list[FilledPrompt], Field(min_length=1, max_length=64)]
    negative_prompt: Prompt | None = Field(None, description="null: what the base does for none.")
    images: int = Field(1, ge=1, le=16, description="Pictures a prompt.")
    steps: int = Field(25, ge=1, le=150, description="Denoising steps; of `lcm` at most 50.")
    guidance: float = Field(5.0, ge=0, le=30, description="Classifier-free guidance; <= 1: none.")
    scheduler: Literal["euler", "euler_a", "ddim", "dpmpp_2m_karras", "unipc", "lcm"] = "euler"
    width: Side | None = Field(None, description="Pixels. Default: the base's native size.")
    height: Side | None = Field(None, description="Pixels. Default: the base's native size.")
    seed: Seed | None = Field(None, description="Drawn at submit when absent.")
    image: StartImage | None = Field(None, description="A picture to begin with.")
    precision: Precision = "auto"
    format: Literal["png", "jpeg", "webp"] = Field(
        "png", description="What made a picture is written into each of them."
    )

    @model_validator(mode="after")
    def _lcm_takes_few_steps(self) -> Self:
        if self.scheduler == "lcm" and self.steps > LCM_STEPS:
            raise ValueError(
                f"`lcm` takes at most {LCM_STEPS} `steps`, not {self.steps}: its models were "
                "distilled for so many, and need 4 to 8"
            )
        return self

    @property
    def denoising_steps(self) -> int:
        """That a picture takes."""
        return denoising_steps(self.steps, self.image.strength if self.image else None)

    @property
    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


def denoising_steps(steps: int, strength: float | None) -> int:
    """How many of ``steps`` are taken from a picture on, at least one; None: from noise on."""
    return steps if strength is None else max(1, min(int(steps * strength), steps))


AnySpec = FineTuneSpec | DistillSpec | GenerateSpec
SPECS: dict[str, type[AnySpec]] = {
    spec.kind: spec for spec in (FineTuneSpec, DistillSpec, GenerateSpec)
}
