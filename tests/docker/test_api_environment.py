"""What the API's image installs is enough for all that runs there."""

import os
import subprocess
import tomllib
import venv
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from packaging.requirements import Requirement

from tests.docker.test_images import ROOT, opened
from tests.support.databases import postgres_database
from tests.support.redis import redis_server
from tests.support.server import free_port, wait_until
from tests.test_house import TENSORS, contracts


def installed_for(requirements: list[str]) -> set[str]:
    """Names of all that pip would install for them, extras and all."""
    done: set[tuple[str, str]] = set()
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        requirement, extra_of_whom = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra_of_whom}):
            continue
        for extra in ("", *requirement.extras):
            if (requirement.name, extra) not in done:
                done.add((requirement.name, extra))
                needs = distribution(requirement.name).requires or []
                waiting += [(Requirement(text), extra) for text in needs]
    return {name for name, _ in done}


@pytest.fixture(scope="module")
def names() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return installed_for(project["dependencies"])


@pytest.fixture(scope="module")
def python(names: set[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment that has those packages and us, and nothing else."""
    folder = tmp_path_factory.mktemp("api") / "environment"
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    (site / "stillroom.pth").write_text(f"{ROOT}\n")
    for name in names:
        package = distribution(name)
        for top in {file.parts[0] for file in package.files or []} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(str(package.locate_file(top)))
    return folder / "bin/python"


def run(python: Path, *arguments: str, home: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [python, *arguments],
        cwd=home,
        env={**os.environ, "STILLROOM_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_nothing_that_is_installed_brings_tensors(names: set[str]) -> None:
    assert {"fastapi", "psycopg-binary", "starlette"} <= names
    assert names & TENSORS == set()


def test_every_module_that_runs_there_imports(python: Path, tmp_path: Path) -> None:
    rules: list[Any] = [
        rule for rule in contracts() if "torch" in str(rule.get("forbidden_modules"))
    ]
    light = [module for rule in rules for module in rule["source_modules"]]
    assert {"api", "core.jobs", "core.pull", "core.adding"} <= set(light)
    code = f"""
import importlib, pkgutil
for name in {light}:
    module = importlib.import_module(name)
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), f"{{name}}."):
        if found.name != "api.__main__":
            importlib.import_module(found.name)
from huggingface_hub import HfApi, hf_hub_download  # what a pull imports when it begins
"""
    ran = run(python, "-c", code, home=tmp_path)
    assert ran.returncode == 0, ran.stderr


@pytest.fixture(scope="module")
def port(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Where the image's own command listens, as in its container."""
    home, port = tmp_path_factory.mktemp("home"), free_port()
    image = opened("api")
    command = f"from api.cli import main; main({image.last('CMD').words()})"
    with postgres_database() as database:
        process = subprocess.Popen(
            [python, "-c", command],
            cwd=home,
            env={
                **os.environ,
                **image.environment(),
                "STILLROOM_HOME": str(home),
                "STILLROOM_PORT": str(port),
                "STILLROOM_DATABASE_URL": database.engine.url.render_as_string(False),
            },
            stderr=subprocess.DEVNULL,
        )
        yield port
        process.terminate()
        process.wait(20)


def test_the_health_check_sees_the_server_and_misses_it_where_it_is_not(
    python: Path, port: int, tmp_path: Path
) -> None:
    _, *check = opened("api").last("HEALTHCHECK").words()

    def is_healthy(port: int) -> bool:
        words = [word.replace("8400", str(port)) for word in check]
        return run(python, *words, home=tmp_path).returncode == 0

    wait_until(lambda: is_healthy(port), 30, "the API is healthy")
    assert not is_healthy(free_port())
    answer = httpx.get(f"http://127.0.0.1:{port}/readyz")  # PostgreSQL is there, a worker is not
    assert answer.json()["code"] == "no_worker"


def test_it_rings_the_bell_of_redis(python: Path, tmp_path: Path) -> None:
    code = """
import sys
from core.jobs.bell import BrokerBell
bell = BrokerBell(sys.argv[1])
bell.ring()
sys.stdin.read()
"""
    with redis_server(tmp_path) as url, redis.Redis.from_url(url) as client:
        ears = client.pubsub(ignore_subscribe_messages=True)
        ears.psubscribe("*")
        ringing = subprocess.Popen([python, "-c", code, url], cwd=tmp_path, stdin=subprocess.PIPE)
        try:
            wait_until(lambda: ears.get_message() is not None, 20, "the bell is heard")
        finally:
            ringing.kill()
            ringing.communicate()


def test_a_worker_there_says_what_it_lacks(python: Path, tmp_path: Path) -> None:
    command = "from api.cli import main; main(['worker', '--device', 'cpu'])"
    ran = run(python, "-c", command, home=tmp_path)
    assert ran.returncode == 1
    assert "stillroom[worker]" in ran.stderr
    assert "Traceback" not in ran.stderr
