"""What the operator wants to be in memory before the first request."""

from pathlib import Path

import pytest

from core.config import Settings
from core.diffusion import components
from worker.recipes import Bench


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """With a base that is broken, and one that is not."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "model_index.json").write_text("{")
    changes = {"warm": ["ssd-1b", "nano-ssd-1b"], "bases": {"ssd-1b": broken}}
    return settings.model_copy(update=changes)


def test_a_base_that_is_broken_keeps_no_other_out(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    held: list[list[str]] = []
    Bench(settings, held.append).warm(settings)
    assert held == [["nano-ssd-1b"]]
    (said,) = [record.getMessage() for record in caplog.records if record.name == "worker.recipes"]
    assert said.startswith("'ssd-1b' of STILLROOM_WARM could not be loaded: ")
    assert "worker.failures" not in {record.name for record in caplog.records}, "no job has failed"


def test_a_device_that_fails_ends_the_runner(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(components, "load", fail)
    monkeypatch.setattr(components, "count_weights", lambda *_: 0)
    with pytest.raises(RuntimeError, match="CUDA error"):
        Bench(settings, lambda _: None).warm(settings)
