"""The HTTP client: the contract as methods, its refusals as one exception.

with Client("http://127.0.0.1:8400", key) as client:
    dataset = client.create_dataset("my dog")
    client.upload(dataset["id"], [Path("pictures")])
    job = client.fine_tune({"base": "nano-ssd-1b", "dataset": dataset["id"], ...})
    job = client.wait(job["id"])
    client.download(job["result"]["lora"], Path("dog.safetensors"))
"""

import ipaddress
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, cast
from urllib.parse import quote
from uuid import uuid4

import httpx

from api.answers import (
    ENDED,
    Artifact,
    Brought,
    Dataset,
    Delivery,
    Event,
    Forecast,
    Image,
    Job,
    Link,
    Queue,
    Upload,
    Webhook,
    WebhookMade,
    Worker,
)
from api.client_errors import ApiError as ApiError
from api.client_errors import BrokenConnection as BrokenConnection
from api.client_errors import ClientError as ClientError
from api.client_errors import DamagedDownload as DamagedDownload
from api.client_errors import NoAnswer as NoAnswer
from api.client_errors import is_worth_waiting, may_pass
from api.fetching import Part, fetch
from api.uploads import Batch, Counted, batches, bytes_of, files_of, name_of
from core.files.digest import sha256_of

WAIT_SECONDS = 5
"""So long the server holds its answer about a job to which nothing happens; then its place in the
queue is looked up anew."""
POLL_SECONDS = 0.25
"""Between two looks at a server that is away, or that does not hold answers."""
PAGE = 200
"""Rows asked for at once; the most that a list gives."""
BYTES = "application/octet-stream"

