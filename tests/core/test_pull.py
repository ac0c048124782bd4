"""Pulling a base: what is fetched, what is said, and that half of one never looks like a whole."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from core import bases
from core.bases import FP16_VAE
from core.config import Settings
from core.errors import BaseUnknown, Conflict, Unavailable
from core.pull import pull, pull_parts
from tests.support.hub import Hub, serving

UNET = "unet/diffusion_pytorch_model.fp16.safetensors"
REPOSITORY = {
    "model_index.json": b'{"_class_name": "StableDiffusionXLPipeline"}',
    "README.md": b"words",
    "SSD-1B.safetensors": b"one file for other programs",
    "scheduler/scheduler_config.json": b"{}",
    "text_encoder/config.json": b"{}",
    "text_encoder/model.safetensors": b"full precision",
    "text_encoder/model.fp16.safetensors": b"half",
    "text_encoder_2/config.json": b"{}",
    "text_encoder_2/model.safetensors": b"only in full",
    "tokenizer/vocab.json": b"{}",
    "tokenizer/merges.txt": b"",
    "tokenizer_2/vocab.json": b"{}",
    "unet/config.json": b"{}",
    "unet/diffusion_pytorch_model.safetensors": b"full precision",
    UNET: b"u" * 30_000_000,  # more than the client reads at once, so that half of it is kept
    "vae/config.json": b"their own",
    "vae/diffusion_pytorch_model.safetensors": b"overflows",
}
VAE = {
    "config.json": b"the fixed one",
    "diffusion_pytorch_model.safetensors": b"does not overflow",
    "sdxl_vae.safetensors": b"for other programs",
}
KEPT = {
    "model_index.json": REPOSITORY["model_index.json"],
    "scheduler/scheduler_config.json": b"{}",
    "text_encoder/config.json": b"{}",
    "text_encoder/model.safetensors": b"half",
    "text_encoder_2/config.json": b"{}",
    "text_encoder_2/model.safetensors": b"only in full",
    "tokenizer/vocab.json": b"{}",
    "tokenizer/merges.txt": b"",
    "tokenizer_2/vocab.json": b"{}",
    "unet/config.json": b"{}",
    "unet/diffusion_pytorch_model.safetensors": REPOSITORY[UNET],
    "vae/config.json": b"the fixed one",
    "vae/diffusion_pytorch_model.safetensors": b"does not overflow",
}


@pytest.fixture
def hub() -> Hub:
    return Hub({"segmind/SSD-1B": dict(REPOSITORY), FP16_VAE.repository: dict(VAE)})


@pytest.fixture
def settings(tmp_path: Path, hub: Hub) -> Iterator[Settings]:
    with serving(hub) as url:
        settings = Settings(home=tmp_path / "home", hub_url=url)
        settings.prepare()
        yield settings


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_one_whole_pipeline_in_half_precision(settings: Settings) -> None:
    said: list[str] = []
    folder = pull("ssd-1b", settings, said.append)
    assert folder == settings.models_path / "ssd-1b"
    assert files_of(folder) == KEPT
    assert [path.name for path in settings.models_path.iterdir()] == ["ssd-1b"]
    assert said[0].startswith(f"ssd-1b: {len(KEPT)} files, 0.03 GB, into {folder}")
    assert "ssd-1b" in bases.ids_here(settings)


def test_pulling_again_fetches_nothing(settings: Settings, hub: Hub) -> None:
    pull("ssd-1b", settings, lambda _: None)
    hub.served.clear()
    said: list[str] = []
    pull("ssd-1b", settings, said.append)
    assert hub.served == []
    assert "here already" in said[0]


def test_a_pull_that_breaks_off_goes_on_where_it_was(settings: Settings, hub: Hub) -> None:
    hub.cut = UNET
    pull("ssd-1b", settings, lambda _: None)
    (resumed,) = hub.ranges
    assert resumed != "bytes=0-"
    assert hub.served.count(UNET) == 2
    assert files_of(settings.models_path / "ssd-1b") == KEPT


def test_a_file_with_the_wrong_hash_is_deleted_and_named(settings: Settings, hub: Hub) -> None:
    hub.lie = UNET
    with pytest.raises(Conflict, match=f"{UNET}.*has not the hash"):
        pull("ssd-1b", settings, lambda _: None)
    assert not bases.is_here(bases.find("ssd-1b"), settings)
    assert not list(settings.models_path.rglob(Path(UNET).name))
    hub.lie = None
    pull("ssd-1b", settings, lambda _: None)
    assert files_of(settings.models_path / "ssd-1b") == KEPT


def test_a_hub_that_is_away(settings: Settings) -> None:
    away = settings.model_copy(update={"hub_url": "http://127.0.0.1:1"})
    with pytest.raises(Unavailable, match="segmind/SSD-1B"):
        pull("ssd-1b", away, lambda _: None)


def test_what_cannot_be_pulled(settings: Settings) -> None:
    with pytest.raises(Conflict, match="comes with the package"):
        pull("nano-sdxl", settings, lambda _: None)
    with pytest.raises(BaseUnknown, match="'sd3'"):
        pull("sd3", settings, lambda _: None)


def test_what_a_checkpoint_lacks_is_pulled_alone(settings: Settings, hub: Hub) -> None:
    said: list[str] = []
    folder = pull_parts(settings, said.append)
    assert folder == settings.models_path / "parts"
    assert files_of(folder) == {
        path: content
        for path, content in KEPT.items()
        if path.startswith(("tokenizer/", "tokenizer_2/", "vae/"))
    }
    assert "parts" not in bases.ids_here(settings)
    hub.served.clear()
    assert pull_parts(settings, said.append) == folder
    assert hub.served == []


def test_a_folder_of_the_administrators_stands_in(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model_index.json").write_text("{}")
    given = settings.model_copy(update={"bases": {"sdxl": tmp_path / "mine"}})
    assert bases.folder(bases.find("sdxl"), given) == tmp_path / "mine"
    assert bases.ids_here(given) == ["sdxl", "nano-sdxl", "nano-ssd-1b"]


def test_the_counts_of_the_catalogue() -> None:
    parameters = [bases.find(base).parameters for base in ("sdxl", "ssd-1b", "vega")]
    assert parameters == [2_567_463_684, 1_331_334_404, 745_225_604]
