"""Everything Stillroom says no with.

    ServiceError                      code, status, a sentence
    ├── BadRequest            400     the request cannot be read
    ├── Unauthorized          401
    ├── InsufficientScope     403
    ├── NotFound              404     also: somebody else's
    │   └── PictureGone
    ├── NotAcceptable         406
    ├── Conflict              409     right request, wrong moment
    │   ├── WrongState
    │   ├── DatasetFrozen
    │   ├── InUse
    │   ├── PictureChanged
    │   ├── PictureUnreadable
    │   └── BaseNotAvailable
    ├── TooLarge              413
    ├── RangeNotSatisfiable   416
    ├── WrongHost             421
    ├── Unprocessable         422     readable, but it cannot be meant
    │   ├── NoUsableFile
    │   ├── DatasetEmpty
    │   ├── DatasetNotCaptioned
    │   ├── BaseUnknown
    │   ├── NotABase
    │   ├── LayoutMismatch
    │   ├── DoesNotFit
    │   ├── IdempotencyMismatch
    │   └── WebhookRefused
    ├── TooMany               429
    ├── Unavailable           503
    │   ├── WrongRevision
    │   └── DiskFull
    └── JobFailure                    a running job ends with this as its ``error``
        ├── NonFiniteLoss
        ├── OutOfMemory
        ├── ExportMismatch
        └── WrongCheckpoint

``detail`` is a sentence for the person who asked: it names the offending value and what to do.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing wrong inside a request: where (JSON pointer), which kind, and a sentence."""

    pointer: str
    code: str
    detail: str


class ServiceError(Exception):
    """The root. ``status`` is the HTTP status, ``code`` the stable name that programs match on."""

    status: int = 500
    code: str = "internal_error"
    title: str = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        errors: Sequence[Problem] = (),
        allowed_actions: Sequence[str] | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.errors = list(errors)
        self.allowed_actions = allowed_actions
        self.retry_after_seconds = retry_after_seconds


class BadRequest(ServiceError):
    status, code, title = 400, "malformed_request", "The request cannot be read"


class Unauthorized(ServiceError):
    status, code, title = 401, "unauthorized", "A valid key is needed"


class InsufficientScope(ServiceError):
    status, code, title = 403, "insufficient_scope", "The key may not do this"


class NotFound(ServiceError):
    status, code, title = 404, "not_found", "Not found"


class PictureGone(NotFound):
    """An imported picture's file is not where it lay, or not on this host."""

    code = "picture_gone"


class NotAcceptable(ServiceError):
    status, code, title = 406, "not_acceptable", "No such representation"


class Conflict(ServiceError):
    status, code, title = 409, "conflict", "Not in the present state"


class WrongState(Conflict):
    code = "wrong_state"


class DatasetFrozen(Conflict):
    code = "dataset_frozen"


class InUse(Conflict):
    """Somebody wants to delete what a job that has not ended needs; names the job."""

    code = "in_use"


class PictureChanged(Conflict):
    """An imported picture's file holds other bytes than it did."""

    code = "picture_changed"


class PictureUnreadable(Conflict):
    """An imported picture was damaged from the start, which its header does not tell."""

    code = "picture_unreadable"


class BaseNotAvailable(Conflict):
    code = "base_not_available"


class TooLarge(ServiceError):
    status, code, title = 413, "too_large", "The request is too large"


class RangeNotSatisfiable(ServiceError):
    status, code, title = 416, "range_not_satisfiable", "The range lies outside the file"


class WrongHost(ServiceError):
    status, code, title = 421, "wrong_host", "This server does not answer to that name"


class Unprocessable(ServiceError):
    status, code, title = 422, "invalid", "The request cannot be carried out as written"


class NoUsableFile(Unprocessable):
    code = "no_usable_file"


class DatasetEmpty(Unprocessable):
    code = "dataset_empty"


class DatasetNotCaptioned(Unprocessable):
    code = "dataset_not_captioned"


class BaseUnknown(Unprocessable):
    code = "base_unknown"


class NotABase(Unprocessable):
    """What the administrator wants to add is no base model of the family."""

    code = "not_a_base"


class DoesNotFit(Unprocessable):
    code = "does_not_fit"


class LayoutMismatch(Unprocessable):
    code = "layout_mismatch"


class IdempotencyMismatch(Unprocessable):
    code = "idempotency_mismatch"


class WebhookRefused(Unprocessable):
    """An address that this server does not call."""

    code = "webhook_refused"


class TooMany(ServiceError):
    status, code, title = 429, "too_many", "Too many at once"


class Unavailable(ServiceError):
    status, code, title = 503, "unavailable", "Not ready"


class WrongRevision(Unavailable):
    code = "wrong_revision"


DISK_FULL = "disk_full"


class DiskFull(Unavailable):
    code = DISK_FULL

    def __init__(self) -> None:
        super().__init__(
            "The server's disk is full. Nothing was lost; try again once somebody has made room.",
            retry_after_seconds=60,
        )


class JobFailure(ServiceError):
    """A job that ran and could not end well; becomes the job's ``error``, never an HTTP answer."""

    code = "job_failed"


class NonFiniteLoss(JobFailure):
    code = "non_finite_loss"


class OutOfMemory(JobFailure):
    """``next_rung``: how far down the ladder to try again, None at its end."""

    code = "out_of_memory"

    def __init__(self, detail: str, *, next_rung: int | None = None) -> None:
        super().__init__(detail)
        self.next_rung = next_rung


class ExportMismatch(JobFailure):
    code = "export_mismatch"


class WrongCheckpoint(JobFailure):
    code = "wrong_checkpoint"


class Interrupted(Exception):
    """Thrown into a recipe at any of its reports, to end it. Where there is something to go on from
    one more report comes, with a checkpoint; otherwise this comes back at once."""
