"""A job, and what happened to it, as one look found them: read once, told to all who wait."""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import Response
from sqlalchemy.orm import Session
from sse_starlette import ServerSentEvent

from api.downloads import etag_of
from api.ranges import is_unchanged
from api.schemas.jobs import EventRead, JobRead
from core.db.models import Event, Job
from core.jobs.standing import Standing
from core.jobs.states import TERMINAL, State

NO_STORE = {"Cache-Control": "no-store"}
"""Or browsers would revalidate by themselves, and show a place in the queue that is long past."""


@dataclass(frozen=True)
class Sight:
    """``body`` is the contract's Job as JSON."""

    job_id: str
    last_seq: int
    state: str
    body: bytes

    @classmethod
    def of(cls, session: Session, standing: Standing, job: Job) -> "Sight":
        read = JobRead.of(job, standing.positions(session, [job]).get(job.id))
        return cls(job.id, job.last_seq, job.state, read.model_dump_json().encode())

    @property
    def etag(self) -> str:
        """Of what happened to the job. ``queue_position`` and ``usage`` move without it: they are
        of the moment, and another one at each look."""
        return etag_of(f"{self.job_id}.{self.last_seq}.{self.state}")

    @property
    def has_ended(self) -> bool:
        return self.state in TERMINAL

    def is_known(self, if_none_match: str | None) -> bool:
        return is_unchanged(self.etag, if_none_match)

    def answer(
        self, if_none_match: str | None = None, *, status: int = HTTPStatus.OK, **headers: str
    ) -> Response:
        """Empty for a client that knows it already."""
        headers = {"ETag": self.etag, **NO_STORE, **headers}
        if self.is_known(if_none_match):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(self.body, status, headers, media_type="application/json")


@dataclass(frozen=True)
class Told:
    """An event, as a stream writes it. ``ends``: nothing comes after it."""

    seq: int
    ends: bool
    chunk: bytes

    @classmethod
    def of(cls, event: Event) -> "Told":
        document = EventRead.of(event).model_dump_json()
        said = ServerSentEvent(document, id=str(event.seq), event=event.type)
        ends = event.type == "state" and State(event.data["state"]) in TERMINAL
        return cls(event.seq, ends, said.encode())

    @classmethod
    def of_many(cls, events: Sequence[Event]) -> list["Told"]:
        return [cls.of(event) for event in events]
