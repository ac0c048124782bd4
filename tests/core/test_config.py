"""Settings come from STILLROOM_*, and contradictions are refused."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from core.config import Settings


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STILLROOM_HOME", str(tmp_path))
    monkeypatch.setenv("STILLROOM_BASES", '{"ssd-1b": "/models/ssd"}')
    settings = Settings()
    assert settings.root == tmp_path
    assert settings.bases == {"ssd-1b": Path("/models/ssd")}


def test_loopback_and_sqlite_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "HOST", "DATABASE_URL", "BROKER_URL"):
        monkeypatch.delenv(f"STILLROOM_{name}", raising=False)
    settings = Settings()
    assert settings.host == "127.0.0.1"
    assert settings.embedded
    assert settings.effective_database_url == f"sqlite:///{settings.root}/stillroom.db"


def test_a_lease_shorter_than_three_beats_is_refused() -> None:
    with pytest.raises(ValidationError, match="three beats"):
        Settings(beat_seconds=10, lease_seconds=20)


def test_the_home_is_for_this_user_alone(tmp_path: Path) -> None:
    Settings(home=tmp_path / "home").prepare()
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700


def test_a_home_that_was_open_to_others_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    Settings(home=tmp_path).prepare()
    assert tmp_path.stat().st_mode & 0o777 == 0o700