Tell = Callable[[int, int], None]
"""Hears how many bytes have come or gone, and of how many."""


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
            patience_seconds: how long ``watch``, uploads and downloads wait for a server that is
                away.
        """
        self.url = url.rstrip("/")
        self.patience_seconds = patience_seconds
        self._held = httpx.Timeout(timeout_seconds + WAIT_SECONDS, connect=5.0)
        own = is_local(self.url)
        with _proxies_told_plainly():
            self._http = httpx.Client(
                base_url=self.url,
                headers={"Authorization": f"Bearer {_possible(key)}"} if key else {},
                timeout=httpx.Timeout(timeout_seconds, connect=5.0),
                trust_env=not own,  # a proxy of this user does not see our loopback
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
        return cast(Dataset, self._make("/v1/datasets", {"name": name, "kind": kind}))

    def upload(self, dataset_id: str, paths: Sequence[Path], *, tell: Tell | None = None) -> Upload:
        """Sends files, zips and whole folders, some hundred files or megabytes a request. One that
        broke off is sent again, ``patience_seconds`` long; ``tell`` hears how many bytes have gone.

        Safe to repeat: pictures that are there already keep their id. A caption travels with its
        picture, and a ``metadata.jsonl`` with the last request: by then all that it names is there.
        """
        files = files_of(paths)
        total_bytes, gone_bytes, answers = bytes_of(files), 0, []
        for batch in batches(files):
            heard = partial(_from, gone_bytes, total_bytes, tell)
            answers.append(self._sent_at_last(dataset_id, batch, heard))
            gone_bytes += bytes_of(batch)
        items = [item for answer in answers for item in answer["items"]]
        return {"items": items, "dataset": answers[-1]["dataset"]}

    def _sent_at_last(self, dataset_id: str, batch: Batch, tell: Callable[[int], None]) -> Upload:
        broke = None
        while True:
            try:
                return self._upload_batch(dataset_id, batch, tell)
            except ClientError as error:
                if broke is None and isinstance(error, BrokenConnection):
                    broke = time.monotonic()
                if not is_worth_waiting(error, broke, self.patience_seconds):
                    raise
            time.sleep(POLL_SECONDS)

    def _upload_batch(self, dataset_id: str, batch: Batch, tell: Callable[[int], None]) -> Upload:
        gone_bytes = 0

        def count(read_bytes: int) -> None:
            nonlocal gone_bytes
            gone_bytes += read_bytes
            tell(gone_bytes)

        with ExitStack() as stack:
            files = [
                ("files", (name, stack.enter_context(Counted(path, count)), BYTES))
                for name, path in batch
            ]
            answer = self._call("POST", _path("/v1/datasets", dataset_id, "images"), files=files)
        return cast(Upload, answer)

    def list_datasets(self) -> Iterator[Dataset]:
        return cast(Iterator[Dataset], self._list("/v1/datasets"))

    def dataset(self, dataset_id: str) -> Dataset:
        return cast(Dataset, self._get(_path("/v1/datasets", dataset_id)))

    def list_images(self, dataset_id: str) -> Iterator[Image]:
        return cast(Iterator[Image], self._list(_path("/v1/datasets", dataset_id, "images")))

    def set_caption(self, dataset_id: str, image_id: str, caption: str | None) -> Image:
        path = _path("/v1/datasets", dataset_id, "images", quote(image_id, safe=""))
        return cast(Image, self._call("PATCH", path, json={"caption": caption}))

    def delete_image(self, dataset_id: str, image_id: str) -> None:
        path = _path("/v1/datasets", dataset_id, "images", quote(image_id, safe=""))
        self._send("DELETE", path)

    def delete_dataset(self, dataset_id: str) -> None:
        """With all that was made of its pictures on the way to a result."""
        self._send("DELETE", _path("/v1/datasets", dataset_id))

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
        """A new job; ``about`` is what stands beside the spec: name, priority, labels, webhook,
        after, deadline_seconds. Under one ``idempotency_key`` it is made once, however often it is
        sent within a day."""
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

    def delete_job(self, job_id: str) -> None:
        """One that has ended, with all that it made."""
        self._send("DELETE", _path("/v1/jobs", job_id))

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
                if not may_pass(error) or time.monotonic() - answered > self.patience_seconds:
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

    def rename_artifact(self, artifact_id: str, name: str) -> Artifact:
        return self._change_artifact(artifact_id, name=name)

    def expire_artifact(self, artifact_id: str, at: datetime | None) -> Artifact:
        """Has it deleted at that time, if no job needs it then; None: not any more."""
        return self._change_artifact(artifact_id, expires_at=at.isoformat() if at else None)

    def _change_artifact(self, artifact_id: str, **changes: str | None) -> Artifact:
        answer = self._call("PATCH", _path("/v1/artifacts", artifact_id), json=changes)
        return cast(Artifact, answer)

    def delete_artifact(self, artifact_id: str) -> None:
        self._send("DELETE", _path("/v1/artifacts", artifact_id))

    def upload_lora(self, path: Path, name: str | None = None) -> Brought:
        """Brings a LoRA that was made elsewhere. Safe to repeat: the same bytes are the same
        artifact."""
        about = {} if name is None else {"name": name}
        with path.open("rb") as file:
            sent = {"file": (name_of(Path(path.name)), file, BYTES)}
            return cast(Brought, self._call("POST", "/v1/artifacts", data=about, files=sent))

    def download(self, artifact: str | Artifact, path: Path, *, tell: Tell | None = None) -> Path:
        """Puts an artifact's file at ``path``, or all its files into that folder: each whole and
        with the hash of its row, or not at all. Of a folder, what is there already stays; a file
        that broke off goes on where it was. ``tell`` hears how many bytes have come."""
        row = self.artifact(artifact) if isinstance(artifact, str) else artifact
        if not is_folder(row):
            url = _path("/v1/artifacts", row["id"], "content")
            self._fetch(url, path, row["sha256"], partial(_from, 0, row["bytes"], tell))
            return path
        come_bytes = 0
        for file in row["files"]:
            # names are text of somebody's: never a way out of the folder
            place = path / Path(file["path"]).name
            if not (place.is_file() and sha256_of(place) == file["sha256"]):
                url = _path("/v1/artifacts", row["id"], "files", quote(file["path"]))
                heard = partial(_from, come_bytes, row["bytes"], tell)
                self._fetch(url, place, file["sha256"], heard)
            come_bytes += file["bytes"]
        return path

    def link(self, artifact_id: str, expires_in: int) -> Link:
        """A link to its bytes that needs no key, good for so many seconds."""
        path = _path("/v1/artifacts", artifact_id, "link")
        return cast(Link, self._post(path, {"expires_in": expires_in}))

    def _fetch(self, url: str, path: Path, sha256: str, tell: Callable[[int], None]) -> None:
        fetch(
            partial(self._stream, url, sha256),
            path,
            sha256=sha256,
            patience_seconds=self.patience_seconds,
            tell=tell,
        )

    # Webhooks

    def create_webhook(
        self, url: str, events: Sequence[str], *, name: str | None = None
    ) -> WebhookMade:
        """Tells ``url`` of those events, such as ``job.succeeded``, of jobs that name it. Its
        secret is in this answer and never shown again."""
        body = {"url": url, "events": list(events), "name": name}
        return cast(WebhookMade, self._make("/v1/webhooks", body))

    def list_webhooks(self) -> Iterator[Webhook]:
        """Newest first."""
        return cast(Iterator[Webhook], self._list("/v1/webhooks"))

    def webhook(self, webhook_id: str) -> Webhook:
        return cast(Webhook, self._get(_path("/v1/webhooks", webhook_id)))

    def delete_webhook(self, webhook_id: str) -> None:
        """With what it was told or is to be told."""
        self._send("DELETE", _path("/v1/webhooks", webhook_id))

    def test_webhook(self, webhook_id: str) -> Delivery:
        """Has it told of nothing, to see whether that arrives."""
        return cast(Delivery, self._post(_path("/v1/webhooks", webhook_id, "test")))

    def deliveries(self, webhook_id: str) -> Iterator[Delivery]:
        """What it was told or is to be told, newest first."""
        found = self._list(_path("/v1/webhooks", webhook_id, "deliveries"))
        return cast(Iterator[Delivery], found)

    def redeliver(self, webhook_id: str, delivery_id: str) -> Delivery:
        """Sends it again at once, under the same id."""
        place = "deliveries", quote(delivery_id, safe=""), "redeliver"
        return cast(Delivery, self._post(_path("/v1/webhooks", webhook_id, *place)))

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
    def _stream(self, path: str, sha256: str, begin: int) -> Iterator[Part]:
        """A file from a byte on, if it is still the one with that hash; else from its first."""
        part = {"Range": f"bytes={begin}-", "If-Range": f'"{sha256}"'} if begin else {}
        with self._told_plainly(), self._http.stream("GET", path, headers=part) as response:
            if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                yield begin, iter(())  # it was all there
                return
            if not response.is_success:
                response.read()
            _raise_if_refused(response)
            is_part = response.status_code == HTTPStatus.PARTIAL_CONTENT
            yield (begin if is_part else 0), response.iter_bytes()

    @contextmanager
    def _told_plainly(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise NoAnswer(
                f"No server answers at {self.url}: start one with `stillroom serve`."
            ) from error
        except httpx.PoolTimeout as error:
            raise NoAnswer(f"All connections to {self.url} are in use.") from error
        except httpx.TimeoutException as error:
            raise BrokenConnection(f"The server at {self.url} does not answer in time.") from error
        except UnicodeEncodeError as error:  # of an argument that the shell had from such a file
            raise ClientError("A text that was given is not UTF-8: write it in UTF-8.") from error
        except (httpx.LocalProtocolError, httpx.UnsupportedProtocol) as error:
            raise ClientError(f"What was asked of {self.url} cannot be said in HTTP.") from error
        except httpx.DecodingError as error:
            raise ClientError(f"{self.url} answers what cannot be unpacked: {error}.") from error
        except httpx.TransportError as error:
            raise BrokenConnection(f"The connection to {self.url} broke: {error}.") from error


def _from(done_bytes: int, total_bytes: int, tell: Tell | None, more_bytes: int) -> None:
    """Tells of bytes that are more than those that were done before."""
    if tell:
        tell(done_bytes + more_bytes, total_bytes)


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


def is_local(url: str) -> bool:
    """Whether it leads to this machine: 127.0.0.0/8, ::1 or localhost."""
    host = _host_of(url)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _possible(key: str) -> str:
    """The key, if it can stand in a header. It is not repeated where it cannot."""
    for place, letter in enumerate(key, 1):
        if not "!" <= letter <= "~":
            what = "whitespace" if letter.isspace() else "a character"
            raise ClientError(
                f"The key has {what} at place {place} that no key has: copy it again, into "
                "STILLROOM_KEY or the profile."
            )
    return key


@contextmanager
def _proxies_told_plainly() -> Iterator[None]:
    try:
        yield
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise ClientError(
            f"The proxy of HTTP_PROXY, HTTPS_PROXY or ALL_PROXY cannot be used: {error}"
        ) from error


def _raise_if_refused(response: httpx.Response) -> None:
    """A redirect is a refusal: it tells of no work done, and our key is not carried to another
    address."""
    if response.is_success or response.status_code == HTTPStatus.NOT_MODIFIED:
        return
    if response.has_redirect_location:
        place = response.url.copy_with(query=None)
        raise ClientError(
            f"{place} is redirected to {response.headers['Location']}, and redirects are not "
            "followed: name the server by the address that answers, with --url or STILLROOM_URL."
        )
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {}
    raise ApiError({**problem, "status": response.status_code})
