"""The commands that become a process of the server."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from api.commands import processes
from tests.api.cli.conftest import Run


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
