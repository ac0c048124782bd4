"""What is found in a file that is brought, and what is refused before it is kept."""

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core import bases
from core.errors import LayoutMismatch, Unprocessable
from core.layouts import REAL_WIDTHS, SDXL, SSD_1B, VEGA, Layout
from core.loras import values
from core.loras.examination import MAX_RANK, Examined, examine
from tests.support import loras, uploads
from tests.support.loras import Array, file_of, raw_file

ATTENTION = SSD_1B.attention_modules()
PROJ_IN = "down_blocks.1.attentions.0.proj_in"
KEY = "lora_unet_input_blocks_4_1_proj_in"
SMALL: dict[str, Array] = {
    f"{KEY}.lora_down.weight": np.ones((2, 48)),
    f"{KEY}.lora_up.weight": np.ones((48, 2)),
}
UNTOLD = "layout_ambiguous"


def looked_at(content: bytes) -> Examined:
    return examine(io.BytesIO(content), "dog.safetensors")


def refused(content: bytes, kind: type[Unprocessable] = Unprocessable) -> Unprocessable:
    with pytest.raises(kind) as told:
        looked_at(content)
    return told.value


def changed(**tensors: Array | None) -> bytes:
    """SMALL with other tensors by the ends of their keys, underscores for dots; None: without."""
    ends = {"down": "lora_down.weight", "up": "lora_up.weight"}
    sent: dict[str, Any] = dict(SMALL)
    sent |= {f"{KEY}.{ends.get(end, end)}": tensor for end, tensor in tensors.items()}
    return file_of({key: tensor for key, tensor in sent.items() if tensor is not None})


@pytest.mark.parametrize("dialect", loras.WHOLE)
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_every_dialect_in_every_dtype(dialect: str, dtype: str) -> None:
    pairs = loras.unet_pairs() | loras.text_pairs()
    tensors = loras.spelt(loras.WHOLE[dialect], pairs, 6 if "kohya" in dialect else None)
    found = looked_at(file_of(tensors, {"modelspec.trigger_phrase": "sks dog"}, dtype))
    assert found.format == dialect.partition("_")[0]
    assert found.layout == "ssd-1b"
    assert found.facts == {
        "rank": 4,
        "alpha": 6.0 if "kohya" in dialect else 4.0,
        "trigger": "sks dog",
        "models": ["text_encoder", "text_encoder_2", "unet"],
        "dora": False,
        "targets": "transformer",
        "layouts": ["ssd-1b"],
        "widths": {
            "unet.1": 48, "unet.2": 64, "context": 128, "text_encoder": 48, "text_encoder_2": 80,
        },
        "warnings": [],
    }  # fmt: skip


@pytest.mark.parametrize("dialect", [loras.processors, loras.bare_processors])
def test_old_attention_processors(dialect: loras.Dialect) -> None:
    found = looked_at(file_of(loras.spelt(dialect, loras.unet_pairs(modules=ATTENTION))))
    assert (found.format, found.layout) == ("diffusers", "ssd-1b")
    assert found.facts["targets"] == "attention"


@pytest.mark.parametrize("layout", [SDXL, SSD_1B, VEGA], ids=lambda layout: layout.id)
def test_the_layout_is_told_by_the_blocks(layout: Layout) -> None:
    pairs = loras.unet_pairs(layout, widths=REAL_WIDTHS, rank=1)
    found = looked_at(file_of(loras.spelt(loras.kohya_sgm, pairs), dtype="F16"))
    assert (found.layout, found.facts["warnings"]) == (layout.id, [])
    assert found.facts["widths"] == {"unet.1": 640, "unet.2": 1280, "context": 2048}


@pytest.mark.parametrize(
    ("modules", "fits"),
    [
        ((PROJ_IN,), ["sdxl", "ssd-1b", "vega"]),
        (("down_blocks.2.attentions.0.transformer_blocks.3.attn1.to_q",), ["sdxl", "ssd-1b"]),
        (("mid_block.attentions.0.proj_out",), ["sdxl"]),
        ((*ATTENTION, "mid_block.attentions.0.proj_out"), ["sdxl"]),
    ],
)
def test_a_part_may_fit_several(modules: tuple[str, ...], fits: list[str]) -> None:
    tensors = loras.spelt(loras.peft, loras.unet_pairs(modules=modules))
    found = looked_at(file_of(tensors))
    assert found.facts["layouts"] == fits
    assert found.layout == (fits[0] if len(fits) == 1 else None)
    assert [each["code"] for each in found.facts["warnings"]] == [UNTOLD] * (len(fits) > 1)
    ours = looked_at(file_of(tensors, {"stillroom.layout": "sdxl"}))
    assert (ours.layout, ours.facts["warnings"]) == ("sdxl", [])


