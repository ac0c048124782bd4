"""The HTTP client: the contract as methods, its refusals as one exception.

with Client("http://127.0.0.1:8400", key) as client:
    dataset = client.create_dataset("my dog")
    client.upload(dataset["id"], [Path("pictures")])
    job = client.fine_tune({"base": "nano-ssd-1b", "dataset": dataset["id"], ...})
    job = client.wait(job["id"])
    client.download(job["result"]["lora"], Path("dog.safetensors"))
"""

import hashlib
import ipaddress
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, cast
from urllib.parse import quote
from uuid import uuid4

import httpx

from api.answers import ENDED, Artifact, Dataset, Event, Forecast, Job, Queue, Upload, Worker
from core.files.atomic import replacing
from core.files.digest import sha256_of

WAIT_SECONDS = 5
"""So long the server holds its answer about a job to which nothing happens; then its place in the
queue is looked up anew."""
POLL_SECONDS = 0.25
"""Between two looks at a server that is away, or that does not hold answers."""
PAGE = 200
"""Rows asked for at once; the most that a list gives."""
FILES_A_REQUEST = 200
"""The server takes 1,000; each is an open file here, and 256 of those is a common limit."""


class ClientError(Exception):
    """A sentence for the person at the terminal."""


class NoAnswer(ClientError):
    """Nobody there, or gone while speaking."""


class BrokenConnection(NoAnswer):
    """What was asked for may have been done, or not."""


class DamagedDownload(ClientError):
    """What arrived is not what the server has; nothing was kept."""


class ApiError(ClientError):
    """The server said no. ``problem`` is its whole answer, an RFC 9457 document."""

    def __init__(self, problem: Mapping[str, Any]) -> None:
        self.problem = problem
        self.status: int = problem.get("status", 500)
        self.code: str = problem.get("code", "unknown")
        self.detail: str = problem.get("detail") or f"The server answered {self.status}."
        self.errors: list[dict[str, str]] = problem.get("errors") or []
        further = [error for error in self.errors if error.get("detail") != self.detail]
        super().__init__("\n".join([self.detail, *map(_where, further)]))


def _where(error: Mapping[str, str]) -> str:
    return f"  {error.get('pointer', '')}: {error.get('detail', '')}"


