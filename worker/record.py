"""Writes down what a runner says about one attempt: progress, pictures, and how it ended.

Files go to the store first, under keys that hold job, attempt and a server-made id; the rows that
name them appear in fenced transactions. So an attempt that lost its lease leaves nothing visible.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from core import crash
from core.artifacts import service as artifacts
from core.artifacts.service import StoredFile
from core.artifacts.store import Store
from core.config import Settings
from core.db.engine import Database
from core.db.models import Artifact, Job, Worker
from core.errors import DISK_FULL
from core.files.digest import sha256_of
from core.ids import new_id
from core.jobs import logs, pipelines, rates
from core.jobs.admission import parse
from core.jobs.attempt import Attempt, LeaseLost
from core.jobs.preemption import PREEMPTED
from core.jobs.progress import progress_of
from core.jobs.states import Wish
from core.jobs.transition import EventType
from core.specs import DistillSpec, FineTuneSpec
from core.workers import devices
from core.workers import service as workers
from worker.frames import Picture, Report
from worker.tail import MAX_LINES, Tail

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 1.0
"""Between two progress rows of a job."""

_OUTPUTS = {
    "lora": ("lora", "peft"),
    "lora_kohya": ("lora", "kohya"),
    "unet": ("unet", "diffusers"),
    "checkpoint": ("unet", "original"),
    "report": ("report", "json"),
}
"""Kind and format of what a training leaves, by role."""
_SNAPSHOTS = {"fine_tune": _OUTPUTS["lora"], "distill": _OUTPUTS["unet"]}


class Record:
    """One attempt's book. Every method raises LeaseLost once the attempt is no longer ours."""

    def __init__(
        self,
        job: Job,
        database: Database,
        store: Store,
        settings: Settings,
        *,
        worker: Worker,
        chip: str | None,
        tail: Tail,
        suspects: Sequence[str] = (),
    ) -> None:
        """``chip``: what computes; None where nobody has told. ``tail``: what its runner writes.
        ``suspects``: all jobs of its batch, any of which may be what its runner dies of."""
        self.job = job
        self.worker = worker
        self.chip = chip
        self.tail = tail
        self.suspects = suspects or [job.id]
        self.attempt = Attempt(job.id, job.attempt)
        self.database = database
        self.store = store
        self.settings = settings
        self.wish: Wish | None = None
        self._begun_at = time.monotonic()
        self._told_at = float("-inf")
        self._unsaid: dict[str, Any] = {}
        self._seconds_per_step: float | None = None
        self._first_step: tuple[int, float] | None = None
        self._pictures: list[tuple[int, str]] = []
        """With their places in the result."""
        self._snapshots: list[str] = []
        self._kept_snapshots: set[int] = set()
        self._checkpoints: list[dict[str, Any]] = list(job.checkpoints)

    @property
    def device_seconds(self) -> float:
        return round(time.monotonic() - self._begun_at, 3)

    def begin(self) -> None:
        """Takes away what earlier attempts left, but for what came before the checkpoint that this
        one goes on from: it makes the rest again."""
        if self.job.attempt == 1:
            return self.tail.begin()
        step = self._checkpoints[0]["step"] if self._checkpoints else 0
        message = f"going on from step {step}" if step else "beginning again"
        with self.database.write() as session:
            self.tail.begin(logs.tail(session, self.job.id, MAX_LINES))
            kept = artifacts.discard_made_by(session, self.job.id, from_step=step)
            self.attempt.tell(session, "log", {"message": message})
        self._pictures = [(0, artifact.id) for artifact in kept if artifact.role == "sample"]
        snapshots = [artifact for artifact in kept if artifact.role == "snapshot"]
        self._snapshots = [artifact.id for artifact in snapshots]
        self._kept_snapshots = {artifact.facts["step"] for artifact in snapshots}
        files = [artifact.files for artifact in kept]
        files += [checkpoint["files"] for checkpoint in self._checkpoints]
        keep = frozenset(file["store_key"] for file in chain.from_iterable(files))
        for number in range(1, self.job.attempt):
            self.store.delete_prefix(self._folder(number), keep=keep)

    def checkpoint(self, step: int, files: Sequence[StoredFile]) -> None:
        """Names a checkpoint as the newest; of those before it one stays."""
        newest = {"step": step, "files": [asdict(file) for file in files]}
        kept, dropped = [newest, *self._checkpoints[:1]], self._checkpoints[1:]
        message = {"message": f"saved step {step}"}
        crash.point("before the checkpoint's row")
        # whatever befell the attempts before this one, they were not in vain
        further = {"checkpoints": kept, "losses": 0, "pauses": self.attempt.number - 1}
        with self.database.write() as session:
            self.attempt.tell(session, "log", message, **further)
        crash.point("after the checkpoint's row")
        self._checkpoints = kept
        for checkpoint in dropped:
            for file in checkpoint["files"]:
                if file["store_key"].startswith(f"jobs/{self.job.id}/"):  # or it is its parent's
                    self.store.delete(file["store_key"])

    def progress(self, report: Report) -> None:
        """Keeps the newest of each figure, and writes a row of them at most once a second."""
        self._seconds_per_step = report.seconds_per_step or self._seconds_per_step
        if report.step > 0 and self._first_step is None:
            self._first_step = (report.step, self.device_seconds)
        said = report.model_dump(exclude_none=True, exclude={"type"})
        self._unsaid = {**self._unsaid, **said}
        if time.monotonic() - self._told_at >= PROGRESS_SECONDS:
            with self.database.write() as session:
                self._tell_all(session)
            self._told_at = time.monotonic()
            self._unsaid = {}

    def note(self, text: str) -> None:
        with self.database.write() as session:
            self.attempt.tell(session, "log", {"message": text})

    def put(self, path: Path) -> list[StoredFile]:
        """The file, or every file of the folder, in the store, under keys of their own; no row
        names them yet. A folder's begin with its name."""
        below = sorted(path.iterdir()) if path.is_dir() else [path]
        folder = f"{self._folder(self.job.attempt)}/{new_id('art')}"  # the artifact's id to be
        files = []
        for file in below:
            inside = str(file.relative_to(path.parent))
            self.store.put_file(f"{folder}/{inside}", file)
            size, digest = file.stat().st_size, sha256_of(file)
            files.append(StoredFile(inside, size, digest, f"{folder}/{inside}"))
        return files

    def picture(self, picture: Picture, files: Sequence[StoredFile]) -> None:
        facts = picture.model_dump(include={"prompt", "seed", "step"}, exclude_none=True)
        event: EventType = "sample" if picture.role == "sample" else "artifact"
        artifact_id = _artifact_of(files)
        with self.database.write() as session:
            if self._add(session, ("image", _format_of(files)), picture.role, files, facts):
                self.attempt.tell(session, event, {"artifact": artifact_id, **facts})
        self._pictures.append((picture.index, artifact_id))

    def snapshot(self, step: int, files: Sequence[StoredFile]) -> None:
        """What a training has made on the way. One that an earlier attempt has told stays the one:
        others may name it."""
        if step in self._kept_snapshots:
            return
        kind, artifact_id = _SNAPSHOTS[self.job.kind], _artifact_of(files)
        told = {"artifact": artifact_id, "role": "snapshot"}
        with self.database.write() as session:
            facts = self._facts_of(kind[0]) | {"step": step}
            if self._add(session, kind, "snapshot", files, facts):
                self.attempt.tell(session, "artifact", told)
        self._snapshots.append(artifact_id)

    def succeed(self, files: Mapping[str, Sequence[StoredFile]]) -> None:
        """``files`` are the outputs by role."""
        crash.point("before success")
        with self.database.write() as session:
            self._tell_all(session)
            made = {role: _artifact_of(stored) for role, stored in files.items()}
            for role, stored in files.items():
                kind = _OUTPUTS[role]
                self._add(session, kind, role, stored, self._facts_of(kind[0]))
                self.attempt.tell(session, "artifact", {"artifact": made[role], "role": role})
            self._remember_rate(session)
            devices.clear(session, self.worker.device_id)
            self.attempt.succeed(session, self._result(made))
            crash.point("inside success")
        crash.point("after success")

    def fail(self, code: str, detail: str) -> None:
        with self.database.write() as session:
            self._tell_all(session)
            self.attempt.fail(session, code, detail)
            crash.point("inside a failure")
        crash.point("after a failure")

    def cancel(self) -> None:
        with self.database.write() as session:
            self._tell_all(session)
            self.attempt.cancel(session)
            crash.point("inside a cancel")
        crash.point("after a cancel")

    def give_back(self, reason: str, *, pause_seconds: float = 0.0, **values: Any) -> None:
        """Through no fault of the job's: no loss is counted against it."""
        crash.point("before it is given back")
        with self.database.write() as session:
            self._tell_all(session)
            self._give_back(session, reason, pause_seconds=pause_seconds, **values)
        crash.point("after it is given back")

    def make_way(self) -> None:
        """For a picture of higher priority."""
        self.give_back(PREEMPTED, in_vain=False)

    def fall_silent(self) -> None:
        """This worker was away for most of a lease, or could not say that it was there."""
        pause_seconds = self.settings.retry_seconds[0]
        self.give_back("worker_silent", pause_seconds=pause_seconds, in_vain=False)

    def wait_for_room(self) -> None:
        """The disk is full: again later, as often as it takes."""
        self.give_back(DISK_FULL, pause_seconds=self.settings.retry_seconds[-1], in_vain=False)

    def step_down(self, rung: int) -> None:
        """It was too much for the device: again, in a fresh process, on a lower rung."""
        self.give_back("out_of_memory", rung=rung)

    def lose_runner(self, how: str) -> None:
        """The runner died of this job, perhaps, or hung: again after a pause, but not for ever, and
        preferably elsewhere. A device that lost other jobs too is to blame, and not the job."""
        pauses = self.settings.retry_seconds
        with self.database.write() as session:
            device = devices.lose(session, self.worker.device_id, self.suspects)
            losses = session.get_one(Job, self.job.id).losses + 1
            self._tell_all(session)
            if device.state == devices.QUARANTINED:
                log.error("%s is in quarantine: %s", self.worker.device, device.reason)
                self._give_back(session, "device_quarantined")
            elif losses >= self.settings.max_losses:
                self.attempt.fail(session, "worker_lost", _given_up(how, losses))
            else:
                others = {worker.device_id for worker in workers.open_workers(session)} - {
                    self.worker.device_id
                }
                self._give_back(
                    session,
                    "runner_lost",
                    pause_seconds=pauses[min(losses, len(pauses)) - 1],
                    losses=losses,
                    shuns=self.worker.device_id if others else None,
                )
            crash.point("inside a loss")
        crash.point("after a loss")

    def lose_idle_runner(self) -> None:
        """It died before it had begun this job, which cannot be to blame; the device may be."""
        with self.database.write() as session:
            device = devices.lose(session, self.worker.device_id, self.suspects)
            if device.state == devices.QUARANTINED:
                log.error("%s is in quarantine: %s", self.worker.device, device.reason)
            pause_seconds = self.settings.retry_seconds[0]
            self._give_back(session, "runner_lost", pause_seconds=pause_seconds)

    def _give_back(self, session: Session, reason: str, **values: Any) -> None:
        if self.attempt.give_back(session, reason, **values) is None:
            raise LeaseLost

    def _result(self, made: dict[str, str]) -> dict[str, Any]:
        in_place = sorted(self._pictures, key=itemgetter(0))
        pictures = [artifact_id for _, artifact_id in in_place]
        if self.job.kind == "generate":
            return {"images": pictures}
        return {**made, "samples": pictures, "snapshots": self._snapshots}

    def _remember_rate(self, session: Session) -> None:
        """For the dry runs to come; a job that was begun more than once measures nothing, nor does
        one that others were drawn with."""
        is_alone = len(self.suspects) == 1
        if self.chip is None or self.job.attempt > 1 or self.job.parent or not is_alone:
            return
        seconds, steps = self.device_seconds, self.job.progress["steps"]
        step, at_seconds = self._first_step or (0, 0.0)
        # a drawing does not tell its pace: it is that of the steps after the first
        per_step = self._seconds_per_step or (seconds - at_seconds) / max(1, steps - step)
        rates.remember(
            session,
            self.chip,
            self.job.owner,
            parse(self.job.kind, self.job.spec),
            seconds_per_step=per_step,
            other_seconds=max(0.0, seconds - steps * per_step),
        )

    def _tell_all(self, session: Session) -> None:
        """What is not written yet, so that the last row of a job is its last step."""
        if self.tail.changed:
            logs.keep(session, self.job.id, self.tail.take())
        self._tell_progress(session)

    def _tell_progress(self, session: Session) -> None:
        if not self._unsaid:
            return
        report = Report.model_validate(self._unsaid)
        progress = progress_of(
            report.step, report.steps, message=report.message, eta_seconds=_eta_seconds(report)
        )
        figures = report.model_dump(
            include={"loss", "loss_step", "terms", "learning_rate", "seconds_per_step"},
            exclude_none=True,
        )
        job = self.attempt.tell(session, "progress", progress | figures, progress=progress)
        self.wish = workers.wish(job.cancel_requested, job.pause_requested)

    def _folder(self, attempt: int) -> str:
        return f"jobs/{self.job.id}/{attempt}"

    def _add(
        self,
        session: Session,
        kind: tuple[str, str],
        role: str,
        files: Sequence[StoredFile],
        facts: dict[str, Any],
    ) -> bool:
        """A row for the files, of ``kind`` with its format; False: it is there already. A commit
        whose answer got lost is tried again."""
        artifact_id = _artifact_of(files)
        if session.get(Artifact, artifact_id):
            return False
        base, layout = self._origin(session, kind[0])
        artifacts.record(
            session,
            artifact_id=artifact_id,
            owner=self.job.owner,
            job_id=self.job.id,
            kind=kind[0],
            role=role,
            name=files[0].path.partition("/")[0],
            format=kind[1],
            files=files,
            base=base,
            layout=layout,
            facts=facts,
        )
        return True

    def _origin(self, session: Session, kind: str) -> tuple[str, str]:
        """The base that an artifact belongs to, and its layout: of a student its own, of the base
        that lends it the rest."""
        spec = parse(self.job.kind, self.job.spec)
        if isinstance(spec, DistillSpec) and kind == "unet":
            return self.job.base, spec.student.layout
        base = pipelines.find(session, self.job.owner, spec.base)
        return base.id, base.layout.id

    def _facts_of(self, kind: str) -> dict[str, Any]:
        spec = parse(self.job.kind, self.job.spec)
        if kind == "lora" and isinstance(spec, FineTuneSpec):
            told = spec.model_dump(include={"instance_prompt", "trigger"})
            return {"rank": spec.lora.rank, "alpha": spec.lora.alpha, **told}
        if kind == "unet" and isinstance(spec, DistillSpec):
            begun = {"layers": spec.student.layers} if spec.start is None else {}
            return {"teacher": spec.teacher, "start": spec.start, **begun}
        return {}


def _format_of(files: Sequence[StoredFile]) -> str:
    """Of a picture, told by its name."""
    suffix = files[0].path.rpartition(".")[2]
    return {"jpg": "jpeg"}.get(suffix, suffix)


def _artifact_of(files: Sequence[StoredFile]) -> str:
    """The id that the files' folder in the store is named by."""
    return files[0].store_key.split("/")[3]


def _given_up(how: str, losses: int) -> str:
    return (
        f"The process that ran it {how} {losses} times without getting further, so it is not tried "
        "again. Its logs say more; a smaller job may fit."
    )


def _eta_seconds(report: Report) -> float | None:
    if report.seconds_per_step is None:
        return None
    return round(report.seconds_per_step * (report.steps - report.step), 1)
