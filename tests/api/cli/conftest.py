"""The command in this process, and a server for it."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api.cli import main
from api.demo import subject
from tests.api.live import Live, serving_api

Said = tuple[int, str, str]
"""Exit code, stdout, stderr."""
Run = Callable[..., Said]


@pytest.fixture(scope="package")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving_api(tmp_path_factory.mktemp("home")) as server:
        yield server


@pytest.fixture(scope="package")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return subject.save_pictures(tmp_path_factory.mktemp("pictures"))[0].parent


@pytest.fixture(scope="package")
def captioned(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captioned")
    for picture in pictures.glob("*.png"):
        shutil.copy(picture, folder)
        (folder / picture.name).with_suffix(".txt").write_text(f"a photo of {picture.stem}")
    return folder


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
