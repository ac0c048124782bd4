"""The ten promises of the queue, checked from the database and the store alone.

Each check returns sentences about what is wrong; no sentence, no violation.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from sqlalchemy import select

from core.artifacts.store import Store
from core.db.engine import Database
from core.db.models import Artifact, Event, Job
from core.errors import NotFound
from core.jobs.states import TERMINAL


@dataclass(frozen=True)
class Expected:
    """What the test knows and the database cannot.

    ``accepted``: ids of jobs for which a 201 was sent. ``failed``: those that had to fail.
    ``checkpoint_steps``: at most so many steps apart. ``recoveries_seconds``: how long each job
    that lost its worker was out of the queue, and ``recovery_seconds`` the bound on that.
    ``is_clock_steady``: times that were written can be compared, and I6 be told from them.
    """

    accepted: Collection[str]
    failed: Collection[str] = ()
    cancelled: Collection[str] = ()
    checkpoint_steps: int = 1
    recoveries_seconds: Sequence[float] = ()
    recovery_seconds: float = 3.0
    is_clock_steady: bool = True


@dataclass
class History:
    """A job with all that is told of it."""

    job: Job
    events: list[Event] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)

    @property
    def moves(self) -> list[Event]:
        return [event for event in self.events if event.type == "state"]


def check(database: Database, store: Store, expected: Expected) -> list[str]:
    """All violations, each under the name of its invariant."""
    histories = _read(database)
    found = [
        f"{name}: {sentence}"
        for name, rule in _RULES.items()
        for history in histories.values()
        for sentence in rule(history, store, expected)
    ]
    if expected.is_clock_steady:
        found += [f"I6: {sentence}" for sentence in _held_twice(histories.values())]
    accepted = set(expected.accepted)
    found += [f"I9: {lost} was accepted and is not there" for lost in accepted - histories.keys()]
    found += [f"I9: nobody was told of {other}" for other in histories.keys() - accepted]
    found += [
        f"I10: a job came back after {seconds:.1f} s"
        for seconds in expected.recoveries_seconds
        if seconds > expected.recovery_seconds
    ]
    return found


def _read(database: Database) -> dict[str, History]:
    with database.read() as session:
        histories = {job.id: History(job) for job in session.scalars(select(Job))}
        for event in session.scalars(select(Event).order_by(Event.job_id, Event.seq)):
            histories[event.job_id].events.append(event)
        for artifact in session.scalars(select(Artifact).where(Artifact.job_id.is_not(None))):
            histories[str(artifact.job_id)].artifacts.append(artifact)
    return histories


def _ended_once(history: History, _store: Store, _expected: Expected) -> Iterator[str]:
    """I1"""
    ends = [event for event in history.moves if event.data["state"] in TERMINAL]
    if history.job.state not in TERMINAL:
        yield f"{history.job.id} is {history.job.state}"
    elif [event.data["state"] for event in ends] != [history.job.state]:
        yield f"{history.job.id} is {history.job.state} and has {len(ends)} ends"
    elif history.moves[-1] is not ends[0]:
        yield f"{history.job.id} went on after its end"


def _completed_once(history: History, store: Store, _expected: Expected) -> Iterator[str]:
    """I2"""
    job = history.job
    if job.state != "succeeded":
        return
    completed = [event for event in history.moves if event.data["state"] == "succeeded"]
    if [event.attempt for event in completed] != [job.attempt]:
        yield f"{job.id} was completed by {[event.attempt for event in completed]}"
    named = {artifact.id: artifact for artifact in history.artifacts}
    for artifact_id in _ids_in(job.result or {}):
        if artifact_id not in named:
            yield f"{job.id} names {artifact_id}, which is not there"
    for artifact in history.artifacts:
        for file in artifact.files:
            if _digest(store, file["store_key"]) not in (None, file["sha256"]):
                yield f"{file['path']} of {artifact.id} is not what was made"


def _nothing_dangles(history: History, store: Store, _expected: Expected) -> Iterator[str]:
    """I3"""
    files = [file for artifact in history.artifacts for file in artifact.files]
    files += [file for saved in history.job.checkpoints for file in saved["files"]]
    for file in files:
        try:
            size = store.size(file["store_key"])
        except NotFound:
            yield f"{history.job.id} names {file['path']}, which the store has not"
        else:
            if size != file["bytes"]:
                yield f"{file['path']} of {history.job.id} has {size} of {file['bytes']} bytes"


def _attempts_grow(history: History, _store: Store, _expected: Expected) -> Iterator[str]:
    """I4"""
    job = history.job
    if [event.seq for event in history.events] != list(range(1, job.last_seq + 1)):
        yield f"{job.id} has events with a gap"
    if any(after.attempt < before.attempt for before, after in pairwise(history.events)):
        yield f"{job.id} was written to by an attempt that had lost it"
    begun = [event.attempt for event in history.moves if event.data["state"] == "running"]
    if begun != list(range(1, job.attempt + 1)):
        yield f"the attempts of {job.id} are {begun}"


def _little_is_lost(history: History, _store: Store, expected: Expected) -> Iterator[str]:
    """I5"""
    if history.job.kind == "generate":
        return
    reached = 0
    for event in history.events:
        if event.type == "progress":
            reached = max(reached, event.data["step"])
        said = str(event.data.get("message", ""))
        resumed = said.removeprefix("going on from step ")
        if said == "beginning again" or resumed != said:
            begins_at = 0 if resumed == said else int(resumed)
            if reached - begins_at > expected.checkpoint_steps:
                yield f"{history.job.id} lost {reached - begins_at} steps"
            reached = begins_at


def _nothing_runs(history: History, _store: Store, _expected: Expected) -> Iterator[str]:
    """I7"""
    if history.job.state == "running":
        yield f"{history.job.id} is said to run on {history.job.worker_id}"


def _failed_as_it_should(history: History, _store: Store, expected: Expected) -> Iterator[str]:
    """I8"""
    job = history.job
    told = job.state, job.error and job.error["code"]
    for state, ids in (("failed", expected.failed), ("cancelled", expected.cancelled)):
        if (job.state == state) != (job.id in ids):
            yield f"{job.id} ended as {told}"


Rule = Callable[[History, Store, Expected], Iterator[str]]
_RULES: dict[str, Rule] = {
    "I1": _ended_once,
    "I2": _completed_once,
    "I3": _nothing_dangles,
    "I4": _attempts_grow,
    "I5": _little_is_lost,
    "I7": _nothing_runs,
    "I8": _failed_as_it_should,
}


def _held_twice(histories: Collection[History]) -> Iterator[str]:
    """I6: of the times at which jobs ran, no two on one device overlap, unless they were begun
    together, as drawings of one batch."""
    held: dict[str, list[tuple[datetime, datetime, str, str]]] = {}
    for history in histories:
        for move, after in pairwise([*history.moves, None]):
            if move is not None and move.data["state"] == "running":
                until = after.at if after else datetime.max.replace(tzinfo=move.at.tzinfo)
                batch = move.data.get("batch", history.job.id)
                if batch != history.job.id and history.job.kind != "generate":
                    yield f"{history.job.id} is a {history.job.kind} job and was in a batch"
                times = held.setdefault(move.data["device"], [])
                times.append((move.at, until, history.job.id, batch))
    for device, times in held.items():
        last_until, last, last_batch = datetime.min.replace(tzinfo=UTC), "", ""
        for since, until, job_id, batch in sorted(times):
            if since < last_until and batch != last_batch:
                yield f"{device} ran {last} and {job_id} at once"
            if until > last_until:
                last_until, last, last_batch = until, job_id, batch


def _ids_in(result: dict[str, Any]) -> Iterator[str]:
    for value in result.values():
        yield from [value] if isinstance(value, str) else value


def _digest(store: Store, key: str) -> str | None:
    """None where there is no such file: another rule's concern."""
    try:
        chunks = store.open(key, 0, store.size(key))
    except NotFound:
        return None
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
