"""The images agree with this code: no engine runs here, so their instructions are looked up."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from core.config import Settings
from tests.support.command_line import understand
from tests.support.dockerfile import Dockerfile
from tests.test_house import TENSORS

ROOT = Path(__file__).parents[2]
IMAGES = ("api", "worker")


@pytest.fixture(params=IMAGES)
def image(request: pytest.FixtureRequest) -> Dockerfile:
    return opened(request.param)


def opened(name: str) -> Dockerfile:
    return Dockerfile(ROOT / f"docker/{name}.Dockerfile")


def required_by(name: str) -> set[str]:
    """Names of what an image's own line asks pip for."""
    (line,) = [run.text for run in opened(name).all("RUN") if "requirements.py" in run.text]
    found = re.search(r"python requirements\.py((?: \w+)*) >", line)
    assert found
    printed = subprocess.run(
        [sys.executable, ROOT / "docker/requirements.py", *found[1].split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {name_of(line) for line in printed.stdout.splitlines()}


def name_of(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found
    return found[0].lower().replace("_", "-")


def test_what_is_copied_is_there_and_not_ignored(image: Dockerfile) -> None:
    let_in = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    for copy in image.all("COPY"):
        *sources, _ = copy.text.split()
        for source in sources:
            assert (ROOT / source).exists(), source
            assert source.split("/")[0] in let_in, source


def test_what_the_wheel_is_made_of_is_copied(image: Dockerfile) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], *wheel["force-include"], "README.md", "LICENSE", "pyproject.toml"}
    copied = {source for copy in image.all("COPY") for source in copy.text.split()[:-1]}
    assert needed <= copied


def test_what_they_are_built_on_has_a_version_that_we_run_on(image: Dockerfile) -> None:
    for stage in image.all("FROM"):
        found = re.match(r"python:3\.(\d+)-slim-\w+", stage.text)
        assert found, stage.text
        assert int(found[1]) >= 11


def test_the_api_has_no_tensors_and_the_worker_has() -> None:
    assert required_by("api") & TENSORS == set()
    assert required_by("api") | TENSORS <= required_by("worker")


def test_every_requirement_is_pinned() -> None:
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {name_of(pin) for pin in pins if "==" in pin}
    assert required_by("worker") <= pinned
    for name in IMAGES:
        installs = [run.text for run in opened(name).all("RUN") if "--requirement" in run.text]
        assert all("--constraint constraints.txt" in install for install in installs)


def test_the_command_is_one_of_ours(image: Dockerfile) -> None:
    (entry,) = image.last("ENTRYPOINT").words()
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert entry in scripts
    understand(image.last("CMD").words())


def test_the_environment_is_made_of_settings(image: Dockerfile) -> None:
    ours = {name for name in image.environment() if name.startswith("STILLROOM_")}
    assert ours
    assert ours <= {f"STILLROOM_{field.upper()}" for field in Settings.model_fields}


def test_both_run_as_the_same_user_who_owns_the_home() -> None:
    made = set()
    for image in map(opened, IMAGES):
        (line,) = [run.text for run in image.all("RUN") if "useradd" in run.text]
        assert f"--owner {image.last('USER').text} " in line
        assert line.endswith(image.environment()["STILLROOM_HOME"])
        made.add(line)
    assert len(made) == 1
    assert "--uid 0" not in line
