"""The demo's pictures, its sheet and its server, as far as no model is needed."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from api import launch
from api.commands.terminal import short
from api.demo import server, subject
from api.demo.server import ServerTrouble, serving
from api.demo.story import DemoFailed, _compare, _ending_on_signals, run
from core import sheet
from core.config import Settings
from core.sheet import Tile


def test_pictures_are_five_and_all_different() -> None:
    pictures = subject.pictures()
    assert [picture.size for picture in pictures] == [(256, 256)] * 5
    assert len({picture.tobytes() for picture in pictures}) == 5


def test_pictures_are_the_same_every_time(tmp_path: Path) -> None:
    first = [path.read_bytes() for path in subject.save_pictures(tmp_path / "a")]
    second = [path.read_bytes() for path in subject.save_pictures(tmp_path / "b")]
    assert first == second


def test_orange_and_blue_are_plain_to_see_at_64_pixels() -> None:
    for picture in subject.pictures():
        small = picture.resize((64, 64), Image.Resampling.BOX)
        seen = list(small.get_flattened_data())
        assert _share(seen, subject.ORANGE) > 0.05
        assert _share(seen, subject.BLUE) > 0.01


def _share(seen: list[object], colour: tuple[int, int, int]) -> float:
    def near(pixel: object) -> bool:
        assert isinstance(pixel, tuple)
        return all(abs(a - b) < 40 for a, b in zip(pixel, colour, strict=True))

    return sum(map(near, seen)) / len(seen)


def test_sheet_keeps_every_small_pixel_as_a_square(tmp_path: Path) -> None:
    small = Image.new("RGB", (64, 64), (0, 0, 0))
    small.putpixel((0, 0), (255, 0, 0))
    small.save(tmp_path / "small.png")
    path = sheet.compose(
        [[Tile(tmp_path / "small.png", "small", sheet.LARGE)]], "title", tmp_path / "sheet.png"
    )
    with Image.open(path) as drawn:
        top = sheet.LINE + 2 * sheet.GAP
        corner = drawn.crop((sheet.GAP, top, sheet.GAP + sheet.LARGE, top + sheet.LARGE))
    colours = corner.getcolors()
    assert colours is not None
    assert sorted(colours) == [
        ((sheet.LARGE // 64) ** 2, (255, 0, 0)),
        (sheet.LARGE**2 - (sheet.LARGE // 64) ** 2, (0, 0, 0)),
    ]


def test_captions_of_any_length_stay_inside_the_sheet(tmp_path: Path) -> None:
    pictures = subject.save_pictures(tmp_path)
    rows = [[Tile(pictures[0], "a caption far longer than its picture " * 4, sheet.SMALL)]]
    path = sheet.compose(rows, "and a title that is no shorter " * 4, tmp_path / "sheet.png")
    with Image.open(path) as drawn:
        right_edge = drawn.crop((drawn.width - sheet.GAP + 2, 0, drawn.width, drawn.height))
    assert right_edge.getcolors() == [(right_edge.width * right_edge.height, sheet.PAPER)]


def test_server_that_ends_early_is_told_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = [sys.executable, "-c", "import sys; sys.exit('the port is taken')"]
    monkeypatch.setattr(launch, "command", lambda *_: dying)
    with pytest.raises(ServerTrouble, match=r"exit code 1[\s\S]*the port is taken"):
        _serve(tmp_path)


def test_server_that_never_is_ready_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = tmp_path / "pid"
    idle = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    monkeypatch.setattr(launch, "command", lambda *_: [sys.executable, "-c", idle])
    monkeypatch.setattr(server, "START_SECONDS", 3)
    with pytest.raises(ServerTrouble, match="not ready"):
        _serve(tmp_path)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_in_the_middle_ends_the_server_too(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = tmp_path / "pid"
    idle = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    monkeypatch.setattr(launch, "command", lambda *_: [sys.executable, "-c", idle])
    monkeypatch.setattr(server, "_key_once_ready", lambda *_: "any")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's "&" ignores it
    try:
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            _serve_until_signalled(number, pid)
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def _serve_until_signalled(number: signal.Signals, pid: Path) -> None:
    with _ending_on_signals(), serving(Settings(home=pid.parent)):
        while not (pid.exists() and pid.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), number)
        time.sleep(10)


def _serve(home: Path) -> None:
    with serving(Settings(home=home)):
        pass


def test_demo_leaves_another_installation_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLROOM_DATABASE_URL", "postgresql://production")
    environment = server._environment(Settings(home=tmp_path), 1234)
    assert environment["STILLROOM_DATABASE_URL"] == ""
    assert environment["STILLROOM_HOME"] == str(tmp_path.resolve())
    assert environment["STILLROOM_PORT"] == "1234"


def test_folder_without_pictures_fails_before_a_server_starts(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(DemoFailed, match="no PNG, JPEG or WebP"):
        run(Settings(home=tmp_path / "home"), images=tmp_path, steps=1)
    with pytest.raises(DemoFailed, match="no folder"):
        run(Settings(home=tmp_path / "home"), images=tmp_path / "absent", steps=1)


@pytest.mark.parametrize(
    ("after", "without", "sentence"),
    [
        (b"one", b"one", "it does nothing"),
        (b"two", b"three", "stayed in the model"),
    ],
)
def test_lora_that_does_nothing_or_stays_fails_the_demo(
    after: bytes, without: bytes, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(DemoFailed, match=sentence):
        _compare(*_written(tmp_path, before=b"one", after=after, without=without))


def test_lora_that_changes_the_picture_and_goes_again_passes(tmp_path: Path) -> None:
    before, after, without = _written(tmp_path, before=b"one", after=b"two", without=b"one")
    _compare(before, after, without)
    assert not without.exists()


def _written(folder: Path, **contents: bytes) -> list[Path]:
    paths = [folder / name for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        path.write_bytes(content)
    return paths


def test_short_is_relative_only_where_that_is_shorter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert short(tmp_path / "var" / "sheet.png") == "var/sheet.png"
    assert short(Path("/elsewhere/sheet.png")) == "/elsewhere/sheet.png"
