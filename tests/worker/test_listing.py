"""The list of what a job learns from comes out as it went in."""

from pathlib import Path

from core.pictures.reference import Reference
from worker import listing


def test_pictures_come_out_in_order_with_captions_and_where_they_lie(tmp_path: Path) -> None:
    lies = Reference(Path("/data/a.tar"), "a.tar/\N{SNOWMAN}.png", 512, 9, "0" * 64)
    listed: list[listing.Listed] = [
        (lies, "two\nlines \N{SNOWMAN} \u2028"),
        (Path("/room/picture.png"), None),
        (lies, ""),
    ]
    listing.write(tmp_path / "list", listed)
    assert list(listing.read(tmp_path / "list")) == listed
