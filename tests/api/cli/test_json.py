"""`--json` and profiles: what every verb has."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from api.cli import app
from tests.api.cli.conftest import Run
from tests.api.live import Live

LOCAL = {
    *("serve", "worker", "api", "migrate", "demo", "dataset import"),
    *("models pull", "models add", "models remove"),
}
"""They start processes or write the home, and speak with no server."""


def commands(group: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    inside = getattr(group, "commands", None)
    if not inside or (name and group.params):  # a group may be a verb itself
        yield name, group
    for word, command in (inside or {}).items():
        yield from commands(command, f"{name} {word}".strip())


def test_every_verb_of_a_server_speaks_json_and_takes_a_profile() -> None:
    verbs = dict(commands(typer.main.get_command(app)))
    assert len(verbs) > 45
    for name, command in verbs.items():
        options = {option for parameter in command.params for option in parameter.opts}
        wanted = {"--json", "--url", "--home", "--profile"}
        assert (wanted <= options) == (name not in LOCAL), name


def said(on_server: Run, *arguments: str, code: int = 0) -> Any:
    ended, out, err = on_server(*arguments, "--json")
    assert ended == code, err
    return json.loads(out)


def test_answers_are_the_servers_own(on_server: Run, pictures: Path) -> None:
    dataset = said(on_server, "dataset", "create", "robot", str(pictures))
    assert (dataset["images"], dataset["report"]["ready"]) == (5, True)
    shown = said(on_server, "dataset", "show", dataset["id"])
    assert shown["dataset"] == dataset
    assert len(shown["images"]) == 5
    assert dataset["id"] in [each["id"] for each in said(on_server, "dataset", "list")]
    job = said(on_server, "generate", "a robot", "--base", "nano-sdxl")
    assert (job["state"], job["spec"]["prompt"]) == ("queued", "a robot")
    assert said(on_server, "jobs", "show", job["id"])["job"]["id"] == job["id"]
    assert said(on_server, "events", job["id"])[0]["type"] == "state"
    assert said(on_server, "queue")["depth"] >= 1
    assert said(on_server, "metrics", job["id"])["loss"] == []
    told = said(on_server, "generate", "a", "--base", "nano-sdxl", "--dry-run")
    assert told["fits"] is True
    assert said(on_server, "cancel", job["id"])["state"] == "cancelled"
    assert said(on_server, "watch", job["id"], code=2)["state"] == "cancelled"
    assert said(on_server, "jobs")[0]["id"] == job["id"]
    assert said(on_server, "workers") == []
    assert {each["id"] for each in said(on_server, "models")} >= {"nano-sdxl", "ssd-1b"}
    key = said(on_server, "keys", "create", "ci", "--scope", "read")
    assert said(on_server, "keys", "delete", key["id"]) == {"deleted": key["id"]}


def test_a_refusal_has_its_code(on_server: Run) -> None:
    code, out, err = on_server("jobs", "show", "job_unknown", "--json")
    problem = json.loads(out)
    assert (code, problem["status"], problem["code"]) == (1, 404, "not_found")
    assert err == f"{problem['detail']}\n"
    assert on_server("jobs", "--json", "--url", "http://127.0.0.1:1")[1] == "", (
        "nobody has answered"
    )


def test_a_profile_names_a_server(
    run: Run, live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    file = tmp_path / "stillroom" / "profiles.toml"
    code, _, err = run("jobs", "--profile", "rack")
    assert (code, f"{file} is not there" in err) == (1, True)
    file.parent.mkdir()
    file.write_text(f'[rack]\nurl = "{live.url}"\nkey = "{live.key}"\n[odd]\nurl = "ftp://x"\n')
    file.chmod(0o644)
    code, _, err = run("jobs", "--profile", "rack")
    assert (code, f"chmod 600 {file}" in err) == (1, True)
    file.chmod(0o600)
    assert run("jobs", "--profile", "rack")[0] == 0
    monkeypatch.setenv("STILLROOM_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("STILLROOM_PROFILE", "rack")
    assert run("jobs")[0] == 0, "a profile comes before the address in the environment"
    assert run("jobs", "--url", "http://127.0.0.1:1")[0] == 1
    code, _, err = run("jobs", "--profile", "desk")
    assert (code, "it has rack, odd" in err) == (1, True)
    code, _, err = run("jobs", "--profile", "odd")
    assert (code, "[odd]" in err, "url" in err) == (1, True, True)
    file.write_text("[rack")
    assert run("jobs", "--profile", "rack")[0] == 1


def test_a_shell_can_complete_it() -> None:
    asked = {"_STILLROOM_COMPLETE": "complete_bash", "COMP_WORDS": "stillroom down"}
    ran = subprocess.run(
        [Path(sys.executable).with_name("stillroom")],
        env={**os.environ, **asked, "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == ["download"]
