"""What is said, and to whom."""

import io

import pytest
from rich.console import Console

from api.commands import terminal


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


ODD = ["a [solo] dog", "[/b]", "<lora:dog:1>", ":smile:"]


def test_what_looks_like_markup_is_told_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    assert terminal.out.is_terminal
    terminal.table(("caption",), [(text,) for text in ODD])
    for text in ODD:
        terminal.say(text)
    told = capsys.readouterr()
    for text in ODD:
        assert text in told.out
        assert text in told.err


@pytest.mark.parametrize("name", ODD)
def test_files_of_odd_names_have_bars(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(terminal, "err", screen)
    with terminal.transferring(name) as tell:
        tell(1, 2)
    assert isinstance(screen.file, io.StringIO)
    assert name in screen.file.getvalue()