def test_text_encoders_alone_fit_every_layout() -> None:
    found = looked_at(file_of(loras.spelt(loras.kohya, loras.text_pairs())))
    assert found.facts["layouts"] == ["sdxl", "ssd-1b", "vega"]
    assert found.facts["targets"] is None


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"stillroom.layout": "vega"}, "says that it is for vega"),
        ({"ss_base_model_version": "sd_v1"}, "'sd_v1'"),
        ({"modelspec.architecture": "flux-1-dev/lora"}, "'flux-1-dev/lora'"),
    ],
)
def test_another_base_in_the_metadata_is_a_warning(metadata: dict[str, str], words: str) -> None:
    tensors = loras.spelt(loras.peft, loras.unet_pairs(modules=ATTENTION))
    found = looked_at(file_of(tensors, metadata))
    assert found.layout == "ssd-1b"
    ((warning),) = found.facts["warnings"]
    assert warning["code"] == UNTOLD
    assert words in warning["detail"]


@pytest.mark.parametrize(
    "metadata",
    [
        {"ss_base_model_version": "sdxl_base_v1-0"},
        {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"},
        {"modelspec.trigger_phrase": "a\0b", "stillroom.layout": "sd3"},
    ],
)
def test_the_familys_own_names_are_no_warning(metadata: dict[str, str]) -> None:
    tensors = loras.spelt(loras.peft, loras.unet_pairs(modules=ATTENTION))
    facts = looked_at(file_of(tensors, metadata)).facts
    assert (facts["warnings"], facts["trigger"]) == ([], None)


def test_ranks_and_alphas_that_differ_are_told_as_none() -> None:
    pairs = loras.unet_pairs(modules=ATTENTION[:1], rank=4)
    pairs |= loras.unet_pairs(modules=ATTENTION[1:], rank=2)
    facts = looked_at(file_of(loras.spelt(loras.peft, pairs))).facts
    assert (facts["rank"], facts["alpha"], facts["targets"]) == (None, None, "attention")


def test_one_pixel_convolutions_are_linear() -> None:
    found = looked_at(changed(down=np.ones((2, 48, 1, 1)), up=np.ones((48, 2, 1, 1))))
    assert found.facts["rank"] == 2


@pytest.mark.parametrize("shape", [(48,), (48, 1), (48, 1, 1, 1)])
def test_doras_lengths_by_output(shape: tuple[int, ...]) -> None:
    assert looked_at(changed(dora_scale=np.ones(shape))).facts["dora"] is True


@pytest.mark.parametrize("alpha", [np.array(3.0), np.array([3.0])])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_an_alpha_of_one_number(alpha: Array, dtype: str) -> None:
    content = file_of({**SMALL, f"{KEY}.alpha": alpha}, dtype=dtype)
    assert looked_at(content).facts["alpha"] == 3.0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (changed(down=np.ones((2, 48, 3, 3))), "LoCon"),
        (changed(down=np.ones(96)), "no matrix"),
        (changed(down=np.ones((2, 3, 16))), "no matrix"),
        (changed(down=np.ones((3, 48))), "rank 3 .* rank 2"),
        (changed(down=np.ones((0, 48)), up=np.ones((48, 0))), "ranks from 1 to 512"),
        (changed(down=np.ones((600, 48)), up=np.ones((48, 600))), "ranks from 1 to 512"),
        (changed(down=np.ones((2, 0))), "of shape"),
        (changed(down=None), "lacks `.*lora_down.weight`, the other half of"),
        (changed(up=None), "lacks `.*lora_up.weight`, the other half of"),
        (changed(down=None, up=None, alpha=np.array(1)), "stands without the matrices"),
        (changed(alpha=np.ones(2)), "not one number"),
        (changed(alpha=np.ones((1, 1))), "not one number"),
        (changed(dora_scale=np.ones((1, 48))), "wd_on_output"),
        (changed(dora_scale=np.ones(2)), "wd_on_output"),
        (changed(dora_scale=np.array(1)), "wd_on_output"),
        (file_of({**SMALL, **loras.spelt(loras.peft, loras.unet_pairs(modules=(PROJ_IN,)))}),
         "are the same matrix"),
        (file_of(SMALL, {"lora_adapter_metadata": "["}), "no JSON"),
        (file_of(SMALL, {"lora_adapter_metadata": "[]"}), "no JSON object"),
        (file_of(SMALL, {"lora_adapter_metadata": '{"unet.lora_alpha": "8"}'}), "no number"),
        (file_of(SMALL, {"lora_adapter_metadata": '{"unet.lora_alpha": true}'}), "no number"),
        (file_of(SMALL, {"lora_adapter_metadata": '{"unet.lora_alpha": NaN}'}), "no number"),
        (file_of(SMALL, {"lora_adapter_metadata": '{"unet.lora_alpha": 1e400}'}), "no number"),
        (file_of(SMALL, {"lora_adapter_metadata": '{"unet.alpha_pattern": [1]}'}), "no table"),
        (file_of(SMALL, {"lora_adapter_metadata": "[" * 100_000}), "no JSON"),
    ],
)  # fmt: skip
def test_malformed_ones_are_refused_by_name(content: bytes, words: str) -> None:
    told = refused(content)
    assert told.code in ("malformed_lora", "unsupported_lora")
    with pytest.raises(Unprocessable, match=words):
        looked_at(content)


def test_the_rank_cap_itself_is_taken() -> None:
    content = changed(down=np.ones((MAX_RANK, 48)), up=np.ones((48, MAX_RANK)))
    assert looked_at(content).facts["rank"] == MAX_RANK


