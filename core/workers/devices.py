"""Devices: what they lost, and whether they may claim. They outlive the workers that drive them."""

from collections.abc import Collection, Sequence
from typing import Literal

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from core.db.models import Device, Worker
from core.errors import NotFound

DeviceState = Literal["open", "drained", "quarantined"]
OPEN: DeviceState = "open"
DRAINED: DeviceState = "drained"
QUARANTINED: DeviceState = "quarantined"
_LOSSES_TO_QUARANTINE = 2


def id_of(host: str, name: str) -> str:
    return f"{host}/{name}"


def ensure(session: Session, device_id: str) -> Device:
    """The device's row, which is made when its first worker signs on."""
    device = session.get(Device, device_id)
    if device is None:
        device = Device(id=device_id, state=OPEN, lost=[])
        session.add(device)
        session.flush()
    return device


def lose(session: Session, device_id: str, jobs: Collection[str]) -> Device:
    """Its runner died of one of ``jobs``, all that it was at. Of a second one, with nothing that
    ended well in between: the device claims nothing until somebody releases it.

    Two losses that have a job in common are held to be that job's doing. One that died elsewhere
    too is the culprit: it counts against no device.
    """
    died_at = session.scalars(select(Device).order_by(Device.id).with_for_update()).all()
    device = next(one for one in died_at if one.id == device_id)
    elsewhere = [one for one in died_at if one is not device and _common(one.lost, jobs)]
    if elsewhere:
        for one in elsewhere:
            one.lost = [group for group in one.lost if not set(group) & set(jobs)]
    elif common := _common(device.lost, jobs):
        others = [group for group in device.lost if not set(group) & set(jobs)]
        device.lost = [*others, common]
    else:
        device.lost = [*device.lost, list(jobs)]
    if len(device.lost) >= _LOSSES_TO_QUARANTINE:
        (first, *_), *_, (last, *_) = device.lost
        quarantine(session, device, f"Its runner died of '{first}' and then of '{last}'.")
    return device


def _common(lost: Sequence[Sequence[str]], jobs: Collection[str]) -> list[str]:
    """Of ``jobs``, those that one of these losses may have been the doing of, too."""
    return [job_id for group in lost for job_id in group if job_id in jobs]


def clear(session: Session, device_id: str) -> None:
    """A job ended well there."""
    device = session.get(Device, device_id)
    if device is not None and device.lost:
        device.lost = []


def quarantine(session: Session, device: Device, reason: str) -> None:
    device.state, device.reason = QUARANTINED, reason


def drain(session: Session, worker_id: str) -> Worker:
    """It ends what it does and claims nothing more until it is released."""
    return _set(session, worker_id, DRAINED, "Somebody asked to.")


def release(session: Session, worker_id: str) -> Worker:
    """Out of quarantine, or after a drain: it claims again."""
    return _set(session, worker_id, OPEN, None)


def _set(session: Session, worker_id: str, state: DeviceState, reason: str | None) -> Worker:
    worker = session.get(Worker, worker_id)
    if worker is None:
        raise NotFound(f"There is no worker '{worker_id}'.")
    changed = update(Device).where(Device.id == worker.device_id)
    session.execute(changed.values(state=state, reason=reason, lost=[]))
    return worker
