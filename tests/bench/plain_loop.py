"""A LoRA trained the plain way: what the scripts that people use do in each step.

All pictures are held as float32 pixels; a step encodes its own through the VAE (and, where each
picture has a caption, its caption), makes the time ids row by row, trains through peft's layers and
asks the device for the loss. It is fed our draws, so that both ways learn the same thing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler
from peft import LoraConfig
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

from core.diffusion import conditioning, latents
from core.diffusion.components import Components
from core.diffusion.lora import Lora
from core.layouts import ATTENTION_TARGETS
from core.specs import FineTuneSpec
from core.training import data, draws
from core.training.data import Source


@dataclass(frozen=True)
class Example:
    pixels_CHW: Tensor
    original_hw: tuple[int, int]
    top_left: tuple[int, int]
    prompt: str


def train(spec: FineTuneSpec, components: Components, sources: Sequence[Source]) -> Iterator[float]:
    """Yields each step's loss."""
    side = spec.resolution or components.native_size
    examples = [example(source, number, spec, side) for number, source in enumerate(sources)]
    pipeline, unet = components.pipeline(), components.unet
    ours = Lora(unet, spec.lora, seed=draws.derived_seed(spec.seed or 0, "lora", 0))
    unet.add_adapter(
        LoraConfig(
            r=spec.lora.rank,
            lora_alpha=int(spec.lora.alpha),
            target_modules=list(ATTENTION_TARGETS),
        )
    )
    with torch.no_grad():
        for name, a_RI in zip(ours.targets, ours.a, strict=True):
            unet.get_submodule(f"{name}.lora_A.default").weight.copy_(a_RI)
    weights = [weight for weight in unet.parameters() if weight.requires_grad]
    optimizer = AdamW(weights, lr=spec.learning_rate, weight_decay=spec.weight_decay)
    scheduler = DDPMScheduler.from_config(components.scheduler.config)
    once = conditioning.encode(pipeline, [spec.instance_prompt]) if spec.instance_prompt else None
    seed, batch = spec.seed or 0, spec.batch_size
    for step in range(spec.steps or 0):
        ordinals = range(step * batch, (step + 1) * batch)
        places = [draws.example(seed, "order", ordinal, len(examples)) for ordinal in ordinals]
        shown = [examples[place] for place in places]
        pixels_BCHW = torch.stack([each.pixels_CHW for each in shown])
        with torch.no_grad():
            posterior = components.vae.encode(pixels_BCHW).latent_dist
            if once is None:
                text_BLD, pooled_BP = conditioning.encode(pipeline, [each.prompt for each in shown])
            else:
                text_BLD, pooled_BP = (row.repeat(batch, *[1] * (row.dim() - 1)) for row in once)
        shape = tuple(posterior.mean.shape[1:])
        sample_BCHW = posterior.mean + posterior.std * draws.normal(
            seed, "posterior", ordinals, shape
        )
        clean_BCHW = sample_BCHW * components.vae.config.scaling_factor
        noise_BCHW = draws.normal(seed, "noise", ordinals, shape)
        timesteps_B = draws.choices(
            seed, "timestep", ordinals, scheduler.config.num_train_timesteps
        )
        rows = []
        for each in shown:
            rows.append(torch.tensor([[*each.original_hw, *each.top_left, side, side]]))
        predicted_BCHW = unet(
            scheduler.add_noise(clean_BCHW, noise_BCHW, timesteps_B),
            timesteps_B,
            encoder_hidden_states=text_BLD,
            added_cond_kwargs={"text_embeds": pooled_BP, "time_ids": torch.cat(rows).float()},
        ).sample
        loss = F.mse_loss(predicted_BCHW.float(), noise_BCHW.float())
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(weights, spec.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        yield loss.item()


def example(source: Source, number: int, spec: FineTuneSpec, side: int) -> Example:
    (view,) = data.views(source.open(), number, spec, side)
    prompt = spec.instance_prompt or source.caption
    assert prompt, "each picture has words"
    return Example(latents.to_pixels(view.image), view.original_hw, view.crop_top_left, prompt)
