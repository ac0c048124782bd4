"""/metrics: what a Prometheus server asks for, now and then."""

from collections.abc import Iterable, Iterator
from typing import get_args

from fastapi import APIRouter, Response
from prometheus_client import Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from api.deps import BoardDep, ScraperDep, SettingsDep, TallyDep
from core.config import Settings
from core.files.space import free_bytes
from core.jobs.figures import Figures
from core.jobs.states import State
from core.specs import SPECS
from core.webhooks.outbox import DeliveryState
from core.workers.devices import DeviceState

PATH = "/metrics"
router = APIRouter(tags=["health"])


@router.get(
    PATH,
    response_class=Response,
    responses={200: {"content": {CONTENT_TYPE_PLAIN_0_0_4: {}}, "description": ""}},
)
def scrape(
    _scraper: ScraperDep, settings: SettingsDep, board: BoardDep, tally: TallyDep
) -> Response:
    """Prometheus' text. Requests are counted by this process; jobs, workers and devices are those
    of the database, as every process on it tells them. Needs an admin key, unless
    `STILLROOM_METRICS_OPEN` is set."""
    text = generate_latest(tally.registry) + generate_latest(_House(settings, board.figures()))
    return Response(
        text, media_type=CONTENT_TYPE_PLAIN_0_0_4, headers={"Cache-Control": "no-store"}
    )


class _House(Collector):
    """The house's figures as series; ``figures`` is None while the database does not tell."""

    def __init__(self, settings: Settings, figures: Figures | None) -> None:
        self.settings = settings
        self.figures = figures

    def collect(self) -> Iterator[Metric]:
        up = int(self.figures is not None)
        yield GaugeMetricFamily("stillroom_database_up", "Whether the database answers.", up)
        if self.figures:
            yield from _jobs_and_devices(self.figures)
        yield GaugeMetricFamily(
            "stillroom_disk_free_bytes",
            "On the disk of the home, of the host that answers.",
            free_bytes(self.settings.root),
        )


def _jobs_and_devices(figures: Figures) -> Iterator[Metric]:
    """Every combination, also those that there are none of: a graph has no gaps then."""
    yield _by(
        "stillroom_jobs",
        "Jobs that the database holds, by kind and state.",
        ("kind", "state"),
        (((kind, state), figures.jobs[kind, state]) for kind in SPECS for state in State),
    )
    yield GaugeMetricFamily(
        "stillroom_queue_depth",
        "Jobs that wait for a device and for nothing else.",
        figures.depth,
    )
    yield GaugeMetricFamily(
        "stillroom_queue_oldest_seconds",
        "How long the first of them has waited.",
        figures.oldest_seconds,
    )
    yield _by(
        "stillroom_workers",
        "Workers that live; ready ones have a runner.",
        ("ready",),
        (((str(ready).lower(),), figures.workers[ready]) for ready in (True, False)),
    )
    yield _by(
        "stillroom_devices",
        "Devices of live workers, by state.",
        ("state",),
        (((state,), figures.devices[state]) for state in get_args(DeviceState)),
    )
    yield _by(
        "stillroom_webhook_deliveries",
        "What webhooks are to be told, and what they were or could not be in the last seven days.",
        ("state",),
        (((state,), figures.deliveries[state]) for state in get_args(DeliveryState)),
    )


def _by(
    name: str,
    help: str,
    labels: tuple[str, ...],
    values: Iterable[tuple[tuple[str, ...], float]],
) -> Metric:
    family = GaugeMetricFamily(name, help, labels=labels)
    for told, value in values:
        family.add_metric(told, value)
    return family
