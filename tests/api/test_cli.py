"""The command line: verbs against the API over a real socket, and its sentences when it cannot."""

import hashlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from api import client as client_module
from api.cli import main
from api.client import Client
from api.commands import download, follow, processes, recipes, terminal
from api.commands.jobs import ending
from api.demo import subject
from core.specs import FineTuneSpec, GenerateSpec
from tests.api.live import Answer, Live, answering, free_port, serving_api

Said = tuple[int, str, str]
"""Exit code, stdout, stderr."""
Run = Callable[..., Said]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving_api(tmp_path_factory.mktemp("home")) as server:
        yield server


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return subject.save_pictures(tmp_path_factory.mktemp("pictures"))[0].parent


@pytest.fixture(autouse=True)
def _no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("STILLROOM_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in this process: what it says, and the code it leaves with."""

    def run_here(*arguments: str) -> Said:
        with pytest.raises(SystemExit) as left:
            main(arguments)
        said = capsys.readouterr()
        code = left.value.code
        assert isinstance(code, int)
        return code, said.out, said.err

    return run_here


@pytest.fixture
def on_server(run: Run, live: Live, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("STILLROOM_URL", live.url)
    monkeypatch.setenv("STILLROOM_HOME", str(live.home))
    return run


def last_id(text: str) -> str:
    return text.split()[0]


# Verbs over the API


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
    code, _, err = on_server("generate", "x", "--base", "nano-ssd-1b", "--lora", job)
    assert (code, err.split(".")[0]) == (1, f"{job} has made no LoRA: it is queued")
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
    second = on_server("train", str(file))[1].strip()
    assert on_server("jobs", "spec", second)[1] == on_server("jobs", "spec", first)[1]
    for job in (first, second):
        on_server("cancel", job)


def test_recipes_that_are_none(on_server: Run, tmp_path: Path) -> None:
    code, _, err = on_server("train", "ssd_1b_dreambooth_lora_cat")
    assert code == 1
    assert "ssd_1b_dreambooth_lora_dog" in err
    (tmp_path / "x.json").write_text("[]")
    assert "is no recipe" in on_server("train", str(tmp_path / "x.json"))[2]
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
    _, spec = recipes.read("ssd_1b_dreambooth_lora_dog")
    FineTuneSpec.model_validate({**spec, "dataset": "d"})


def test_extend_passes_the_steps_on(on_server: Run, pictures: Path) -> None:
    dataset = on_server("dataset", "create", "dog", str(pictures))[1].strip()
    job = on_server(
        "fine-tune", "--base", "nano-ssd-1b", "--dataset", dataset, "--instance-prompt", "x"
    )[1].strip()
    code, _, err = on_server("extend", job, "--steps", "5")
    assert code == 1
    assert "only a fine-tune that has succeeded" in err
    on_server("cancel", job)


def test_generate_sends_what_was_given_and_no_more(
    run: Run, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []

    def take(_client: Client, spec: Any, **about: Any) -> Any:
        sent.append((spec, about))
        return {"id": "job_1"}

    monkeypatch.setattr(Client, "generate", take)
    where = ("--url", live.url, "--home", str(live.home))
    run("generate", "a robot", "--base", "nano-ssd-1b", *where)
    run(
        "generate", "one", "two", "--base", "x", "--lora", "art_1:0.5", "--lora", "art_2",
        "--seed", "7", "--priority", "-1", *where,
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
    ]


@pytest.mark.parametrize(
    ("verb", "spec", "absent"),
    [
        ("fine-tune", FineTuneSpec, {"lora", "prior", "sample"}),
        ("generate", GenerateSpec, {"prompt", "loras", "format"}),
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


def test_unknown_model_cannot_be_pulled(run: Run, tmp_path: Path) -> None:
    code, out, err = run("models", "pull", "sdxxl", "--home", str(tmp_path))
    assert (code, out) == (1, "")
    assert "sdxxl" in err


def test_download_of_a_job_that_made_nothing_says_so(on_server: Run, tmp_path: Path) -> None:
    job = on_server("generate", "a robot", "--base", "nano-ssd-1b")[1].strip()
    code, _, err = on_server("download", job, "--to", str(tmp_path))
    assert (code, err) == (1, f"{job} has made nothing to download: it is queued.\n")
    on_server("cancel", job)


# Downloads


def an_artifact(number: int, name: str, content: bytes) -> Any:
    return {
        "id": f"art_{number}",
        "name": name,
        "role": "images",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def test_download_never_leaves_its_folder_nor_replaces_another_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLROOM_KEY", "any")

    def answer(path: str) -> Answer:
        content = path.encode() if path.endswith("/content") else b""
        made = b"/v1/artifacts/art_1/content"
        return (200, content or an_artifact(1, "../../way out.png", made))

    folder = tmp_path / "here"
    with answering(answer) as url:
        assert run("download", "art_1", "--to", str(folder), "--url", url)[0] == 0
        assert [path.name for path in folder.iterdir()] == ["way out.png"]
        assert run("download", "art_1", "--to", str(folder), "--url", url)[0] == 0
        (folder / "way out.png").write_bytes(b"mine")
        code, _, err = run("download", "art_1", "--to", str(folder), "--url", url)
    assert code == 1
    assert "is another file already" in err
    assert (folder / "way out.png").read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [folder]


def test_artifacts_of_one_name_are_told_apart() -> None:
    made = [
        an_artifact(1, "a.png", b""),
        an_artifact(2, "b.png", b""),
        an_artifact(3, "a.png", b""),
    ]
    assert download._names(made) == ["art_1-a.png", "b.png", "art_3-a.png"]


# Watching


def a_look(state: str, step: int, **more: Any) -> Any:
    progress = {
        "step": step,
        "steps": 500,
        "fraction": step / 500,
        "eta_seconds": 41.0,
        "message": "training",
    }
    look = {"id": "job_1", "state": state, "progress": progress, "queue_position": 3, "error": None}
    return look | more


@pytest.mark.parametrize(
    ("state", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 2), ("expired", 3)]
)
def test_watch_leaves_with_the_ending(
    state: str, code: int, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLROOM_KEY", "any")
    monkeypatch.setattr(client_module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(follow, "LINE_SECONDS", 0)
    looks = iter([a_look("queued", 0), a_look("running", 120), a_look(state, 500)])
    event = {"seq": 1, "at": "", "type": "progress", "attempt": 1, "data": {"loss": 0.2213}}

    def answer(path: str) -> Answer:
        return (200, {"items": [event]} if "/events" in path else next(looks))

    with answering(answer) as url:
        left, out, err = run("watch", "job_1", "--url", url)
    assert (left, out) == (code, "")
    assert "number 3 in the queue" in err
    assert "120/500  loss 0.2213  41 s left" in err
    assert f"job_1 {state}" in err


def test_failed_job_says_why() -> None:
    error = {"code": "out_of_memory", "detail": "The card has 12 GB."}
    assert ending(a_look("failed", 3, error=error)) == "job_1 failed: The card has 12 GB."


def test_bar_at_a_terminal_shows_step_loss_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(follow, "err", screen)
    follow._as_bar(iter([(a_look("running", 120), 0.25)]))
    assert isinstance(screen.file, io.StringIO)
    assert "120/500  loss 0.2500  41 s left" in screen.file.getvalue()


def test_interrupted_watch_leaves_the_job_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("STILLROOM_KEY", "any")
    monkeypatch.setattr("api.commands.jobs.follow", interrupt)
    code, _, err = run("watch", "job_1")
    assert code == 130
    assert "goes on without us" in err


# When it cannot


def test_nobody_there_is_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_KEY", "any")
    url = f"http://127.0.0.1:{free_port()}"
    expected = f"No server answers at {url}: start one with `stillroom serve`.\n"
    assert run("jobs", "--url", url) == (1, "", expected)


def test_missing_key_says_where_it_was_looked_for(run: Run, tmp_path: Path) -> None:
    code, out, err = run("jobs", "--home", str(tmp_path))
    assert (code, out) == (1, "")
    assert str(tmp_path / "admin.key") in err
    assert "STILLROOM_KEY" in err


def test_setting_that_cannot_be_names_its_variable(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLROOM_PORT", "eighty")
    code, _, err = run("jobs")
    assert code == 1
    assert err.startswith("STILLROOM_PORT: ")


def test_refusal_of_the_server_is_its_sentence(on_server: Run) -> None:
    code, out, err = on_server("jobs", "show", "job_unknown")
    assert (code, out) == (1, "")
    assert "job_unknown" in err
    assert "Traceback" not in err


def test_weight_that_is_no_number_is_refused(on_server: Run) -> None:
    code, _, err = on_server("generate", "x", "--base", "nano-ssd-1b", "--lora", "art_1:heavy")
    assert code == 2
    assert "'heavy' is no weight" in err


def test_command_starts_light_and_without_a_traceback(tmp_path: Path) -> None:
    script = (
        "import sys; from api.cli import main; sys.argv = ['stillroom', 'jobs'];\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'sqlalchemy', 'fastapi', 'PIL'} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"STILLROOM_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (1, "[]\n")
    assert ran.stderr.count("\n") == 1


# Processes


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    calls: list[tuple[list[str], dict[str, str]]] = []

    def take(_path: str, line: list[str], environment: dict[str, str]) -> None:
        calls.append((line[1:], environment))

    monkeypatch.setattr(os, "execve", take)
    return calls


def ours(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith("STILLROOM_")}


def test_serve_becomes_the_supervisor_with_only_what_was_given(run: Run, became: list[Any]) -> None:
    run("serve")
    run("serve", "--home", "h", "--host", "0.0.0.0", "--port", "1", "--devices", "cpu")
    assert [(line, ours(environment)) for line, environment in became] == [
        (["-m", "worker.supervisor"], {}),
        (
            ["-m", "worker.supervisor"],
            {
                "STILLROOM_HOME": "h",
                "STILLROOM_HOST": "0.0.0.0",
                "STILLROOM_PORT": "1",
                "STILLROOM_DEVICES": "cpu",
            },
        ),
    ]


def test_worker_and_front_end_are_parts_of_it(run: Run, became: list[Any]) -> None:
    run("worker", "--device", "cuda:1")
    run("api", "--port", "5")
    assert [(line, ours(environment)) for line, environment in became] == [
        (["-m", "worker.supervisor", "--workers-only"], {"STILLROOM_DEVICES": "cuda:1"}),
        (["-m", "api"], {"STILLROOM_PORT": "5"}),
    ]


def test_started_process_does_not_import_from_a_strangers_folder(
    tmp_path: Path, run: Run, became: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("serve")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    run("serve")
    assert ["PYTHONSAFEPATH" in environment for _, environment in became] == [False, True]


def test_migrate_brings_a_database_up_and_says_where_it_is(run: Run, tmp_path: Path) -> None:
    for _ in range(2):
        code, _, err = run("migrate", "--home", str(tmp_path))
        assert (code, err) == (0, f"The database is at revision {processes.newest_revision()}.\n")
    assert (tmp_path / "stillroom.db").is_file()


# What is said


def test_amounts_read_well() -> None:
    assert [terminal.seconds_text(s) for s in (45.2, 200, 7500)] == [
        "45 s",
        "3 min 20 s",
        "2 h 05 min",
    ]
    assert [terminal.bytes_text(b) for b in (812, 4_100_000, 2_600_000_000)] == [
        "812 B",
        "4.1 MB",
        "2.6 GB",
    ]


def test_table_has_a_head_at_a_terminal_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal.table(("id", "state"), [("job_1", None)])
    assert capsys.readouterr().out == "job_1\t\n"
    screen = Console(file=io.StringIO(), force_terminal=True, width=60)
    monkeypatch.setattr(terminal, "out", screen)
    terminal.table(("id", "state"), [("job_1", "queued")])
    assert isinstance(screen.file, io.StringIO)
    assert "id" in screen.file.getvalue()
