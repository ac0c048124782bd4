"""Workers, the queue before them, and the base models that they have."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from core.db.models import Device, Job, Worker, now
from core.workers import devices
from core.workers.devices import DeviceState

Role = Literal["any", "train", "generate"]


class WorkerRead(BaseModel):
    id: str
    host: str
    device: str
    role: Role
    chip: str | None = Field(description="What computes; null while its runner loads.")
    memory_bytes: int | None
    models: list[str] = Field(description="Base models on its disk.")
    resident: list[str] = Field(description="Of those, the ones in memory.")
    job: str | None = Field(description="What it runs; null for nothing, or somebody else's.")
    busy: bool
    beat_age_seconds: float
    ready: bool
    state: DeviceState = Field(description="open, drained or quarantined: only `open` claims jobs.")
    quarantined: bool
    reason: str | None = Field(description="Why it is not open.")

    @classmethod
    def of(cls, worker: Worker, device: Device, running: Job | None, caller: str) -> "WorkerRead":
        own = running is not None and running.owner == caller
        return cls(
            id=worker.id,
            host=worker.host.partition("/")[0],
            device=worker.device,
            role=worker.role,
            chip=worker.chip,
            memory_bytes=worker.memory_bytes,
            models=worker.bases,
            # and no artifact that stands in for one: it is somebody's
            resident=[base for base in worker.resident if base in worker.bases],
            job=running.id if running and own else None,
            busy=running is not None,
            beat_age_seconds=round(max(0.0, (now() - worker.beat_at).total_seconds()), 1),
            ready=worker.ready,
            state=device.state,
            quarantined=device.state == devices.QUARANTINED,
            reason=device.reason,
        )


class PlaceRead(BaseModel):
    job: str
    position: int
    eta_seconds: float | None = Field(description="Until its turn; null: nothing was measured.")


class QueueRead(BaseModel):
    depth: int = Field(description="Jobs of everybody that wait for a device.")
    running: int
    items: list[PlaceRead] = Field(description="Your own, in their order.")


class ModelRead(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    id: str
    layout: str
    parameters: int = Field(description="Of the UNet.")
    native_size: int = Field(description="Pixels a side.")
    prediction_type: str
    licence: str
    available: bool = Field(description="Whether a live worker has it.")
    why_not: str | None
