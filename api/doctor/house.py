"""What is kept and what runs: the home, its database, broker and store, and a server."""

from collections.abc import Iterator

from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from api.client import Client, ClientError
from api.doctor.observation import Observation
from core import bases
from core.artifacts.store import Store
from core.config import Settings
from core.db import migrate
from core.db.engine import Database
from core.errors import ServiceError, WrongRevision


def checks(settings: Settings) -> Iterator[Observation]:
    if not (settings.database_url or settings.sqlite_path.is_file()):
        yield Observation(
            "note", "home", f"There is nothing at {settings.root} yet: `stillroom serve` begins it."
        )
        return
    yield database(settings)
    if not settings.embedded:
        yield broker(settings)
    yield store(settings)
    yield models(settings)


def database(settings: Settings) -> Observation:
    try:
        url = make_url(settings.effective_database_url)
        opened = Database.of(settings)
    except (SQLAlchemyError, ImportError, ValueError):  # their words may hold the password
        return Observation(
            "bad",
            "database",
            "STILLROOM_DATABASE_URL is no address of a database: one looks like "
            "postgresql+psycopg://user@host/name.",
        )
    told = f"{url.get_backend_name()} at {url.host or url.database}"
    try:
        with opened.read() as session:
            migrate.require(session, migrate.head())
    except WrongRevision as error:
        return Observation("bad", "database", f"{told}: {error.detail}")
    except (ServiceError, SQLAlchemyError):
        return Observation(
            "bad",
            "database",
            f"{told} does not answer, or has no tables yet: `stillroom migrate` makes them.",
        )
    finally:
        opened.dispose()
    return Observation("good", "database", told)


def broker(settings: Settings) -> Observation:
    try:
        with Redis.from_url(settings.broker_url.get_secret_value(), socket_timeout=3) as asked:
            asked.ping()
    except ValueError:  # its words may hold the password
        return Observation(
            "bad",
            "broker",
            "STILLROOM_BROKER_URL is no address of a broker: one looks like redis://host:6379/0.",
        )
    except RedisError as error:
        return Observation(
            "note",
            "broker",
            f"It does not answer ({error}): jobs begin up to {settings.poll_seconds:g} s late. "
            "Look at STILLROOM_BROKER_URL.",
        )
    return Observation("good", "broker", "It answers.")


def store(settings: Settings) -> Observation:
    try:
        Store.of(settings).check()
    except ServiceError as error:
        return Observation("bad", "store", error.detail)
    return Observation("good", "store", settings.store_url or str(settings.blobs_path))


def models(settings: Settings) -> Observation:
    here = bases.ids_here(settings)
    real = [each for each in here if each not in bases.CATALOGUE or not bases.find(each).is_ours]
    if not real:
        return Observation(
            "note",
            "models",
            f"Only {', '.join(here)} are here, to try things: `stillroom models pull ssd-1b` "
            "fetches a real one.",
        )
    return Observation("good", "models", ", ".join(here))


def server(client: Client) -> Iterator[Observation]:
    try:
        client.healthz()
    except ClientError:
        yield Observation("note", "server", f"Nobody answers at {client.url}.")
        return
    try:
        client.readyz()
        yield Observation("good", "server", f"{client.url} answers.")
        for worker in client.list_workers():
            if worker["state"] != "open":
                yield Observation(
                    "note", "worker", f"{worker['device']} is {worker['state']}: {worker['reason']}"
                )
    except ClientError as error:
        yield Observation("bad", "server", f"{client.url}: {error}")
