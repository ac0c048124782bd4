"""The device's memory: how much there is for a run, and the most that it held."""

import math
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_HOST, _LIMIT = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")
_USED, _USED_FOR = Path("/sys/fs/cgroup/memory.current"), Path("/sys/fs/cgroup/memory.stat")


def reset_peak(device: torch.device) -> None:
    """Forgets what was held before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        _CLEAR.write_text("5")  # proc(5): the resident set's high-water mark


def peak_bytes(device: torch.device) -> int | None:
    """Since the last reset: allocated on CUDA, resident on the CPU; None where none can tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _line_bytes(_STATUS, "VmHWM") if _STATUS.exists() else None


def total_bytes(device: torch.device) -> int | None:
    """All that it has, or that this process may have of it; None where none can tell."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if not _HOST.exists():
        return None
    return int(min(_line_bytes(_HOST, "MemTotal"), _limit_bytes()))


def room_bytes(device: torch.device) -> int | None:
    """What this process may hold: what it holds now and what is free beside."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    if not _HOST.exists():
        return None
    beside = min(_line_bytes(_HOST, "MemAvailable"), _limit_bytes() - _used_bytes())
    return int(max(0, beside)) + _line_bytes(_STATUS, "VmRSS")


def free_bytes(device: torch.device) -> int:
    """What it may still allocate."""
    room = room_bytes(device)
    if device.type == "cuda":
        return (room or 0) - torch.cuda.memory_allocated(device)
    return max(0, (room or 0) - _line_bytes(_STATUS, "VmRSS"))


def _limit_bytes() -> float:
    """Of the container that this process runs in."""
    if not _LIMIT.exists() or (said := _LIMIT.read_text().strip()) == "max":
        return math.inf
    return int(said)


def _used_bytes() -> int:
    """Of the container's limit, but for files that the kernel can drop."""
    if not _USED.exists():
        return 0
    told = dict(line.split() for line in _USED_FOR.read_text().splitlines())
    return int(_USED.read_text()) - int(told["active_file"]) - int(told["inactive_file"])


def _line_bytes(path: Path, name: str) -> int:
    """A figure of a file of proc(5), which are in units of 1024 bytes."""
    (line,) = (line for line in path.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
