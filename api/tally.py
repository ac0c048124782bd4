"""How many requests there were, and how long they took: by route, never by what a client wrote."""

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from starlette.types import Scope

BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
OTHER = "other"
"""Addresses that no route has, and methods that nobody here takes."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

disable_created_metrics()  # type: ignore[no-untyped-call]  # of each: when it began


class Tally:
    """Of this process since its start. Safe to share between threads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._answers = Counter(
            "stillroom_http_requests_total",
            "Requests that were answered, by route.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "stillroom_http_request_duration_seconds",
            "From the request to the end of its answer; streams and held answers included.",
            ("route", "method"),
            buckets=BUCKETS_SECONDS,
            registry=self.registry,
        )

    def count(self, scope: Scope, status: int | None, seconds: float) -> None:
        """``status``: None where the client left before there was one."""
        place = _route_of(scope), _method_of(scope)
        self._answers.labels(*place, str(status or "none")).inc()
        self._seconds.labels(*place).observe(seconds)


def _route_of(scope: Scope) -> str:
    """Its template: ``/v1/jobs/{job_id}``. What was refused before it was routed has none."""
    return str(getattr(scope.get("route"), "path", OTHER))


def _method_of(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in _METHODS else OTHER
