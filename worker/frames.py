"""What a worker and its runner say to each other: length-prefixed JSON over a socket."""

import socket
import struct
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

SOCKET = "STILLROOM_RUNNER_SOCKET"
"""The number of the runner's end of it, in its environment."""

_LENGTH = struct.Struct("!I")
_MAX_BYTES = 256 * 1024**2


class Frame(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


# from the worker to its runner


class BaseFolder(Frame):
    """``id`` is the base's, or that of the artifact whose UNet stands in for the base's own."""

    id: str
    folder: str
    embedded: bool
    """The package's own."""
    unet: str | None = None
    """The artifact's folder."""


class LoraFile(Frame):
    path: str
    sha256: str
    weight: float


class StartFile(Frame):
    """A picture to begin with."""

    path: str
    sha256: str


class Run(Frame):
    """One attempt at one job: everything the runner may know of it."""

    type: Literal["run"] = "run"
    run: int = 0
    """Counted by the link, and on every word about it: a late word must not hit the next job."""
    job: str
    attempt: int
    request_id: str | None = None
    """Of the request that made the job: for log lines."""
    kind: str
    spec: dict[str, object]
    base: BaseFolder
    pictures: str | None = None
    """The list of what it learns from (``worker.listing``): too long for a frame, it may be."""
    loras: list[LoraFile] = []
    start: str | None = None
    """The file of a LoRA to begin with."""
    start_picture: StartFile | None = None
    start_base: BaseFolder | None = None
    """Or the base whose UNet to begin with."""
    checkpoint: str | None = None
    """Folder of this job to go on from."""
    first_rung: int = 0
    """Of the memory ladder."""
    cache: str
    """A folder that the owner's jobs share."""
    roll: str | None = None
    """The file that names what of it the job's dataset uses."""
    out: str
    """A folder of this attempt's own, for whatever it writes."""


class Batch(Frame):
    """What the runner is to do next: one training, or drawings that may share a batch."""

    type: Literal["batch"] = "batch"
    runs: list[Run]


class GoOn(Frame):
    """The worker still holds the lease: work on for so long, unless told again."""

    type: Literal["go_on"] = "go_on"
    seconds: float


class Stop(Frame):
    """End this run at its next step; ``save`` where it stands, if it is to go on later."""

    type: Literal["stop"] = "stop"
    run: int
    save: bool


# from the runner to its worker


class Ready(Frame):
    """torch is loaded; jobs may come. ``chip`` is what will compute, by its maker's name."""

    type: Literal["ready"] = "ready"
    chip: str
    memory_bytes: int | None


class Holds(Frame):
    """The bases that are in the device's memory now, by the ids of ``BaseFolder``."""

    type: Literal["holds"] = "holds"
    bases: list[str]


class Begun(Frame):
    """The job arrived: from here on the runner's death may be the job's doing."""

    type: Literal["begun"] = "begun"


class Note(Frame):
    """Worth remembering about the job when it is over."""

    type: Literal["note"] = "note"
    text: str


class Report(Frame):
    type: Literal["report"] = "report"
    step: int
    steps: int
    message: str
    loss: float | None = None
    loss_step: int | None = None
    """The step at which the loss was read: a row that is written may be of a later one."""
    terms: dict[str, float] | None = None
    """Of the loss."""
    learning_rate: float | None = None
    seconds_per_step: float | None = None


class Picture(Frame):
    """A finished picture: a generated image, or a sample of a training at ``step``. ``index`` is
    its place among those of a drawing, which need not be the order of making."""

    type: Literal["picture"] = "picture"
    role: Literal["image", "sample"]
    path: str
    prompt: str
    seed: int
    step: int | None = None
    index: int = 0


class Snapshot(Frame):
    """What a training has made by ``step``: a file or a folder."""

    type: Literal["snapshot"] = "snapshot"
    step: int
    path: str


class Checkpoint(Frame):
    """A folder from which the run can go on after ``step``."""

    type: Literal["checkpoint"] = "checkpoint"
    step: int
    path: str


class Done(Frame):
    """Ended well. ``outputs`` are files and folders by role."""

    type: Literal["done"] = "done"
    outputs: dict[str, str] = {}


class Failed(Frame):
    """``next_rung``: how far down the memory ladder it may yet succeed."""

    type: Literal["failed"] = "failed"
    code: str
    detail: str
    next_rung: int | None = None


class Stopped(Frame):
    """Stopped between two steps, as asked or because no go-on came."""

    type: Literal["stopped"] = "stopped"


class Gone(Frame):
    """The runner died, or was ended by its worker. Said by the link, not by the runner."""

    type: Literal["gone"] = "gone"
    exit_code: int
    killed_by_us: bool


class Deaf(Frame):
    """The runner does not heed the cancel of this run, and sees to others meanwhile: nobody waits
    for it. Said by the worker to itself; the run's last word is yet to come."""

    type: Literal["deaf"] = "deaf"


def spoils(word: object) -> bool:
    """Whether the runner ends after it: nobody knows what is left in the device's memory or
    context, and a fresh process does."""
    return isinstance(word, Failed) and word.code in ("internal_error", "out_of_memory")


Word = (
    Begun | Note | Report | Picture | Snapshot | Checkpoint | Done | Failed | Stopped | Gone | Deaf
)
LAST_WORDS = (Done, Failed, Stopped, Gone)


class Answer(Frame):
    type: Literal["answer"] = "answer"
    run: int
    word: Annotated[Word, Field(discriminator="type")]


ToRunner = Batch | GoOn | Stop
FromRunner = Ready | Holds | Answer

TO_RUNNER: TypeAdapter[ToRunner] = TypeAdapter(Annotated[ToRunner, Field(discriminator="type")])
FROM_RUNNER: TypeAdapter[FromRunner] = TypeAdapter(
    Annotated[FromRunner, Field(discriminator="type")]
)


def send(connection: socket.socket, frame: Frame) -> None:
    """Raises OSError when the other end is gone."""
    body = frame.model_dump_json().encode()
    connection.sendall(_LENGTH.pack(len(body)) + body)


def receive(connection: socket.socket) -> bytes | None:
    """The next frame's JSON; None when the other end is gone, however it went."""
    header = _exactly(connection, _LENGTH.size)
    if header is None:
        return None
    (length,) = _LENGTH.unpack(header)
    if length > _MAX_BYTES:
        return None
    return _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes | None:
    parts = []
    while count:
        try:
            part = connection.recv(min(count, 1 << 16))
        except OSError:
            return None
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
