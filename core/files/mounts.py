"""What kind of disk a path lies on."""

from pathlib import Path

_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "glusterfs", "ceph"})
_MOUNTS = Path("/proc/self/mounts")


def is_network_mount(path: Path, mounts: Path = _MOUNTS) -> bool:
    """Whether ``path`` is on a file system known to be shared; False where none can tell."""
    if not mounts.exists():
        return False
    best, kind = "", ""
    for line in mounts.read_text().splitlines():
        _, where, found = line.split()[:3]
        if path.is_relative_to(where) and len(where) >= len(best):
            best, kind = where, found
    return kind in _NETWORK
