"""Which file systems SQLite's log must not lie on."""

from pathlib import Path

import pytest

from core.files.mounts import is_network_mount

MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/export /srv nfs4 rw 0 0
/dev/sdb1 /srv/local xfs rw 0 0
tmpfs /srv/share tmpfs rw 0 0
host:/x /srv/share cifs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/home/ada", False),
        ("/srv", True),
        ("/srv/home", True),
        ("/srv/local/home", False),
        ("/srvother", False),
        ("/srv/share/home", True),
    ],
)
def test_the_deepest_and_last_mount_decides(tmp_path: Path, path: str, expected: bool) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    assert is_network_mount(Path(path), mounts) == expected


def test_where_nothing_can_tell_it_is_taken_for_local(tmp_path: Path) -> None:
    assert not is_network_mount(tmp_path, tmp_path / "none")
