"""Verbs against the API over a real socket."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.client import Client
from api.commands import recipes
from core import bases
from core.specs import SPECS, DistillSpec, FineTuneSpec, GenerateSpec
from tests.api.cli.conftest import Run, last_id
from tests.api.live import Live
from tests.support import loras


def test_dataset_is_created_filled_listed_and_shown(on_server: Run, pictures: Path) -> None:
    code, out, err = on_server("dataset", "create", "robot", str(pictures))
    assert code == 0
    assert "5 new; robot now holds 5 pictures" in err
    dataset = out.strip()
    code, out, err = on_server("dataset", "upload", dataset, str(pictures / "robot-1.png"))
    assert code == 0
    assert "0 new" in err
    listed = {
        row.split("\t")[0]: row.split("\t")[1:]
        for row in on_server("dataset", "list")[1].splitlines()
    }
    assert listed[dataset] == ["robot", "instance", "5", "ready"]
    shown = on_server("dataset", "show", dataset)[1]
    assert "robot-3.png\t256x256" in shown
    assert "advice\t5 of 5 pictures have a side below 512 pixels" in shown


def test_no_dataset_is_left_of_what_could_not_begin(
    on_server: Run, pictures: Path, tmp_path: Path
) -> None:
    before = on_server("dataset", "list")[1]
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "empty").mkdir()
    for path in ("typo", "empty"):
        code, out, err = on_server("dataset", "create", "dog", str(tmp_path / path))
        assert (code, out, err.count("\n")) == (1, "", 1)
    draw = ("generate", "a robot", "--base", "nano-ssd-1b", "--from")
    picture = str(pictures / "robot-1.png")
    for start in (tmp_path / "typo", tmp_path / "empty", tmp_path / "notes.txt"):
        code, out, err = on_server(*draw, str(start))
        assert (code, out, start.stem in err) == (1, "", True)
    assert on_server(*draw, picture, "--dry-run")[0] == 0
    assert on_server(*draw, picture, "--steps", "100000")[0] == 1
    assert on_server("dataset", "list")[1] == before
    job = on_server(*draw, picture)[1].strip()
    assert "robot-1.png" in on_server("dataset", "list")[1]
    on_server("cancel", job)


def test_a_dataset_whose_pictures_are_refused_is_named(on_server: Run, tmp_path: Path) -> None:
    (tmp_path / "dog.jpg").write_text("no picture")
    code, out, err = on_server("dataset", "create", "dog", str(tmp_path))
    assert (code, out) == (1, "")
    dataset = last_id(err)
    assert f"go on with `stillroom dataset upload {dataset}`" in err
    assert on_server("dataset", "show", dataset)[0] == 0


def test_job_is_submitted_listed_shown_cancelled_and_watched(
    on_server: Run, pictures: Path
) -> None:
    dataset = on_server("dataset", "create", "robot", str(pictures))[1].strip()
    code, out, err = on_server(
        "fine-tune", "--base", "nano-ssd-1b", "--dataset", dataset,
        "--instance-prompt", "a photo of sks robot", "--steps", "3", "--rank", "4",
        "--class-prompt", "a photo of a robot", "--prior-images", "9",
        "--no-flip", "--sample-prompt", "a robot", "--sample-every", "2",
        "--name", "mine", "--label", "for:a test",
    )  # fmt: skip
    job = out.strip()
    assert code == 0
    assert f"stillroom watch {job}" in err
    assert f"{job}\tfine_tune\tqueued\t\tmine" in on_server("jobs", "--state", "queued")[1]
    shown = on_server("jobs", "show", job)[1]
    assert "state\tqueued" in shown
    assert "'rank': 4" in shown
    assert "'images': 9" in shown
    assert on_server("cancel", job) == (0, "", f"{job} is cancelled.\n")
    assert on_server("watch", job) == (2, "", f"{job} cancelled.\n")


def test_a_recipe_trains_and_a_job_gives_its_recipe_back(
    on_server: Run, pictures: Path, tmp_path: Path
) -> None:
    dataset = on_server("dataset", "create", "dog", str(pictures))[1].strip()
    first = on_server(
        "train", "ssd_1b_dreambooth_lora_dog", "--dataset", dataset, "--base", "nano-ssd-1b",
        "--set", "steps=20", "--set", "lora.rank=4", "--set", "lora.alpha=2",
    )[1].strip()  # fmt: skip
    shown = on_server("jobs", "show", first)[1]
    for words in ("precision\tfp16", "batch_size\t2", "steps\t20", "'alpha': 2.0"):
        assert words in shown
    file = tmp_path / "dog.json"
    assert on_server("jobs", "spec", first, "--to", str(file))[0] == 0
    assert recipes.read(str(file))[1]["prior"] is None
    images = ("--set", "prior.images=10", "--dry-run")
    assert "`prior` needs `class_prompt`" in on_server("train", str(file), *images)[2]
    second = on_server("train", str(file))[1].strip()
    assert on_server("jobs", "spec", second)[1] == on_server("jobs", "spec", first)[1]
    (asked,) = (each for each in shown.splitlines() if each.startswith("spec sha256"))
    assert asked in on_server("jobs", "show", second)[1]
    for job in (first, second):
        on_server("cancel", job)


def test_a_dry_run_tells_what_it_would_take(on_server: Run, pictures: Path) -> None:
    dataset = on_server("dataset", "create", "dry", str(pictures))[1].strip()
    before = on_server("jobs")[1]
    given = ("--dataset", dataset, "--dry-run")
    named = ("--base", "nano-ssd-1b", "--instance-prompt", "sks")
    for command in (
        ("fine-tune", *named, *given),
        ("train", "ssd_1b_dreambooth_lora_dog", "--base", "nano-ssd-1b", *given),
        ("generate", "a robot", "--base", "nano-ssd-1b", "--dry-run"),
    ):
        code, out, err = on_server(*command)
        assert (code, err) == (0, "")
        told = dict(each.split("\t") for each in out.splitlines())
        assert set(told) == {"steps", "takes", "told by", "memory", "disk", "fits"}
        assert told["fits"] == "yes"
    assert on_server("jobs")[1] == before


def test_a_distillation_is_submitted_paused_and_resumed(on_server: Run, captioned: Path) -> None:
    dataset = on_server("dataset", "create", "robots", str(captioned))[1].strip()
    job = on_server(
        "distill", "--teacher", "nano-sdxl", "--dataset", dataset, "--steps", "3",
        "--student-layout", "vega", "--student-layer", "3", "--student-layer", "7",
        "--loss-feature", "0.1", "--sample-prompt", "a robot",
    )[1].strip()  # fmt: skip
    shown = on_server("jobs", "show", job)[1]
    for words in ("kind\tdistill", "'layers': [3, 7]", "'feature': 0.1", "'a robot'"):
        assert words in shown
    code, _, err = on_server("pause", job)
    assert (code, err.split(";")[0]) == (0, f"{job} is paused")
    assert on_server("resume", job) == (0, "", f"{job} is queued.\n")
    for command in (
        ("generate", "x", "--base", job),
        ("fine-tune", "--base", job, "--dataset", dataset, "--instance-prompt", "x"),
        ("distill", "--teacher", "nano-sdxl", "--dataset", dataset, "--student-init", "pretrained",
         "--student-weights", job),
    ):  # fmt: skip
        code, _, err = on_server(*command)
        assert (code, err.split(".")[0]) == (1, f"{job} has made no UNet: it is queued")
    on_server("cancel", job)
    code, _, err = on_server("pause", job)
    assert (code, "has ended (cancelled)" in err) == (1, True)


@pytest.mark.parametrize(
    "recipe", ["ssd_1b_distill_from_sdxl_pokemon_blip", "ssd_1b_distill_pokemon_blip"]
)
def test_both_distill_recipes_run_with_a_small_teacher(
    recipe: str, on_server: Run, captioned: Path
) -> None:
    dataset = on_server("dataset", "create", "robots", str(captioned))[1].strip()
    weights = ("--set", "student.weights=nano-ssd-1b") if "from_sdxl" not in recipe else ()
    job = on_server(
        "train", recipe, "--base", "nano-sdxl", "--dataset", dataset, *weights,
    )[1].strip()  # fmt: skip
    shown = on_server("jobs", "show", job)[1]
    for words in ("teacher\tnano-sdxl", "epochs\t50", "precision\tbf16", "batch_size\t2"):
        assert words in shown
    on_server("cancel", job)


def test_recipes_that_are_none(on_server: Run, tmp_path: Path) -> None:
    code, _, err = on_server("train", "ssd_1b_dreambooth_lora_cat")
    assert code == 1
    assert "ssd_1b_dreambooth_lora_dog" in err
    (tmp_path / "x.json").write_text("[]")
    assert "is no recipe" in on_server("train", str(tmp_path / "x.json"))[2]
    for spec in ("[]", "null"):
        (tmp_path / "x.json").write_text(f'{{"kind": "fine_tune", "spec": {spec}}}')
        assert "its `spec` an object" in on_server("train", str(tmp_path / "x.json"))[2]
    recipe = ("train", "ssd_1b_dreambooth_lora_dog")
    assert "FIELD=VALUE" in on_server(*recipe, "--set", "steps")[2]
    assert "base has no fields" in on_server(*recipe, "--set", "base.rank=2")[2]


def test_our_recipes_are_specs() -> None:
    kinds = {name: recipes.read(name)[0] for name in recipes.names()}
    assert kinds == {
        "ssd_1b_distill_from_sdxl_pokemon_blip": "distill",
        "ssd_1b_distill_pokemon_blip": "distill",
        "ssd_1b_dreambooth_lora_dog": "fine_tune",
    }
    for name, kind in kinds.items():
        SPECS[kind].model_validate({**recipes.read(name)[1], "dataset": "d"})


def test_extend_passes_the_steps_on(on_server: Run, pictures: Path) -> None:
    dataset = on_server("dataset", "create", "dog", str(pictures))[1].strip()
    job = on_server(
        "fine-tune", "--base", "nano-ssd-1b", "--dataset", dataset, "--instance-prompt", "x"
    )[1].strip()
    code, _, err = on_server("extend", job, "--steps", "5")
    assert code == 1
    assert "only a training that has succeeded" in err
    on_server("cancel", job)


def test_a_lora_is_uploaded_for_generate(on_server: Run, tmp_path: Path) -> None:
    path = tmp_path / "dog.safetensors"
    path.write_bytes(loras.file_of(loras.spelt(loras.kohya, loras.unet_pairs(rank=2), 1)))
    code, out, err = on_server("upload", str(path), "--name", "my dog")
    lora = out.strip()
    assert code == 0
    assert "kohya, layout ssd-1b, " in err
    assert on_server("upload", str(path))[1].strip() == lora
    job = on_server("generate", "x", "--base", "nano-ssd-1b", "--lora", f"{lora}:0.5")[1].strip()
    assert lora in on_server("jobs", "show", job)[1]
    on_server("cancel", job)
    part = loras.unet_pairs(modules=("down_blocks.1.attentions.0.proj_in",))
    path.write_bytes(loras.file_of(loras.spelt(loras.peft, part)))
    assert "use it with the base it was trained on" in on_server("upload", str(path))[2]
    path.write_bytes(b"x")
    code, out, err = on_server("upload", str(path))
    assert (code, out) == (1, "")
    assert "dog.safetensors is no safetensors file" in err


def test_generate_sends_what_was_given_and_no_more(
    run: Run, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []

    def take(_client: Client, kind: str, spec: Any, **about: Any) -> Any:
        assert kind == "generate"
        sent.append((spec, about))
        return {"id": "job_1"}

    monkeypatch.setattr(Client, "submit", take)
    where = ("--url", live.url, "--home", str(live.home))
    run("generate", "a robot", "--base", "nano-ssd-1b", *where)
    run(
        "generate", "one", "two", "--base", "x", "--lora", "art_1:0.5", "--lora", "art_2",
        "--seed", "7", "--priority", "-1", *where,
    )  # fmt: skip
    run(
        "generate", "x", "--base", "x", "--lora", "job_1:0.8", "--lora", "job_2",
        "--after", "job_3", "--deadline", "90", *where,
    )  # fmt: skip
    assert sent == [
        ({"base": "nano-ssd-1b", "prompt": "a robot"}, {}),
        (
            {
                "base": "x",
                "prompt": ["one", "two"],
                "loras": [{"artifact": "art_1", "weight": 0.5}, {"artifact": "art_2"}],
                "seed": 7,
            },
            {"priority": -1},
        ),
        (
            {
                "base": "x",
                "prompt": "x",
                "loras": [{"job": "job_1", "weight": 0.8}, {"job": "job_2"}],
            },
            {"after": "job_3", "deadline_seconds": 90},
        ),
    ]


@pytest.mark.parametrize(
    ("verb", "spec", "absent"),
    [
        ("fine-tune", FineTuneSpec, {"lora", "prior", "sample"}),
        ("distill", DistillSpec, {"student", "loss", "sample"}),
        ("generate", GenerateSpec, {"prompt", "loras", "image"}),
    ],
)
def test_every_field_that_this_version_honours_has_an_option(
    run: Run, verb: str, spec: Any, absent: set[str]
) -> None:
    """``absent``: fields with a single value, and those that are spelled otherwise."""
    _, out, _ = run(verb, "--help")
    options = set(re.findall(r"--([a-z-]+)", out))
    honoured = {
        name for name, field in spec.model_fields.items() if field.annotation is not type(None)
    }
    assert {name.replace("_", "-") for name in honoured - absent} <= options


def test_help_shows_the_defaults_of_the_spec(run: Run) -> None:
    words = " ".join(run("fine-tune", "--help")[1].split())
    assert "AdamW's decoupled decay. [default: 0.01]" in words
    assert "constant, cosine, linear [default: constant]" in words


def test_keys_are_created_used_and_deleted(
    on_server: Run, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = on_server("keys", "create", "ci", "--owner", "robots", "--scope", "read")
    assert code == 0
    assert "acts for robots with read" in err
    key_id = last_id(err)
    assert key_id in on_server("keys", "list")[1]
    monkeypatch.setenv("STILLROOM_KEY", out.strip())
    assert on_server("dataset", "list") == (0, "", "")
    code, _, err = on_server("dataset", "create", "not allowed")
    assert code == 1
    assert "write" in err
    monkeypatch.delenv("STILLROOM_KEY")
    assert on_server("keys", "delete", key_id)[0] == 0
    assert key_id not in on_server("keys", "list")[1]


def test_models_are_listed(on_server: Run) -> None:
    code, out, _ = on_server("models")
    assert code == 0
    assert "nano-ssd-1b\tssd-1b\t" in out
    assert "stillroom models pull ssd-1b" in out


def test_a_model_is_added_listed_and_removed(on_server: Run) -> None:
    path = str(bases.NANO_SSD_1B)
    code, out, err = on_server("models", "add", "mine", path, "--v-prediction", "--licence", "mit")
    assert (code, out) == (0, "")
    assert "mine is there: layout ssd-1b, 64 px, predicts v_prediction." in err
    assert "mine\tssd-1b\t4,101,524\t64\tThe base model 'mine'" in on_server("models", "list")[1]
    assert on_server("models", "remove", "mine") == (0, "", "mine is gone from this home.\n")
    assert "mine" not in on_server("models")[1]
    code, _, err = on_server("models", "remove", "mine")
    assert (code, err) == (1, "No base model of the name 'mine' was added here.\n")


def test_what_is_no_model_is_a_sentence(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.ckpt").write_bytes(b"")
    path, home = str(tmp_path / "mine.ckpt"), str(tmp_path / "home")
    code, out, err = run("models", "add", "mine", path, "--home", home)
    assert (code, out) == (1, "")
    assert err.startswith("mine.ckpt is a pickle")
    assert err.count("\n") == 1


def test_unknown_model_cannot_be_pulled(run: Run, tmp_path: Path) -> None:
    code, out, err = run("models", "pull", "sdxxl", "--home", str(tmp_path))
    assert (code, out) == (1, "")
    assert "sdxxl" in err


def test_download_of_a_job_that_made_nothing_says_so(on_server: Run, tmp_path: Path) -> None:
    job = on_server("generate", "a robot", "--base", "nano-ssd-1b")[1].strip()
    code, _, err = on_server("download", job, "--to", str(tmp_path))
    assert (code, err) == (1, f"{job} has made nothing to download: it is queued.\n")
    on_server("cancel", job)


def test_a_link_is_made_and_opens_what_it_names(on_server: Run, live: Live, tmp_path: Path) -> None:
    file = tmp_path / "robot.safetensors"
    file.write_bytes(loras.file_of(loras.spelt(loras.peft, loras.unet_pairs(rank=2))))
    lora = on_server("upload", str(file))[1].strip()
    code, out, err = on_server("link", lora, "--expires-in", "90")
    assert code == 0
    assert f"Opens {lora} without a key until" in err
    assert httpx.get(out.strip()).content == file.read_bytes()
    code, _, err = on_server("link", lora, "--expires-in", "5")
    assert (code, "greater than or equal to 60" in err) == (1, True)
