"""The tokenizer: known words are one token each, any other text has tokens too."""

import pytest

from core.nano import tokens

CAPTIONS = ["a photo of a robot on a red background", "an apple"]


@pytest.mark.parametrize("pad", tokens.PADDING)
def test_a_known_word_is_one_token(pad: str) -> None:
    tokenizer = tokens.tokenizer(tokens.learn_merges(CAPTIONS), pad)
    for caption in CAPTIONS:
        assert len(tokenizer.tokenize(caption)) == len(caption.split())
    assert tokenizer.decode(tokenizer("A Photo").input_ids, skip_special_tokens=True) == "a photo"


def test_an_unknown_word_is_spelt() -> None:
    tokenizer = tokens.tokenizer(tokens.learn_merges(CAPTIONS), tokens.END)
    assert "".join(tokenizer.tokenize("sks")) == "sks</w>"
    assert tokenizer.unk_token_id not in tokenizer("sks Zürich 日本 🙂").input_ids[1:-1]


def test_merges_do_not_depend_on_the_order_of_captions() -> None:
    assert tokens.learn_merges(CAPTIONS) == tokens.learn_merges(reversed(CAPTIONS))
