"""Long prompts and emphasis: short plain ones as diffusers' pipeline has them."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings, strategies

from core import chunks
from core.diffusion import conditioning, emphasis, prompts
from core.diffusion.components import Components
from core.errors import Unprocessable

LONG = ", ".join(f"a red circle number {index} on blue" for index in range(30))


@pytest.mark.parametrize("prompt", ["a photo of sks dog", "", "naïve 犬!", "a red circle, on blue"])
def test_a_short_plain_prompt_is_that_of_the_pipeline(prompt: str, nano_ssd_1b: Components) -> None:
    ours, plain = (
        prompts.encode(nano_ssd_1b, prompt),
        conditioning.encode_prompt(nano_ssd_1b, prompt),
    )
    assert torch.equal(ours.text_1LD, plain.text_1LD)
    assert torch.equal(ours.pooled_1P, plain.pooled_1P)


def test_a_long_prompt_is_its_chunks_one_after_another(nano_ssd_1b: Components) -> None:
    whole = prompts.encode(nano_ssd_1b, LONG)
    length = whole.text_1LD.shape[1]
    assert length > 77
    assert length % 77 == 0
    tokens = nano_ssd_1b.tokenizer(LONG, add_special_tokens=False).input_ids
    first = str(nano_ssd_1b.tokenizer.decode(tokens[:75]))
    while len(nano_ssd_1b.tokenizer(first, add_special_tokens=False).input_ids) > 75:
        first = first.rpartition(" ")[0]
    alone = prompts.encode(nano_ssd_1b, first)
    torch.testing.assert_close(whole.text_1LD[:, :60], alone.text_1LD[:, :60])
    last_words = prompts.encode(nano_ssd_1b, LONG + ", a cat")
    assert not torch.equal(last_words.text_1LD[:, -77:], whole.text_1LD[:, -77:])
    assert torch.equal(last_words.pooled_1P, whole.pooled_1P)


def test_break_begins_a_chunk(nano_ssd_1b: Components) -> None:
    both = prompts.encode(nano_ssd_1b, "a red circle BREAK on blue")
    for index, part in enumerate(("a red circle", "on blue")):
        alone = prompts.encode(nano_ssd_1b, part)
        torch.testing.assert_close(both.text_1LD[:, 77 * index : 77 * (index + 1)], alone.text_1LD)


@pytest.mark.parametrize("prompt", ["a (red:1.3) circle BREAK " * 9, LONG])
def test_chunks_that_are_read_a_few_at_a_time_are_as_in_one_pass(
    prompt: str, nano_ssd_1b: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "_AT_ONCE", chunks.MAX_CHUNKS)
    whole = prompts.encode(nano_ssd_1b, prompt)
    monkeypatch.setattr(prompts, "_AT_ONCE", 2)
    in_parts = prompts.encode(nano_ssd_1b, prompt)
    torch.testing.assert_close(in_parts.text_1LD, whole.text_1LD)
    torch.testing.assert_close(in_parts.pooled_1P, whole.pooled_1P)


def test_a_prompt_of_too_many_chunks_is_refused(nano_ssd_1b: Components) -> None:
    most = prompts.encode(nano_ssd_1b, " BREAK ".join(["a"] * chunks.MAX_CHUNKS))
    assert most.text_1LD.shape[1] == chunks.MAX_CHUNKS * 77
    with pytest.raises(Unprocessable, match="this one has 33 of them where 32 may be"):
        prompts.encode(nano_ssd_1b, " BREAK ".join(["a"] * (chunks.MAX_CHUNKS + 1)))


@settings(max_examples=100, deadline=None)
@given(strategies.lists(strategies.sampled_from(["a", "BREAK", "BREAK,", " ", "3", "(x)", "é_"])))
def test_what_can_be_counted_without_a_tokenizer_is_never_too_much(
    nano_ssd_1b: Components, parts: list[str]
) -> None:
    prompt = " ".join(parts)
    read = len(prompts._chunks(nano_ssd_1b.tokenizer, emphasis.parse(prompt)))
    assert chunks.count_at_least(prompt) <= read


def test_a_weight_is_a_step_away_from_the_empty_prompt(nano_ssd_1b: Components) -> None:
    plain, empty = (prompts.encode(nano_ssd_1b, text) for text in ("a red circle", ""))
    told = prompts.encode(nano_ssd_1b, "a (red:1.5) circle")
    ids = nano_ssd_1b.tokenizer("a red circle", add_special_tokens=False).input_ids
    before, both = (
        len(nano_ssd_1b.tokenizer(text, add_special_tokens=False).input_ids)
        for text in ("a", "a red")
    )
    expected = plain.text_1LD.clone()
    red = slice(1 + before, 1 + both)
    assert both < len(ids)
    expected[:, red] = empty.text_1LD[:, red] + 1.5 * (
        plain.text_1LD[:, red] - empty.text_1LD[:, red]
    )
    torch.testing.assert_close(told.text_1LD, expected)
    assert torch.equal(told.pooled_1P, plain.pooled_1P)


@pytest.mark.parametrize("negative_prompt", [None, "blurry"])
@pytest.mark.parametrize("zeros", [True, False])
def test_the_shorter_side_is_lengthened_by_what_it_is_for_no_prompt(
    negative_prompt: str | None, zeros: bool, nano_ssd_1b: Components
) -> None:
    base = replace(nano_ssd_1b, zero_unconditional=zeros)
    positive, negative = prompts.encode_pair(base, LONG, negative_prompt)
    assert positive.text_1LD.shape == negative.text_1LD.shape
    short = prompts.encode_negative(base, negative_prompt)
    filler = short if negative_prompt is None else prompts.encode(base, "")
    assert torch.equal(negative.text_1LD[:, :77], short.text_1LD)
    assert torch.equal(negative.text_1LD[:, 77:154], filler.text_1LD)
    assert torch.equal(positive.text_1LD, prompts.encode(base, LONG).text_1LD)


@pytest.mark.parametrize(
    ("prompt", "spans"),
    [
        ("a photo", [("a photo", 1.0)]),
        ("a (red) dog", [("a ", 1.0), ("red", 1.1), (" dog", 1.0)]),
        ("((x)) [y]", [("x", 1.21), (" ", 1.0), ("y", 0.9091)]),
        ("(red hat:1.3), blue", [("red hat", 1.3), (", blue", 1.0)]),
        (r"a \(small\) dog", [("a (small) dog", 1.0)]),
        ("((a:1.2) b:1.5)", [("a", 1.8), (" b", 1.5)]),
        ("format 16:9) or (so", [("format 16:9) or ", 1.0), ("so", 1.1)]),
        ("BREAKFAST", [("BREAKFAST", 1.0)]),
        ("", []),
    ],
)
def test_emphasis_is_read_as_people_write_it(prompt: str, spans: list[tuple[str, float]]) -> None:
    assert [(span.text, round(span.weight, 4)) for span in emphasis.parse(prompt)] == spans


@given(strategies.text(alphabet="ab ()[]\\:1.", max_size=60))
def test_no_prompt_is_an_error_and_no_word_gets_lost(prompt: str) -> None:
    letters = "".join(span.text for span in emphasis.parse(prompt))
    marks = str.maketrans("", "", "()[]\\:1. ")
    assert letters.translate(marks) == prompt.translate(marks)


def test_brackets_in_brackets_make_no_span_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as a prompt holds took seconds, and a job has 64 prompts."""
    made = 0

    class Counted(emphasis.Span):
        def __new__(cls, *_: object) -> "Counted":
            nonlocal made
            made += 1
            return super().__new__(cls)

    monkeypatch.setattr(emphasis, "Span", Counted)
    assert len(emphasis.parse("(a" * 2000)) == made == 2000
