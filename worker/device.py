"""The devices of this host, their roles, and pinning a process to one before torch is imported."""

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

Role = Literal["any", "train", "generate"]


@dataclass(frozen=True)
class Device:
    """``name`` is what people say: cpu, cpu:1, cuda:1. ``uuid`` is what CUDA cannot mistake."""

    name: str
    role: Role = "any"
    uuid: str | None = None

    @property
    def is_cpu(self) -> bool:
        return self.name.startswith("cpu")

    def environment(self) -> dict[str, str]:
        """Variables under which a process sees this device alone, as its ``cuda:0``."""
        return {
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "CUDA_VISIBLE_DEVICES": self.uuid or "",
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # what cuBLAS needs to be deterministic
            "STILLROOM_DEVICE": f"{self.name}={self.role}",
        }


def cuda_uuids() -> list[str]:
    """UUIDs of this host's cards in bus order, asked of the driver: no CUDA context is made."""
    try:
        answer = subprocess.run(
            ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return answer.stdout.split()


def parse(devices: str, list_uuids: Callable[[], Sequence[str]] = cuda_uuids) -> list[Device]:
    """The devices that ``auto``, ``cpu`` or ``cuda:0=generate,cuda:1`` name.

    Raises:
        ValueError: a word that is no device or role, a card that is not there, one named twice.
    """
    if devices == "auto":
        uuids = list_uuids()
        cards = [Device(f"cuda:{index}", uuid=uuid) for index, uuid in enumerate(uuids)]
        return cards or [Device("cpu")]
    found: list[Device] = []
    for word in devices.split(","):
        device = _parse_one(word.strip(), list_uuids)
        if device.name == "cpu":  # any number of workers may share it, each under a name of its own
            shares = sum(other.is_cpu for other in found)
            device = replace(device, name=f"cpu:{shares}" if shares else "cpu")
        if device.name in [other.name for other in found]:
            raise ValueError(f"{device.name} is named twice in '{devices}': one worker a device")
        found.append(device)
    return found


def parse_pinned(word: str) -> Device:
    """A worker's own device as ``Device.environment`` has it, without asking the driver again."""
    device = _parse_one(word, lambda: [""] * 1024)
    return device if device.is_cpu else replace(device, uuid=os.environ["CUDA_VISIBLE_DEVICES"])


def _parse_one(word: str, list_uuids: Callable[[], Sequence[str]]) -> Device:
    name, _, role = word.partition("=")
    if role and role not in get_args(Role):
        raise ValueError(f"'{role}' in '{word}' is no role: {', '.join(get_args(Role))}")
    known_role: Role = role or "any"  # type: ignore[assignment]  # checked above
    kind, _, index = name.partition(":")
    if name == "cpu" or (kind == "cpu" and index.isdecimal()):
        return Device(name, known_role)
    if kind != "cuda" or not index.isdecimal():
        raise ValueError(f"'{word}' is no device: write cpu, cuda:0 or cuda:0=generate")
    uuids = list_uuids()
    if int(index) >= len(uuids):
        raise ValueError(f"{name} is not here: the driver lists {len(uuids)} CUDA devices")
    return Device(name, known_role, uuids[int(index)])
