"""The application over a real home, and the people who call it."""

import io
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx2 import Response

from api.main import create_app
from core.artifacts import service as artifacts
from core.artifacts.service import StoredFile
from core.artifacts.store import Store
from core.config import Settings
from core.db.engine import Database
from core.db.models import Artifact
from core.ids import new_id
from core.owners import service as owners
from core.owners.service import Scope
from tests.support import elsewhere, uploads
from tests.support.databases import postgres_database


@dataclass(frozen=True)
class Server:
    """One application on each database for a folder of tests: owners keep the tests apart."""

    http: TestClient
    settings: Settings

    @property
    def app(self) -> FastAPI:
        assert isinstance(self.http.app, FastAPI)
        return self.http.app

    @property
    def database(self) -> Database:
        database: Database = self.app.state.database
        return database

    @property
    def store(self) -> Store:
        store: Store = self.app.state.store
        return store

    def person(self, *scopes: Scope, owner: str = "") -> "Person":
        with self.database.write() as session:
            key, token = owners.create(
                session, owner=owner or new_id("req"), name="test", scopes=scopes
            )
        return Person(self, key.owner, token)

    def worker(self, *bases: str, device: str = "cpu") -> str:
        return elsewhere.worker(self.database, *bases, device=device)


@dataclass(frozen=True)
class Person:
    """Somebody with a key."""

    server: Server
    owner: str
    token: str

    def call(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **request: Any
    ) -> Response:
        key = {"Authorization": f"Bearer {self.token}"}
        return self.server.http.request(method, path, headers=key | (headers or {}), **request)

    def get(self, path: str, **request: Any) -> Response:
        return self.call("GET", path, **request)

    def post(self, path: str, json: object = None, **request: Any) -> Response:
        body: dict[str, Any] = {} if json is None else {"json": json}
        return self.call("POST", path, **body, **request)

    def dataset(self, *files: tuple[str, bytes]) -> str:
        made = self.post("/v1/datasets", {"name": "dog", "kind": "instance"})
        dataset_id: str = made.json()["id"]
        if files:
            assert self.upload(dataset_id, *files).status_code == 201
        return dataset_id

    def upload(self, dataset_id: str, *files: tuple[str, bytes]) -> Response:
        return self.post(
            f"/v1/datasets/{dataset_id}/images",
            files=[("files", (name, io.BytesIO(content))) for name, content in files],
        )

    def fine_tune(self, **spec: Any) -> Response:
        dataset = spec.pop("dataset", None) or self.dataset(("dog.png", uploads.picture()))
        whole = {"base": "nano-ssd-1b", "dataset": dataset, "instance_prompt": "a sks dog"}
        return self.post("/v1/jobs", {"kind": "fine_tune", "spec": whole | spec})

    def distill(self, **spec: Any) -> Response:
        files = ("dog.png", uploads.picture()), ("dog.txt", b"a photo of a dog")
        dataset = spec.pop("dataset", None) or self.dataset(*files)
        whole = {"teacher": "nano-sdxl", "dataset": dataset}
        return self.post("/v1/jobs", {"kind": "distill", "spec": whole | spec})

    def artifact(self, files: dict[str, bytes], **about: Any) -> Artifact:
        """As a worker makes one: files in the store, then the row."""
        stored = []
        for path, content in files.items():
            key = f"test/{new_id('art')}"
            self.server.store.put_bytes(key, content)
            stored.append(StoredFile(path, len(content), uploads.sha256(content), key))
        given = {"kind": "lora", "role": "lora", "name": "my dog", "format": "peft"}
        with self.server.database.write() as session:
            return artifacts.record(
                session, owner=self.owner, **({"job_id": None} | given | about), files=stored
            )


@pytest.fixture(scope="package", params=["sqlite", "postgresql"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("home")
    with ExitStack() as stack:
        settings = Settings(home=home)
        if request.param == "postgresql":
            database = stack.enter_context(postgres_database())
            url = database.engine.url.render_as_string(hide_password=False)
            settings = Settings(home=home, database_url=url)
        http = TestClient(create_app(settings), base_url="http://localhost")
        yield Server(stack.enter_context(http), settings)


@pytest.fixture
def ann(server: Server) -> Person:
    return server.person("read", "write")


@pytest.fixture
def bob(server: Server) -> Person:
    return server.person("read", "write")


@pytest.fixture
def admin(server: Server) -> Person:
    return Person(server, owners.ADMIN, server.settings.admin_key_path.read_text().strip())
