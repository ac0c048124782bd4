"""The text is read at the first step, by modules that are afterwards as they were before."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor

from core import bases, estimate
from core.diffusion.components import Components
from core.diffusion.cross_attention import text_read_once
from tests.support.nano import unet_output


def attentions(components: Components) -> dict[str, Attention]:
    return {
        name: module
        for name, module in components.unet.named_modules()
        if isinstance(module, Attention)
    }


@contextmanager
def readings(components: Components) -> Iterator[Counter[str]]:
    """How often each attention has computed keys."""
    count: Counter[str] = Counter()
    with ExitStack() as stack:
        for name, module in attentions(components).items():
            handle = module.to_k.register_forward_hook(lambda *_, name=name: count.update([name]))
            stack.callback(handle.remove)
        yield count


def test_it_answers_the_same_and_reads_once(nano_ssd_1b: Components) -> None:
    expected = unet_output(nano_ssd_1b)
    with readings(nano_ssd_1b) as count, text_read_once(nano_ssd_1b.unet):
        answers = [unet_output(nano_ssd_1b) for _ in range(3)]
    assert all(torch.equal(answer, expected) for answer in answers)
    of_text = {name: times for name, times in count.items() if name.endswith("attn2")}
    of_pixels = {name: times for name, times in count.items() if name.endswith("attn1")}
    assert set(of_text.values()) == {1}
    assert set(of_pixels.values()) == {3}
    assert of_text.keys() | of_pixels.keys() == attentions(nano_ssd_1b).keys()


def test_afterwards_each_text_is_read(nano_ssd_1b: Components) -> None:
    before = {name: module.processor for name, module in attentions(nano_ssd_1b).items()}

    def answer(text: Tensor) -> Tensor:
        said: Tensor = nano_ssd_1b.unet(
            torch.zeros(1, 4, 16, 16),
            torch.tensor(1),
            encoder_hidden_states=text,
            added_cond_kwargs={
                "text_embeds": torch.zeros(1, nano_ssd_1b.pooled_width),
                "time_ids": torch.zeros(1, 6),
            },
        ).sample
        return said

    texts = [torch.full((1, 77, 128), value) for value in (0.0, 1.0)]
    with torch.no_grad(), text_read_once(nano_ssd_1b.unet):
        within = [answer(text) for text in texts]
    with torch.no_grad():
        after = [answer(text) for text in texts]
    assert torch.equal(*within), "the second text was not read"
    assert not torch.equal(*after)
    assert {name: module.processor for name, module in attentions(nano_ssd_1b).items()} == before


def test_what_it_keeps_of_a_text_is_in_the_estimate(nano_ssd_1b: Components) -> None:
    kept: list[Tensor] = []
    with ExitStack() as stack:
        for name, module in attentions(nano_ssd_1b).items():
            for layer in (module.to_k, module.to_v) if name.endswith("attn2") else ():
                handle = layer.register_forward_hook(lambda _, __, output: kept.append(output))
                stack.callback(handle.remove)
        unet_output(nano_ssd_1b)
    shape = bases.find("nano-ssd-1b")
    assert sum(tensor.numel() for tensor in kept) == estimate.text_numbers(shape)
