"""Trains the UNet and both text encoders on the corpus.

Noise prediction under SDXL's schedule. Timesteps are drawn as often as they ought to weigh, which
is 1 / sqrt(SNR) as in Yu et al., arXiv:2310.08442: what a picture shows is settled in much noise,
where plain noise prediction hardly punishes a wrong subject. (With min-SNR weights 36,000 samples
taught all ground colours and no subject.) Over a batch they are drawn evenly, so that batches are
alike. The rate stays level and falls to zero over the last part; what is kept is an average of the
weights.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor, nn

from core.diffusion import conditioning
from core.diffusion.losses import mse_per_sample
from core.diffusion.noise import ForwardProcess, forward_process
from core.nano.recipe.captions import caption
from core.nano.recipe.corpus import Corpus
from core.nano.recipe.sitting import stage
from core.training.average import Average

SEED = 3301
HELD_OUT_SEED = 3302
BATCH = 32
LEARNING_RATE = 1e-3
WARM_UP = 200  # steps
FALL = 0.25
"""The last share of the steps, over which the rate falls."""
DECAY = 0.01
AVERAGE_DECAY = 0.999
DROPPED_SHARE = 0.1
"""Of captions replaced by what generation uses for none: zeros."""
WEIGHTS = (0.5, 5.0)
"""Least and most that a timestep may weigh."""


@dataclass(frozen=True)
class Told:
    """What the UNet hears: text (B, L, D), pooled (B, P), time ids (B, 6)."""

    text_BLD: Tensor
    pooled_BP: Tensor
    time_ids_B6: Tensor


def modules(pipeline: StableDiffusionXLPipeline) -> dict[str, nn.Module]:
    """What is trained."""
    return {
        "unet": pipeline.unet,
        "text_encoder": pipeline.text_encoder,
        "text_encoder_2": pipeline.text_encoder_2,
    }


def loud(pipeline: StableDiffusionXLPipeline) -> None:
    """Token embeddings of a size that the UNet hears from the first step on.

    CLIP draws them at 0.02, and SDXL reads hidden states that no norm has touched.
    """
    with torch.no_grad():
        for encoder in (pipeline.text_encoder, pipeline.text_encoder_2):
            encoder.get_input_embeddings().weight.normal_(0, 0.5)


def train(
    pipeline: StableDiffusionXLPipeline,
    corpus: Corpus,
    held_out: Corpus,
    steps: int,
    work: Path,
) -> Iterator[str]:
    """Trains in place, in sittings kept in ``work``; yields a line now and then.

    At the end the pipeline holds the average.
    """
    trained = modules(pipeline)
    weights = {
        f"{part}.{name}": weight
        for part, module in trained.items()
        for name, weight in module.named_parameters()
    }
    optimizer = torch.optim.AdamW(
        weights.values(), lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=DECAY, fused=True
    )
    average = Average(list(weights.values()), AVERAGE_DECAY)
    process = forward_process(pipeline.scheduler.config, torch.device("cpu"))
    level_T = timestep_density(process).cumsum(0)

    def loss_of(step: int) -> Tensor:
        random = np.random.default_rng((SEED, step))
        noise = torch.Generator().manual_seed(SEED + step)
        rows_B = torch.from_numpy(random.integers(len(corpus), size=BATCH))
        timesteps_B = _timesteps(level_T, random)
        told = tell(pipeline, corpus, rows_B, random)
        return _losses(pipeline, process, corpus, rows_B, timesteps_B, told, noise).mean()

    yield from stage("unet", weights, optimizer, average, work).run(
        loss_of, rate_of=lambda step: _rate(step, steps), steps=steps
    )
    average.swap()
    for module in trained.values():
        module.eval().requires_grad_(False)
    yield f"unet: held-out loss {heldout_loss(pipeline, held_out):.4f}"


def tell(
    pipeline: StableDiffusionXLPipeline,
    corpus: Corpus,
    rows_B: Tensor,
    random: np.random.Generator,
    dropped_share: float = DROPPED_SHARE,
) -> Told:
    """Captions of the rows, encoded; some are dropped."""
    texts = [caption(corpus.contents[row], random) for row in rows_B.tolist()]
    keep_B = torch.from_numpy(random.random(len(texts)) >= dropped_share).float()
    text_BLD, pooled_BP = conditioning.encode(pipeline, texts)
    return Told(
        text_BLD=text_BLD * keep_B[:, None, None],
        pooled_BP=pooled_BP * keep_B[:, None],
        time_ids_B6=corpus.time_ids_N6[rows_B],
    )


@torch.no_grad()
def heldout_loss(pipeline: StableDiffusionXLPipeline, held_out: Corpus) -> float:
    """Mean squared error over scenes never trained on, timesteps even, noise and captions fixed."""
    process = forward_process(pipeline.scheduler.config, torch.device("cpu"))
    random = np.random.default_rng(HELD_OUT_SEED)
    noise = torch.Generator().manual_seed(HELD_OUT_SEED)
    timesteps_N = torch.linspace(0, process.timesteps - 1, len(held_out)).long()
    losses = []
    for rows_B in torch.split(torch.arange(len(held_out)), BATCH):
        told = tell(pipeline, held_out, rows_B, random, dropped_share=0.0)
        losses.append(
            _losses(pipeline, process, held_out, rows_B, timesteps_N[rows_B], told, noise)
        )
    return torch.cat(losses).mean().item()


def timestep_density(process: ForwardProcess) -> Tensor:
    """How likely each timestep is, shape (T,)."""
    ratio_T = process.noise_T / process.signal_T  # 1 / sqrt(SNR)
    weight_T = ratio_T.clamp(*WEIGHTS)
    return weight_T / weight_T.sum()


def _timesteps(level_T: Tensor, random: np.random.Generator) -> Tensor:
    """One from each of as many equally likely strata as the batch has samples, shuffled.

    ``level_T`` says how likely a timestep is, or one before it.
    """
    level_B = (np.arange(BATCH) + random.random(BATCH)) / BATCH
    random.shuffle(level_B)
    timesteps_B = torch.searchsorted(level_T, torch.from_numpy(level_B).float())
    return timesteps_B.clamp(max=len(level_T) - 1)


def _losses(
    pipeline: StableDiffusionXLPipeline,
    process: ForwardProcess,
    corpus: Corpus,
    rows_B: Tensor,
    timesteps_B: Tensor,
    told: Told,
    noise: torch.Generator,
) -> Tensor:
    latents_BCHW = corpus.latents_NCHW[rows_B].float()
    noise_BCHW = torch.randn(latents_BCHW.shape, generator=noise)
    pred_BCHW = pipeline.unet(
        process.add_noise(latents_BCHW, noise_BCHW, timesteps_B),
        timesteps_B,
        encoder_hidden_states=told.text_BLD,
        added_cond_kwargs={"text_embeds": told.pooled_BP, "time_ids": told.time_ids_B6},
    ).sample
    return mse_per_sample(pred_BCHW, process.target(latents_BCHW, noise_BCHW, timesteps_B))


def _rate(step: int, steps: int) -> float:
    left = (steps - step) / (FALL * steps)
    return LEARNING_RATE * min((step + 1) / WARM_UP, left, 1.0)
