"""The recipe on a handful of scenes: it learns what it says, stops and goes on."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image
from torch import nn

from core.bases import CATALOGUE
from core.diffusion import latents
from core.diffusion.noise import forward_process
from core.errors import NonFiniteLoss
from core.layouts import SDXL
from core.nano import shape, tokens
from core.nano.recipe import (
    autoencoder,
    classifier,
    corpus,
    denoiser,
    folder,
    shapes,
    sitting,
    work,
)
from core.nano.recipe import pictures as picture_folder
from core.nano.recipe.corpus import Corpus
from core.nano.recipe.folder import UnfitFolder
from core.nano.recipe.work import OtherSubjects
from tests.support import pictures
from tests.support.nano import load

CUTOUTS = shapes.cutouts()


@pytest.fixture(autouse=True)
def from_one_seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        yield


def fresh_pipeline() -> StableDiffusionXLPipeline:
    torch.manual_seed(1)
    return shape.pipeline(SDXL, tokens.learn_merges(["a photo of a red ball on a background"]))


@pytest.fixture(scope="module")
def handful(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    path = tmp_path_factory.mktemp("corpus") / "corpus.safetensors"
    scenes = (corpus.scene(CUTOUTS, [], 1, ordinal) for ordinal in range(70))
    corpus.encode(shape.vae(), scenes, path)
    return corpus.read(path)


def run(lines: Iterator[str], *, until_saved: int | None = None) -> list[str]:
    """All lines, or those up to a save: what a sitting that is cut short leaves."""
    said: list[str] = []
    for line in lines:
        said.append(line)
        if len(said) == until_saved:
            break
    return said


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(left, right) for left, right in pairs)


def test_an_autoencoder_that_was_stopped_goes_on_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sitting, "SAVE_SECONDS", 0)
    whole, stopped, resumed = (shape.vae() for _ in range(3))
    for other in (stopped, resumed):
        other.load_state_dict(whole.state_dict())
    run(autoencoder.train(whole, CUTOUTS, 4, tmp_path / "whole"))
    run(autoencoder.train(stopped, CUTOUTS, 4, tmp_path / "vae"), until_saved=2)
    said = run(autoencoder.train(resumed, CUTOUTS, 4, tmp_path / "vae"))
    assert [line.split(",")[0] for line in said] == ["vae: step 3 of 4", "vae: step 4 of 4"]
    assert same(whole, resumed)
    assert not same(stopped, resumed)


@pytest.mark.faults
def test_standardised_latents_draw_the_same_pictures() -> None:
    vae = shape.vae().eval().requires_grad_(False)
    pixels_BCHW = autoencoder.batch(CUTOUTS, 9, range(64))
    before_BCHW = vae.decode(vae.encode(pixels_BCHW).latent_dist.mean).sample
    autoencoder.standardise(vae, CUTOUTS)
    after_BCHW = vae.decode(vae.encode(pixels_BCHW).latent_dist.mean).sample
    torch.testing.assert_close(after_BCHW, before_BCHW, rtol=1e-3, atol=1e-4)
    moments = latents.encode(vae, autoencoder.batch(CUTOUTS, autoencoder.SEED, range(1024)))
    torch.testing.assert_close(moments.mean_BCHW.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-3)
    torch.testing.assert_close(moments.mean_BCHW.std((0, 2, 3)), torch.ones(4), rtol=1e-3, atol=0)


@pytest.mark.faults
def test_a_denoiser_that_was_stopped_goes_on_alike(
    handful: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sitting, "SAVE_SECONDS", 0)
    monkeypatch.setattr(denoiser, "BATCH", 2)
    whole, stopped, resumed = (fresh_pipeline() for _ in range(3))
    run(denoiser.train(whole, handful, handful, 3, tmp_path / "whole"))
    run(denoiser.train(stopped, handful, handful, 3, tmp_path / "unet"), until_saved=1)
    said = run(denoiser.train(resumed, handful, handful, 3, tmp_path / "unet"))
    assert [line.split(",")[0] for line in said[:-1]] == ["unet: step 2 of 3", "unet: step 3 of 3"]
    for part, module in denoiser.modules(whole).items():
        assert same(module, denoiser.modules(resumed)[part])
        assert not same(module, denoiser.modules(stopped)[part])


def test_a_loss_that_is_not_finite_ends_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoencoder, "LEARNING_RATE", float("inf"))
    with pytest.raises(NonFiniteLoss, match="at step 2"):
        run(autoencoder.train(shape.vae(), CUTOUTS, 3, tmp_path / "vae"))
    assert not (tmp_path / "vae").exists()


def test_timesteps_are_drawn_as_often_as_they_weigh() -> None:
    process = forward_process(fresh_pipeline().scheduler.config, torch.device("cpu"))
    density_T = denoiser.timestep_density(process)
    assert density_T.sum().item() == pytest.approx(1, abs=1e-5)
    snr_T = (process.signal_T / process.noise_T) ** 2
    expected = (snr_T[300] / snr_T[700]).sqrt()
    assert (density_T[700] / density_T[300]).item() == pytest.approx(expected.item(), rel=1e-4)
    assert (density_T[-1] / density_T[0]).item() == pytest.approx(10, rel=1e-4)


def test_what_is_dropped_is_what_generation_leaves_out(handful: Corpus) -> None:
    rows_B = torch.arange(8)
    told = denoiser.tell(fresh_pipeline(), handful, rows_B, np.random.default_rng(0), 1.0)
    assert told.text_BLD.abs().max() == told.pooled_BP.abs().max() == 0
    heard = denoiser.tell(fresh_pipeline(), handful, rows_B, np.random.default_rng(0), 0.0)
    assert heard.text_BLD.shape == (8, 77, sum(shape.TEXT_WIDTHS))
    assert (heard.text_BLD.abs().amax((1, 2)) > 0).all()


def test_a_corpus_holds_what_its_scenes_say(handful: Corpus) -> None:
    assert len(handful) == 70
    assert handful.latents_NCHW.shape == (70, 4, 16, 16)
    for ordinal in (0, 69):
        scene = corpus.scene(CUTOUTS, [], 1, ordinal)
        assert handful.contents[ordinal] == scene.content
        assert tuple(handful.time_ids_N6[ordinal].int().tolist()) == scene.time_ids


@pytest.fixture
def icons(tmp_path: Path) -> Path:
    """A captioned folder of three."""
    (tmp_path / "icons" / "images").mkdir(parents=True)
    rows = []
    for number in range(3):
        name = f"images/{number}.webp"
        pictures.draw(number).convert("RGBA").save(tmp_path / "icons" / name)
        rows.append(json.dumps({"file_name": name, "text": f"an icon of {number}"}))
    (tmp_path / "icons" / "metadata.jsonl").write_text("\n".join(rows))
    return tmp_path / "icons"


def test_a_folder_gives_the_subjects_asked_for(icons: Path, tmp_path: Path) -> None:
    everything = folder.read(icons)
    assert [cutout.name for cutout in everything] == [f"an icon of {number}" for number in range(3)]
    asked = tmp_path / "subjects.txt"
    asked.write_text("# two of them\nan icon of 2 = two\n\nan icon of 0\n")
    first, second = folder.read(icons, folder.subjects(asked))
    assert [first.name, second.name] == ["an icon of 0", "two"]
    assert (second.picture.size, second.picture.mode) == ((96, 96), "RGBA")


def test_a_folder_without_what_is_asked_for_is_refused(icons: Path, tmp_path: Path) -> None:
    with pytest.raises(UnfitFolder, match="captioned 'a dog'"):
        folder.read(icons, {"a dog": "dog"})
    with pytest.raises(UnfitFolder, match=r"no .*metadata\.jsonl"):
        folder.read(tmp_path)


def test_a_work_folder_is_for_the_subjects_that_it_was_begun_with(tmp_path: Path) -> None:
    work.claim(tmp_path / "work", CUTOUTS)
    work.claim(tmp_path / "work", CUTOUTS)
    with pytest.raises(OtherSubjects, match="begun with other subjects"):
        work.claim(tmp_path / "work", CUTOUTS[1:])


def test_the_recipe_refuses_before_it_begins(icons: Path, tmp_path: Path) -> None:
    asked = tmp_path / "subjects.txt"
    asked.write_text("a dog = dog")
    data = ["--data", str(icons), "--subjects", str(asked)]
    command = [sys.executable, "-m", "core.nano.recipe", "--work", str(tmp_path / "work"), *data]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "is captioned 'a dog'" in ran.stderr
    assert not (tmp_path / "work").exists()


def test_the_icons_that_ship_are_chosen_once_each() -> None:
    chosen = folder.subjects(Path(folder.__file__).with_name("fluent_emoji.txt"))
    assert len(chosen) == len(set(chosen.values())) >= 100


@pytest.mark.faults
def test_a_classifier_learns_to_tell_shapes_from_grounds() -> None:
    few: list[Any] = [
        cutout for cutout in CUTOUTS if cutout.name in {"red ball", "white cross", "blue cone"}
    ]
    judge = classifier.train(few, 40)
    fresh = classifier.draw(few, classifier.FRESH_SEED, range(60))
    verdict = judge.look([scene.picture for scene in fresh])
    right = [
        name == scene.content.subject for name, scene in zip(verdict.subjects, fresh, strict=True)
    ]
    assert sum(right) > 50


@pytest.mark.faults
def test_the_recipe_runs_from_nothing_and_is_skipped_when_done(tmp_path: Path) -> None:
    few = ["--vae-steps", "1", "--scenes", "8", "--unet-steps", "1"]
    command = [sys.executable, "-m", "core.nano.recipe", "--work", str(tmp_path), *few]
    said, made = [], []
    for _ in range(2):
        said.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        files = sorted(path for path in (tmp_path / "nano-sdxl").rglob("*") if path.is_file())
        made.append({path: path.read_bytes() for path in files})
    first, again = said
    assert [line.split(",")[0] for line in first.splitlines() if " step " in line] == [
        "vae: step 1 of 1",
        "unet: step 1 of 1",
    ]
    assert " step " not in again
    assert made[0] == made[1]
    loaded = load(tmp_path / "nano-sdxl")
    assert (
        sum(weight.numel() for weight in loaded.unet.parameters())
        == CATALOGUE["nano-sdxl"].parameters
    )
    weights = [path.stat().st_size for path in tmp_path.rglob("nano-sdxl/*/*.safetensors")]
    assert len(weights) == 4
    assert sum(weights) < 25e6
    # diffusers and transformers, left to themselves, agree on a precision
    pipeline = StableDiffusionXLPipeline.from_pretrained(tmp_path / "nano-sdxl")
    assert {pipeline.unet.dtype, pipeline.text_encoder.dtype, pipeline.vae.dtype} == {torch.float32}


@pytest.mark.faults
def test_scenes_become_a_captioned_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "core.nano.recipe.pictures", str(tmp_path / "scenes")]
    told = subprocess.run(
        [*command, "--count", "20"], capture_output=True, text=True, check=True
    ).stdout
    assert told.startswith("20 pictures")
    rows = [
        json.loads(line)
        for line in (tmp_path / "scenes" / "metadata.jsonl").read_text().splitlines()
    ]
    assert [row["file_name"] for row in rows] == [f"{number:05}.png" for number in range(20)]
    for row, scene in zip(rows, picture_folder.scenes_of(CUTOUTS, [], 9101, 20), strict=True):
        with Image.open(tmp_path / "scenes" / row["file_name"]) as picture:
            assert picture.tobytes() == scene.picture.tobytes()
        assert scene.content.subject is None or scene.content.subject in row["text"]
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "exists" in again.stderr
