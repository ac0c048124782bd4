"""LoRAs that were made elsewhere, where jobs name them."""

import io
from typing import Any

import pytest

from core.artifacts import intake
from core.artifacts.intake import Upload
from core.artifacts.store import Store
from core.config import Settings
from core.db.engine import Database
from core.errors import LayoutMismatch, NotFound, Unprocessable
from core.layouts import NANO_WIDTHS, REAL_WIDTHS, SDXL, SSD_1B, Layout
from tests.core.jobs.test_service import fine_tune, make_dataset, refuse
from tests.support import loras
from tests.support.jobs import SPEC, submit
from tests.support.loras import Pairs

PART = ("down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",)


def bring(
    database: Database, settings: Settings, pairs: Pairs, dora: bool = False, owner: str = "ada"
) -> str:
    tensors = loras.spelt(loras.kohya_sgm, pairs, 2)
    if dora:
        tensors |= {
            key.replace(".lora_up.weight", ".dora_scale"): tensor[:, 0] for key, tensor
            in tensors.items() if key.endswith("up.weight")
        }  # fmt: skip
    upload = Upload("x", io.BytesIO(loras.file_of(tensors, dtype="F16")))
    store = Store.of(settings)
    return intake.receive(database, store, settings, owner=owner, upload=upload).id


@pytest.mark.parametrize(
    ("layout", "modules", "widths", "base"),
    [
        (SSD_1B, None, NANO_WIDTHS, "nano-ssd-1b"),
        (SDXL, None, NANO_WIDTHS, "nano-sdxl"),
        (SSD_1B, PART, NANO_WIDTHS, "nano-sdxl"),
        (SSD_1B, PART, NANO_WIDTHS, "nano-ssd-1b"),
    ],
)
def test_one_that_fits_is_taken(
    layout: Layout, modules: Any, widths: Any, base: str, database: Database, settings: Settings
) -> None:
    pairs = loras.unet_pairs(layout, modules=modules, widths=widths, rank=1)
    lora = bring(database, settings, pairs)
    job = submit(database, settings, spec={**SPEC, "base": base, "loras": [{"artifact": lora}]})
    assert job.spec["loras"][0]["artifact"] == lora


@pytest.mark.parametrize(
    ("layout", "modules", "widths", "base", "words"),
    [
        (SSD_1B, None, NANO_WIDTHS, "nano-sdxl", "layout ssd-1b .*'nano-sdxl' .layout sdxl"),
        (SDXL, None, NANO_WIDTHS, "nano-ssd-1b", "layout sdxl .*'nano-ssd-1b' .layout ssd-1b"),
        (SSD_1B, None, REAL_WIDTHS, "nano-ssd-1b", r"1280 .unet\.2.*64 .unet\.2"),
        (SSD_1B, PART, REAL_WIDTHS, "nano-ssd-1b", r"2048 .context.*128 .context"),
        (SDXL, ("mid_block.attentions.0.proj_in",), NANO_WIDTHS, "nano-ssd-1b", "layout sdxl"),
        (SDXL, ("down_blocks.2.attentions.0.transformer_blocks.9.ff.net.2",), NANO_WIDTHS,
         "nano-ssd-1b", "layout sdxl"),
    ],
)  # fmt: skip
def test_one_that_does_not_is_refused_with_both_names(
    layout: Layout,
    modules: Any,
    widths: Any,
    base: str,
    words: str,
    database: Database,
    settings: Settings,
) -> None:
    lora = bring(
        database, settings, loras.unet_pairs(layout, modules=modules, widths=widths, rank=1)
    )
    spec = {**SPEC, "base": base, "loras": [{"artifact": lora}]}
    refuse(database, settings, LayoutMismatch, f"'{lora}'.*{words}", spec=spec)


def test_text_encoders_of_another_width(database: Database, settings: Settings) -> None:
    large = {place: (a[:, :40], b[:40]) for place, (a, b) in loras.text_pairs(rank=1).items()
             if place[1].endswith("q_proj")}  # fmt: skip
    lora = bring(database, settings, large)
    spec = SPEC | {"loras": [{"artifact": lora}]}
    refuse(database, settings, LayoutMismatch, r"40 .text_encoder.*48 .text_encoder", spec=spec)
    fits = bring(database, settings, loras.text_pairs(rank=1))
    submit(database, settings, spec=SPEC | {"loras": [{"artifact": fits}]})


def test_somebody_elses_is_not_found(database: Database, settings: Settings) -> None:
    lora = bring(database, settings, loras.unet_pairs(rank=1), owner="bob")
    refuse(database, settings, NotFound, lora, spec=SPEC | {"loras": [{"artifact": lora}]})


def test_a_training_begins_with_one_on_its_layers(database: Database, settings: Settings) -> None:
    dataset = make_dataset(database, 3)
    attention = loras.unet_pairs(modules=SSD_1B.attention_modules(), rank=8)
    for pairs, targets in ((attention, "attention"), (loras.unet_pairs(rank=8), "transformer")):
        lora = bring(database, settings, pairs)
        spec = fine_tune(dataset, init_from=lora, lora={"targets": targets})
        job = submit(database, settings, kind="fine_tune", spec=spec)
        assert job.spec["init_from"] == lora


@pytest.mark.parametrize(
    ("pairs", "dora", "words"),
    [
        (loras.unet_pairs(rank=8), False, "just what `lora.targets` 'attention' means"),
        (loras.unet_pairs(modules=PART, rank=8), False, "just what"),
        (loras.unet_pairs(rank=4), False, "of rank 4, `lora.rank` is 8"),
        (loras.unet_pairs(rank=8) | loras.text_pairs(rank=4), False, "of several ranks"),
        (loras.unet_pairs(modules=SSD_1B.attention_modules(), rank=8)
         | loras.text_pairs(rank=8), False, "changes text_encoder and text_encoder_2 too"),
        (loras.unet_pairs(modules=SSD_1B.attention_modules(), rank=8), True, "is a DoRA"),
    ],
)  # fmt: skip
def test_a_training_begins_with_no_other(
    pairs: Pairs, dora: bool, words: str, database: Database, settings: Settings
) -> None:
    lora = bring(database, settings, pairs, dora)
    spec = fine_tune(make_dataset(database, 3), init_from=lora)
    refuse(database, settings, Unprocessable, words, kind="fine_tune", spec=spec)
