"""The application: routes, refusals, and what lives as long as the server does."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import anyio.to_thread
from fastapi import FastAPI

from api import errors, openapi
from api.events import feeding
from api.middleware import BodyCap, HostCheck, KeyCheck, RequestIds, ZeroBytes
from api.pace import PaceCheck
from api.picture_places import PicturePlaces
from api.routes import (
    artifacts,
    datasets,
    docs,
    health,
    jobs,
    keys,
    links,
    metrics,
    models,
    page,
    queue,
    webhooks,
    workers,
)
from api.tally import Tally
from core.artifacts.store import Store
from core.config import Settings
from core.datasets.decoder_pool import DecoderPool
from core.db.engine import Database
from core.jobs.bell import bell_of
from core.jobs.figures import Board
from core.jobs.reaper import Reaper
from core.jobs.standing import Standing
from core.owners import service as owners
from core.retention import Retention
from core.webhooks.deliverer import delivering


def create_app(settings: Settings) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with ExitStack() as stack:
            await anyio.to_thread.run_sync(_start, app, settings, stack)
            app.state.picture_places = PicturePlaces()
            state = app.state
            async with feeding(
                state.database, state.standing, max_waiting=settings.max_waiting
            ) as state.feed:
                yield

    app = FastAPI(
        title="Stillroom",
        version=_version(),
        description="Fine-tunes, distils and runs SSD-1B and its SDXL family.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=openapi.operation_id,
    )
    app.state.settings = settings
    rooms = (
        *(datasets, jobs, queue, workers, artifacts, links, models, webhooks, keys),
        *(health, metrics, docs, page),
    )
    routers = [room.router for room in rooms]
    for router in routers:
        app.include_router(router)
    app.state.routes = [route for router in routers for route in router.routes]
    errors.install(app)
    openapi.install(app)
    app.add_middleware(BodyCap, settings=settings)
    app.add_middleware(PaceCheck, settings=settings)
    app.add_middleware(KeyCheck, settings=settings)
    app.add_middleware(ZeroBytes)
    app.add_middleware(HostCheck, settings=settings)
    app.state.tally = Tally()
    app.add_middleware(RequestIds, tally=app.state.tally)
    return app


def _start(app: FastAPI, settings: Settings, stack: ExitStack) -> None:
    """Opens everything; what is opened, ``stack`` closes in reverse."""
    from core.db.migrate import head, upgrade  # Alembic is a fifth of our imports, needed once

    settings.prepare()
    stack.enter_context(_spooling_in(settings.scratch_path))
    upgrade(settings.effective_database_url)
    database = Database.of(settings)
    stack.callback(database.dispose)
    with database.write() as session:
        owners.ensure_admin_key(session, settings.admin_key_path)
    app.state.database, app.state.revision = database, head()
    app.state.store = Store.of(settings)
    app.state.decoders = DecoderPool(settings)
    stack.callback(app.state.decoders.close)
    app.state.bell = bell_of(settings)
    stack.callback(app.state.bell.close)
    app.state.standing, app.state.board = Standing(), Board(database)
    for routine in (Reaper(database, settings), Retention(database, app.state.store, settings)):
        routine.start()
        stack.callback(routine.stop)
    stack.enter_context(delivering(database, settings))


@contextmanager
def _spooling_in(folder: Path) -> Iterator[None]:
    """Uploads too large for memory wait in the home, not in a /tmp that may be small or shared."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def _version() -> str:
    try:
        return version("stillroom")
    except PackageNotFoundError:  # a checkout that was never installed
        return "0"