@pytest.mark.parametrize("dtype", ["F64", "I8", "F8_E4M3", "I64"])
def test_other_dtypes_are_refused_by_name(dtype: str) -> None:
    item = {"F64": 8, "I64": 8}.get(dtype, 1)
    (down, a), (up, _) = SMALL.items()
    content = raw_file({
        down: (dtype, list(a.shape), b"\0" * a.size * item), up: ("F16", [48, 2], b"\0" * 192),
    })  # fmt: skip
    told = refused(content)
    assert (told.code, down in told.detail, dtype in told.detail) == ("malformed_lora", True, True)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("end", ["lora_down.weight", "lora_up.weight", "alpha", "dora_scale"])
def test_one_value_that_is_not_finite(end: str, dtype: str, bad: float) -> None:
    tensors: dict[str, Array] = {key: array.copy() for key, array in SMALL.items()}
    tensors |= {f"{KEY}.alpha": np.array(1.0), f"{KEY}.dora_scale": np.ones(48)}
    tensors[f"{KEY}.{end}"].flat[-1] = bad
    told = refused(file_of(tensors, dtype=dtype))
    assert (told.code, f"`{KEY}.{end}`" in told.detail) == ("not_finite", True)


def test_values_are_looked_at_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "_CHUNK_BYTES", 8)
    tensors: dict[str, Array] = {key: array.copy() for key, array in SMALL.items()}
    looked_at(file_of(tensors))
    tensors[f"{KEY}.lora_up.weight"][30, 1] = np.nan
    assert refused(file_of(tensors)).code == "not_finite"


def test_the_largest_finite_values_are_taken() -> None:
    for dtype, largest in {"F32": 3.4e38, "F16": 65504, "BF16": 3.38e38}.items():
        looked_at(file_of({key: array * largest for key, array in SMALL.items()}, dtype=dtype))


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((48, 64), "takes 48 channels to 64"),
        ((50, 50), None),
    ],
)
def test_sizes_that_no_model_of_the_family_has(size: tuple[int, int], words: str | None) -> None:
    """A width that nobody has is an admission's to refuse; here only what contradicts itself."""
    inner, outer = size
    content = changed(down=np.ones((2, inner)), up=np.ones((outer, 2)))
    if words:
        assert words in refused(content, LayoutMismatch).detail
    else:
        assert looked_at(content).facts["widths"] == {"unet.1": 50}


def test_two_widths_at_one_level() -> None:
    other = loras.unet_pairs(modules=("up_blocks.1.attentions.2.proj_out",), widths=REAL_WIDTHS)
    told = refused(file_of({**SMALL, **loras.spelt(loras.kohya, other)}), LayoutMismatch)
    assert "up_blocks.1.attentions.2.proj_out" in told.detail
    assert PROJ_IN in told.detail


@pytest.mark.parametrize(
    "path", ["x.to_q", "down_blocks.0.attentions.0.proj_in", "mid_block", "add_embedding.linear_1"]
)
def test_modules_that_the_family_lacks(path: str) -> None:
    down, up = f"unet.{path}.lora_A.weight", f"unet.{path}.lora_B.weight"
    told = refused(file_of({down: np.ones((2, 4)), up: np.ones((4, 2))}), LayoutMismatch)
    assert down in told.detail


def test_a_whole_model_is_called_one() -> None:
    unet = bases.NANO_SSD_1B / "unet" / "diffusion_pytorch_model.safetensors"
    told = refused(unet.read_bytes())
    assert (told.code, "whole model" in told.detail) == ("not_a_lora", True)


def tar(members: dict[str, bytes], mode: Any) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("unpickled"),)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (pickle.dumps(Bomb()), "a pickle"),
        (pickle.dumps({"a": 1}, protocol=4), "a pickle"),
        (uploads.zip_of({"archive/data.pkl": b"x" * 100}), "a zip"),
        (tar({"lora.safetensors": b"x" * 100, "embeddings.pti": b"x"}, "w"), "trained_model.tar"),
        (tar({"lora.safetensors": b"x" * 100}, "w:gz"), "archive"),
        (uploads.picture(), "no safetensors file"),
        (b"", "no safetensors file"),
        (b"{}", "no safetensors file"),
    ],
)  # fmt: skip
def test_other_files_are_called_by_their_names(
    content: bytes, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    told = refused(content)
    assert (told.code, words in told.detail) == ("not_safetensors", True)
    assert "dog.safetensors" in told.detail
    assert list(tmp_path.iterdir()) == []


def test_what_torch_saves_is_never_opened(tmp_path: Path) -> None:
    for legacy in (True, False):
        torch.save({"a": torch.zeros(2)}, tmp_path / "x", _use_new_zipfile_serialization=legacy)
        assert refused((tmp_path / "x").read_bytes()).code == "not_safetensors"


def test_half_a_file_and_an_empty_one() -> None:
    content = file_of(SMALL)
    assert refused(content[:-1]).code == "truncated"
    assert refused(content + b"\0").code == "truncated"
    assert refused(file_of({})).code == "not_a_lora"