class Client:
    """One connection pool to one server. Ids in, the contract's documents out."""

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        timeout_seconds: float = 120.0,
        patience_seconds: float = 60.0,
    ) -> None:
        """
        Args:
            timeout_seconds: for one answer to begin; uploads and downloads may take longer.
            patience_seconds: how long ``watch`` waits for a server that is away.
        """
        self.url = url.rstrip("/")
        self.patience_seconds = patience_seconds
        self._held = httpx.Timeout(timeout_seconds + WAIT_SECONDS, connect=5.0)
        host = _host_of(self.url)
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout_seconds, connect=5.0),
            trust_env=not _is_loopback(host),  # a proxy of this user does not see our loopback
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # Datasets

    def create_dataset(
        self, name: str, kind: Literal["instance", "captioned"] = "instance"
    ) -> Dataset:
        return cast(Dataset, self._post("/v1/datasets", {"name": name, "kind": kind}))

    def upload(self, dataset_id: str, paths: Sequence[Path]) -> Upload:
        """Sends files, zips and whole folders, a few hundred files a request.

        Safe to repeat: pictures that are there already keep their id. A caption travels with its
        picture, and a ``metadata.jsonl`` with the last request: by then all that it names is there.
        """
        answers = [self._upload_batch(dataset_id, batch) for batch in _batches(_files_of(paths))]
        if not answers:
            raise ClientError(f"No file to upload in {', '.join(map(str, paths)) or 'nothing'}.")
        items = [item for answer in answers for item in answer["items"]]
        return {"items": items, "dataset": answers[-1]["dataset"]}

    def _upload_batch(self, dataset_id: str, batch: Sequence[tuple[str, Path]]) -> Upload:
        with ExitStack() as stack:
            files = [
                ("files", (name, stack.enter_context(path.open("rb")), "application/octet-stream"))
                for name, path in batch
            ]
            answer = self._call("POST", _path("/v1/datasets", dataset_id, "images"), files=files)
        return cast(Upload, answer)

    def list_datasets(self) -> Iterator[Dataset]:
        return cast(Iterator[Dataset], self._list("/v1/datasets"))

    def dataset(self, dataset_id: str) -> Dataset:
        return cast(Dataset, self._get(_path("/v1/datasets", dataset_id)))

    def list_images(self, dataset_id: str) -> Iterator[dict[str, Any]]:
        return self._list(_path("/v1/datasets", dataset_id, "images"))

    # Jobs

    def fine_tune(self, spec: Mapping[str, Any], **about: Any) -> Job:
        return self.submit("fine_tune", spec, **about)

    def distill(self, spec: Mapping[str, Any], **about: Any) -> Job:
        return self.submit("distill", spec, **about)

    def generate(self, spec: Mapping[str, Any], **about: Any) -> Job:
        return self.submit("generate", spec, **about)

    def submit(
        self,
        kind: str,
        spec: Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
        **about: Any,
    ) -> Job:
        """A new job; ``about`` is what stands beside the spec: name, priority, labels, after,
        deadline_seconds. Under one ``idempotency_key`` it is made once, however often it is sent
        within a day."""
        body = {"kind": kind, "spec": spec, **about}
        return cast(Job, self._make("/v1/jobs", body, idempotency_key))

    def rehearse(self, kind: str, spec: Mapping[str, Any]) -> Forecast:
        """What such a job would take, after all checks of ``submit``; nothing is queued."""
        body = {"kind": kind, "spec": spec}
        return cast(Forecast, self._call("POST", "/v1/jobs", json=body, params={"dry_run": "true"}))

    def list_jobs(self, *, kind: str | None = None, state: str | None = None) -> Iterator[Job]:
        """Newest first."""
        return cast(Iterator[Job], self._list("/v1/jobs", kind=kind, state=state))

    def job(self, job_id: str) -> Job:
        return cast(Job, self._get(_path("/v1/jobs", job_id)))

    def cancel(self, job_id: str) -> Job:
        return cast(Job, self._post(_path("/v1/jobs", job_id, "cancel")))

    def pause(self, job_id: str) -> Job:
        return cast(Job, self._post(_path("/v1/jobs", job_id, "pause")))

    def resume(self, job_id: str) -> Job:
        return cast(Job, self._post(_path("/v1/jobs", job_id, "resume")))

    def extend(self, job_id: str, steps: int) -> Job:
        """A new job that goes on where a finished training ended, for so many steps more."""
        return cast(Job, self._make(_path("/v1/jobs", job_id, "extend"), {"steps": steps}))

    def retry(self, job_id: str) -> Job:
        """A new job in place of one that ended without success."""
        return cast(Job, self._make(_path("/v1/jobs", job_id, "retry")))

    def logs(self, job_id: str, tail: int = 100) -> list[str]:
        """The last lines of its runner, oldest first."""
        lines: list[str] = self._get(_path("/v1/jobs", job_id, "logs"), tail=tail)["lines"]
        return lines

    def events(self, job_id: str, after: int = 0) -> Iterator[Event]:
        """What happened to a job since event ``after``, oldest first."""
        while True:
            page = self._get(_path("/v1/jobs", job_id, "events"), after=after, limit=PAGE)["items"]
            yield from page
            if len(page) < PAGE:
                return
            after = page[-1]["seq"]

    def metrics(self, job_id: str) -> dict[str, Any]:
        """A training's losses and their parts, as lists by step."""
        return self._get(_path("/v1/jobs", job_id, "metrics"))

    def watch(self, job_id: str) -> Iterator[tuple[Job, list[Event]]]:
        """The job as it is, with its new events, as soon as something happens to it and every
        ``WAIT_SECONDS``, until it has ended.

        A server that is restarted meanwhile is waited for, ``patience_seconds`` long.
        """
        tag, seen, answered = None, 0, time.monotonic()
        while True:
            try:
                job, tag = self._next_look(job_id, tag)
                news = list(self.events(job_id, seen))
            except ClientError as error:
                if not _may_pass(error) or time.monotonic() - answered > self.patience_seconds:
                    raise
                tag = None
            else:
                answered = time.monotonic()
                seen = news[-1]["seq"] if news else seen
                yield job, news
                if job["state"] in ENDED:
                    return
            if tag is None:
                time.sleep(POLL_SECONDS)

    def _next_look(self, job_id: str, tag: str | None) -> tuple[Job, str | None]:
        """The job and its tag; where there is a tag already, once it has another one."""
        path = _path("/v1/jobs", job_id)
        if tag is not None:
            held = {"params": {"wait": WAIT_SECONDS}, "headers": {"If-None-Match": tag}}
            response = self._send("GET", path, timeout=self._held, **held)
            if response.status_code != HTTPStatus.NOT_MODIFIED:
                return cast(Job, self._read(response)), response.headers.get("ETag")
        response = self._send("GET", path)
        return cast(Job, self._read(response)), response.headers.get("ETag")

    def wait(self, job_id: str) -> Job:
        """The job once it has ended, however it ended."""
        *_, (job, _news) = self.watch(job_id)
        return job

    def artifacts_of(self, job_id: str) -> Iterator[Artifact]:
        """In the order of their making."""
        return cast(Iterator[Artifact], self._list(_path("/v1/jobs", job_id, "artifacts")))

    # Devices

    def queue(self) -> Queue:
        """How long it is, and where one's own jobs stand."""
        return cast(Queue, self._get("/v1/queue"))

    def list_workers(self) -> Iterator[Worker]:
        return cast(Iterator[Worker], self._list("/v1/workers"))

    def drain_worker(self, worker_id: str) -> Worker:
        """Its device claims nothing more until it is released."""
        return cast(Worker, self._post(_path("/v1/workers", worker_id, "drain")))

    def release_worker(self, worker_id: str) -> Worker:
        return cast(Worker, self._post(_path("/v1/workers", worker_id, "release")))

    # Artifacts

    def list_artifacts(
        self, *, job: str | None = None, kind: str | None = None, role: str | None = None
    ) -> Iterator[Artifact]:
        """Newest first."""
        found = self._list("/v1/artifacts", job=job, kind=kind, role=role)
        return cast(Iterator[Artifact], found)

    def artifact(self, artifact_id: str) -> Artifact:
        return cast(Artifact, self._get(_path("/v1/artifacts", artifact_id)))

    def download(self, artifact: str | Artifact, path: Path) -> Path:
        """Puts an artifact's file at ``path``, or all its files into that folder: each whole and
        with the hash of its row, or not at all. Of a folder, what is there already stays."""
        row = self.artifact(artifact) if isinstance(artifact, str) else artifact
        if not is_folder(row):
            self._fetch(_path("/v1/artifacts", row["id"], "content"), path, row["sha256"])
            return path
        for file in row["files"]:
            # names are text of somebody's: never a way out of the folder
            place = path / Path(file["path"]).name
            if place.is_file() and sha256_of(place) == file["sha256"]:
                continue
            url = _path("/v1/artifacts", row["id"], "files", quote(file["path"]))
            self._fetch(url, place, file["sha256"])
        return path

    def _fetch(self, url: str, path: Path, sha256: str) -> None:
        digest = hashlib.sha256()
        with replacing(path) as aside:
            with aside.open("wb") as file, self._stream(url) as chunks:
                for chunk in chunks:
                    digest.update(chunk)
                    file.write(chunk)
            if digest.hexdigest() != sha256:
                raise DamagedDownload(
                    f"{path.name} arrived damaged: its SHA-256 is {digest.hexdigest()}, "
                    f"the server says {sha256}. Nothing was kept; try again."
                )

    # The rest

    def list_models(self) -> list[dict[str, Any]]:
        return list(self._list("/v1/models"))

    def create_key(
        self, name: str, *, owner: str | None = None, scopes: Sequence[str] = ()
    ) -> dict[str, Any]:
        """A new key; its secret is in this answer and never shown again."""
        body = {"name": name, "owner": owner, "scopes": list(scopes)}
        return self._post("/v1/keys", {field: value for field, value in body.items() if value})

    def list_keys(self) -> Iterator[dict[str, Any]]:
        return self._list("/v1/keys")

    def delete_key(self, key_id: str) -> None:
        self._send("DELETE", _path("/v1/keys", key_id))

    def healthz(self) -> dict[str, Any]:
        return self._get("/healthz")

    def readyz(self) -> dict[str, Any]:
        """Raises ``ApiError`` 503 as long as database, store or a live worker is missing."""
        return self._get("/readyz")

    # How it is said

    def _list(self, path: str, **query: str | None) -> Iterator[dict[str, Any]]:
        """Every row of a list, page after page as they are read."""
        cursor = None
        while True:
            page = self._get(path, limit=PAGE, cursor=cursor, **query)
            yield from page["items"]
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    def _get(self, path: str, **query: str | int | None) -> dict[str, Any]:
        given = {name: value for name, value in query.items() if value is not None}
        return self._call("GET", path, params=given)

    def _post(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self._call("POST", path, json=body)

    def _make(
        self, path: str, body: Mapping[str, Any] | None = None, key: str | None = None
    ) -> dict[str, Any]:
        """A post that makes a row. Under a key, so that it may be sent again if the answer got
        lost, and makes no second one."""
        headers = {"Idempotency-Key": key or uuid4().hex}
        try:
            return self._call("POST", path, json=body, headers=headers)
        except BrokenConnection:
            return self._call("POST", path, json=body, headers=headers)

    def _call(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        return self._read(self._send(method, path, **request))

    def _read(self, response: httpx.Response) -> dict[str, Any]:
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            place = response.url.copy_with(query=None)
            raise ClientError(f"{place} answers, but not as a Stillroom server does.")
        return answer

    def _send(self, method: str, path: str, **request: Any) -> httpx.Response:
        with self._told_plainly():
            response = self._http.request(method, path, **request)
        _raise_if_refused(response)
        return response

    @contextmanager
    def _stream(self, path: str) -> Iterator[Iterator[bytes]]:
        with self._told_plainly(), self._http.stream("GET", path) as response:
            if response.is_error:
                response.read()
            _raise_if_refused(response)
            yield response.iter_bytes()

    @contextmanager
    def _told_plainly(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise NoAnswer(
                f"No server answers at {self.url}: start one with `stillroom serve`."
            ) from error
        except httpx.TimeoutException as error:
            raise NoAnswer(f"The server at {self.url} does not answer in time.") from error
        except httpx.TransportError as error:
            raise BrokenConnection(f"The connection to {self.url} broke: {error}.") from error


def is_folder(artifact: Artifact) -> bool:
    """Whether it is files in a folder, such as ``unet``, and not one file."""
    return any("/" in file["path"] for file in artifact["files"])


def _path(collection: str, name: str, *rest: str) -> str:
    """``/v1/jobs/job_…/events``; whatever ``name`` holds, it stays one segment."""
    return "/".join([collection, quote(name, safe=""), *rest])


def _host_of(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ClientError(f"{url!r} is no server's address; one looks like http://127.0.0.1:8400.")
    return parsed.host


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _raise_if_refused(response: httpx.Response) -> None:
    if not response.is_error:
        return
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {}
    raise ApiError({"status": response.status_code, **problem})


def _may_pass(error: ClientError) -> bool:
    """Worth waiting for: a server between two starts, or one whose database is away."""
    return isinstance(error, NoAnswer) or (isinstance(error, ApiError) and error.status == 503)


def _files_of(paths: Sequence[Path]) -> list[tuple[str, Path]]:
    """Names and places of all files; a folder stands for all it holds but hidden files."""
    found = []
    for path in paths:
        if path.is_dir():
            inside = [member.relative_to(path) for member in sorted(path.rglob("*"))]
            found += [
                (member.as_posix(), path / member)
                for member in inside
                if (path / member).is_file() and not any(p.startswith(".") for p in member.parts)
            ]
        elif path.is_file():
            found.append((path.name, path))
        else:
            raise ClientError(f"There is no file or folder {path}.")
    return found


def _batches(files: Sequence[tuple[str, Path]]) -> Iterator[list[tuple[str, Path]]]:
    """Requests of about ``FILES_A_REQUEST`` files that keep a picture and its caption together."""
    tables = [entry for entry in files if entry[1].name == "metadata.jsonl"]
    others = sorted((entry for entry in files if entry not in tables), key=_picture_of)
    batch: list[tuple[str, Path]] = []
    for _, together in groupby(others, key=_picture_of):
        if len(batch) >= FILES_A_REQUEST:
            yield batch
            batch = []
        batch += together
    if batch or tables:
        yield batch + tables


def _picture_of(entry: tuple[str, Path]) -> Path:
    """What ``dog.png`` and its caption ``dog.txt`` share."""
    return entry[1].with_suffix("")
