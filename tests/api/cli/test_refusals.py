"""When it cannot: a sentence, no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from api.client import is_local
from tests.api.cli.conftest import Run
from tests.api.live import free_port


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


@pytest.mark.parametrize(
    "url", ["http://192.0.2.1:1", "https://localhost.example", "http://[2001:db8::1]:1"]
)
def test_the_admin_key_of_this_machine_goes_to_no_other(
    url: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "admin.key").write_text("stillroom_secret")
    monkeypatch.setenv("STILLROOM_URL", url)
    code, out, err = run("jobs", "--home", str(tmp_path))
    assert (code, out) == (1, "")
    assert err.startswith(f"No key for {url}: ")
    assert "STILLROOM_KEY" in err


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "[::1]"])
def test_the_admin_key_goes_to_this_machine(host: str) -> None:
    assert is_local(f"http://{host}:8400")


def test_setting_that_cannot_be_names_its_variable(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLROOM_PORT", "eighty")
    code, _, err = run("jobs")
    assert code == 1
    assert err.startswith("STILLROOM_PORT: ")


def test_setting_that_is_no_json_names_its_variable(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLROOM_IMPORT_ROOTS", "/data")
    code, _, err = run("jobs")
    assert (code, err.count("\n")) == (1, 1)
    assert err.startswith('STILLROOM_IMPORT_ROOTS is no JSON: write a list as ["a", "b"]')


@pytest.mark.parametrize("verb", [("serve",), ("api",), ("worker", "--device", "cpu")])
def test_settings_are_looked_at_before_a_process_begins(
    verb: tuple[str, ...], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLROOM_IMPORT_ROOTS", "/data")
    assert run(*verb)[2].startswith("STILLROOM_IMPORT_ROOTS is no JSON")
    monkeypatch.setenv("STILLROOM_IMPORT_ROOTS", "[]")
    monkeypatch.setenv("STILLROOM_MIN_FREE_BYTES", "few")
    code, out, err = run(*verb)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("STILLROOM_MIN_FREE_BYTES: ")


def test_a_text_that_is_not_utf_8_is_a_sentence(on_server: Run) -> None:
    code, _, err = on_server("generate", os.fsdecode(b"caf\xe9"), "--base", "nano-ssd-1b")
    assert (code, err) == (1, "A text that was given is not UTF-8: write it in UTF-8.\n")


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
