"""The client over a real socket: against the API, and against a server that misbehaves."""

import hashlib
import io
import json
import os
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest

from api import client as client_module
from api import fetching, uploads
from api.client import (
    ApiError,
    BrokenConnection,
    Client,
    ClientError,
    DamagedDownload,
    NoAnswer,
)
from api.demo import subject
from core.files.lock import LockFile
from tests.api.live import Answer, Live, answering, free_port, serving_api
from tests.support import loras
from tests.support.server import wait_until

BASE = "nano-ssd-1b"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving_api(tmp_path_factory.mktemp("home")) as server:
        yield server


@pytest.fixture
def client(live: Live) -> Iterator[Client]:
    with Client(live.url, live.key) as opened:
        yield opened


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return subject.save_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def dataset(client: Client, pictures: list[Path]) -> str:
    made = client.create_dataset("robot")
    client.upload(made["id"], pictures)
    return made["id"]


def fine_tune_spec(dataset: str, **more: Any) -> dict[str, Any]:
    spec = {"base": BASE, "dataset": dataset, "instance_prompt": subject.PROMPT, "steps": 3}
    return spec | more


# Against the API


def test_health_needs_no_key(live: Live) -> None:
    with Client(live.url) as stranger:
        assert stranger.healthz()


def test_readyz_refuses_while_no_worker_lives(client: Client) -> None:
    with pytest.raises(ApiError) as refused:
        client.readyz()
    assert refused.value.status == 503


def test_folder_is_uploaded_without_its_hidden_files(
    client: Client, pictures: list[Path], tmp_path: Path
) -> None:
    for picture in pictures:
        (tmp_path / picture.name).write_bytes(picture.read_bytes())
    (tmp_path / ".hidden.png").write_bytes(b"not for anybody")
    made = client.create_dataset("folder")
    answer = client.upload(made["id"], [tmp_path])
    assert [item["filename"] for item in answer["items"]] == [path.name for path in pictures]
    assert all(item["id"] for item in answer["items"])
    assert answer["dataset"]["images"] == client.dataset(made["id"])["images"] == 5


def test_zip_is_uploaded_as_its_members(client: Client, pictures: list[Path]) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for picture in pictures:
            archive.write(picture, picture.name)
    path = pictures[0].with_name("robot.zip")
    path.write_bytes(packed.getvalue())
    made = client.create_dataset("zipped")
    answer = client.upload(made["id"], [path])
    names = [item["filename"] for item in answer["items"] if item["kind"] == "image"]
    assert names == [f"robot.zip/{picture.name}" for picture in pictures]


def test_second_upload_of_the_same_pictures_adds_nothing(
    client: Client, dataset: str, pictures: list[Path]
) -> None:
    answer = client.upload(dataset, pictures)
    assert answer["dataset"]["images"] == 5
    assert all(item["problems"][0]["code"] == "already_there" for item in answer["items"])


def test_many_files_travel_in_several_requests(
    client: Client, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "FILES_A_REQUEST", 2)
    made = client.create_dataset("batches")
    answer = client.upload(made["id"], pictures)
    assert len(answer["items"]) == answer["dataset"]["images"] == 5


def files_of_bytes(folder: Path, sizes: dict[str, int]) -> list[tuple[str, Path]]:
    for name, size in sizes.items():
        (folder / name).write_bytes(bytes(size))
    return [(name, folder / name) for name in sizes]


def test_large_files_travel_in_several_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "BYTES_A_REQUEST", 100)
    sizes = {"a.png": 60, "b.png": 30, "b.txt": 20, "c.png": 50, "d.zip": 300, "e.png": 1}
    files = files_of_bytes(tmp_path, sizes)
    sent = [[name for name, _ in batch] for batch in uploads.batches(files)]
    assert sent == [["a.png"], ["b.png", "b.txt", "c.png"], ["d.zip"], ["e.png"]]


def test_caption_travels_with_its_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "FILES_A_REQUEST", 1)
    names = ["b.txt", "metadata.jsonl", "a.png", "b.png", "a.txt"]
    files = files_of_bytes(tmp_path, dict.fromkeys(names, 1))
    sent = [[name for name, _ in batch] for batch in uploads.batches(files)]
    assert sent == [["a.png", "a.txt"], ["b.txt", "b.png", "metadata.jsonl"]]


def test_a_table_names_pictures_of_every_request(
    client: Client, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "FILES_A_REQUEST", 2)
    table = tmp_path / "metadata.jsonl"
    rows = [{"file_name": path.name, "text": path.stem} for path in pictures]
    table.write_text("\n".join(map(json.dumps, rows)))
    made = client.create_dataset("batches", kind="captioned")
    answer = client.upload(made["id"], [*pictures, table])
    assert all(not item["problems"] for item in answer["items"])
    captions = {image["filename"]: image["caption"] for image in client.list_images(made["id"])}
    assert captions == {path.name: path.stem for path in pictures}


def test_nothing_to_upload_is_said_before_anything_is_sent(client: Client, tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="No file to upload"):
        client.upload("dst_any", [tmp_path])
    with pytest.raises(ClientError, match="There is no file or folder"):
        client.upload("dst_any", [tmp_path / "absent.png"])


def test_a_name_that_is_not_utf_8_is_read_as_latin_1(
    client: Client, pictures: list[Path], tmp_path: Path
) -> None:
    stem = os.fsencode(tmp_path) + b"/caf\xe9"
    Path(os.fsdecode(stem + b".png")).write_bytes(pictures[0].read_bytes())
    Path(os.fsdecode(stem + b".txt")).write_text("a robot")
    made = client.create_dataset("café", "captioned")
    client.upload(made["id"], [tmp_path])
    client.upload(made["id"], list(tmp_path.glob("*.png")))
    ((name, caption),) = [(i["filename"], i["caption"]) for i in client.list_images(made["id"])]
    assert (name, caption) == ("café.png", "a robot")


def test_text_file_named_jpg_is_refused_with_a_sentence(client: Client, tmp_path: Path) -> None:
    (tmp_path / "dog.jpg").write_text("I am no dog")
    made = client.create_dataset("dog")
    with pytest.raises(ApiError) as refused:
        client.upload(made["id"], [tmp_path / "dog.jpg"])
    assert (refused.value.status, refused.value.code) == (422, "no_usable_file")
    assert refused.value.errors[0]["pointer"] == "/files/0"
    assert "/files/0" in str(refused.value)


def test_lists_are_read_page_after_page(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [client.create_dataset(f"page {number}")["id"] for number in range(5)]
    monkeypatch.setattr(client_module, "PAGE", 2)
    listed = [dataset["id"] for dataset in client.list_datasets()]
    assert [one for one in listed if one in made] == made[::-1]
    assert len(listed) == len(set(listed))


def test_images_of_a_dataset_are_listed(client: Client, dataset: str) -> None:
    images = list(client.list_images(dataset))
    assert {image["filename"] for image in images} == {f"robot-{n}.png" for n in range(1, 6)}
    assert all((image["width"], image["height"]) == (256, 256) for image in images)


def test_a_caption_is_changed_and_a_picture_goes(client: Client, dataset: str) -> None:
    first, second, *_ = client.list_images(dataset)
    assert client.set_caption(dataset, first["id"], "a robot")["caption"] == "a robot"
    assert client.set_caption(dataset, first["id"], None)["caption"] is None
    client.delete_image(dataset, first["id"])
    assert next(client.list_images(dataset))["id"] == second["id"]


def test_a_dataset_and_its_job_go(client: Client, dataset: str) -> None:
    job = client.fine_tune(fine_tune_spec(dataset))
    with pytest.raises(ApiError, match=job["id"]) as refused:
        client.delete_dataset(dataset)
    assert refused.value.code == "in_use"
    client.cancel(job["id"])
    client.delete_dataset(dataset)
    client.delete_job(job["id"])
    for look in (lambda: client.dataset(dataset), lambda: client.job(job["id"])):
        with pytest.raises(ApiError) as gone:
            look()
        assert gone.value.status == 404


def test_an_artifact_is_renamed_expires_and_goes(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "dog.safetensors"
    file.write_bytes(loras.file_of(loras.spelt(loras.kohya, loras.unet_pairs(rank=2), 1)))
    brought = client.upload_lora(file)
    assert client.rename_artifact(brought["id"], "cat")["name"] == "cat"
    at = datetime(2999, 1, 1, tzinfo=UTC)
    assert client.expire_artifact(brought["id"], at)["expires_at"] == "2999-01-01T00:00:00Z"
    assert client.expire_artifact(brought["id"], None)["expires_at"] is None
    client.delete_artifact(brought["id"])
    with pytest.raises(ApiError) as gone:
        client.artifact(brought["id"])
    assert gone.value.status == 404


def test_submitted_job_is_queued_then_cancelled(client: Client, dataset: str) -> None:
    job = client.fine_tune(fine_tune_spec(dataset), name="mine", labels={"for": "a test"})
    assert (job["kind"], job["state"], job["name"]) == ("fine_tune", "queued", "mine")
    assert job["spec"]["seed"] is not None
    assert job["id"] in [listed["id"] for listed in client.list_jobs(state="queued")]
    client.cancel(job["id"])
    ended, events = list(client.watch(job["id"]))[-1]
    assert ended["state"] == client.wait(job["id"])["state"] == "cancelled"
    states = [event["data"]["state"] for event in events if event["type"] == "state"]
    assert states == ["queued", "cancelled"]


def test_an_end_is_noticed_at_once_and_asked_for_once(
    live: Live, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "WAIT_SECONDS", 30)  # by which it would be, else
    job = client.generate({"base": BASE, "prompt": "a robot"})
    looks = client.watch(job["id"])
    assert next(looks)[0]["state"] == "queued"
    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(list, looks)
        wait_until(lambda: bool(live.app.state.feed.waiters), 20, "the client waits")
        client.cancel(job["id"])
        cancelled = time.monotonic()
        ((ended, news),) = looking.result()
    assert time.monotonic() - cancelled < 15
    assert ended["state"] == news[-1]["data"]["state"] == "cancelled"


def test_a_queued_job_is_looked_at_anew_though_nothing_happens(
    live: Live, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "WAIT_SECONDS", 1)
    job = client.generate({"base": BASE, "prompt": "a robot"})
    looks = client.watch(job["id"])
    first, again = next(looks), next(looks)
    assert [event["seq"] for event in first[1]] == [1]
    assert again[1] == []
    assert again[0]["usage"]["queue_seconds"] >= first[0]["usage"]["queue_seconds"] + 1
    client.cancel(job["id"])


def test_events_after_a_number_are_the_later_ones(client: Client, dataset: str) -> None:
    job = client.fine_tune(fine_tune_spec(dataset))
    client.cancel(job["id"])
    everything = list(client.events(job["id"]))
    assert [event["seq"] for event in everything] == list(range(1, len(everything) + 1))
    assert list(client.events(job["id"], after=1)) == everything[1:]


def test_events_are_read_page_after_page(
    client: Client, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = client.fine_tune(fine_tune_spec(dataset))
    client.cancel(job["id"])
    everything = list(client.events(job["id"]))
    monkeypatch.setattr(client_module, "PAGE", 1)
    assert list(client.events(job["id"])) == everything


def test_generate_is_submitted(client: Client) -> None:
    job = client.generate({"base": BASE, "prompt": "a robot"})
    assert (job["kind"], job["state"]) == ("generate", "queued")
    client.cancel(job["id"])


def test_refusal_names_the_field(client: Client, dataset: str) -> None:
    with pytest.raises(ApiError) as refused:
        client.fine_tune(fine_tune_spec(dataset, lora={"rank": 0}))
    assert refused.value.status == 422
    assert "rank" in refused.value.errors[0]["pointer"]


@pytest.mark.parametrize("missing", ["job", "dataset", "artifact"])
def test_missing_row_is_not_found(client: Client, missing: str) -> None:
    with pytest.raises(ApiError) as refused:
        getattr(client, missing)("nothing_of_that_id")
    assert (refused.value.status, refused.value.code) == (404, "not_found")


def test_job_without_artifacts_lists_none(client: Client, dataset: str) -> None:
    job = client.fine_tune(fine_tune_spec(dataset))
    assert list(client.artifacts_of(job["id"])) == []
    assert list(client.list_artifacts(job=job["id"])) == []
    client.cancel(job["id"])


def test_models_are_listed(client: Client) -> None:
    assert {"ssd-1b", "sdxl", "vega", "nano-sdxl", BASE} <= {m["id"] for m in client.list_models()}


def test_key_opens_until_it_is_deleted(live: Live, client: Client) -> None:
    made = client.create_key("for a test", owner="somebody", scopes=["read"])
    with Client(live.url, made["key"]) as reader:
        assert list(reader.list_datasets()) == []
        with pytest.raises(ApiError) as refused:
            reader.create_dataset("not allowed")
        assert refused.value.code == "insufficient_scope"
        assert made["id"] in [key["id"] for key in client.list_keys()]
        client.delete_key(made["id"])
        with pytest.raises(ApiError) as gone:
            list(reader.list_datasets())
        assert gone.value.status == 401


def test_wrong_key_is_refused(live: Live) -> None:
    with Client(live.url, "stillroom_wrong") as stranger, pytest.raises(ApiError) as refused:
        stranger.list_models()
    assert refused.value.status == 401


# Against nobody, and against servers that misbehave


def test_nobody_there_is_said_in_a_sentence() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url) as client, pytest.raises(NoAnswer) as silence:
        client.healthz()
    assert str(silence.value) == f"No server answers at {url}: start one with `stillroom serve`."


@pytest.mark.parametrize("url", ["127.0.0.1:8400", "localhost:8400", "ftp://x", "http://", "", "x"])
def test_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ClientError, match="no server's address"):
        Client(url)


def test_proxy_of_the_user_is_not_asked_for_loopback(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    with Client(live.url) as client:
        assert client.healthz()


def test_another_kind_of_server_is_noticed() -> None:
    with (
        answering(lambda path: (200, b"<html>It works</html>")) as url,
        Client(url) as client,
        pytest.raises(ClientError, match="not as a Stillroom server"),
    ):
        client.healthz()


def test_refusal_without_a_document_still_has_its_status() -> None:
    with (
        answering(lambda path: (502, b"Bad gateway")) as url,
        Client(url) as client,
        pytest.raises(ApiError, match="answered 502") as refused,
    ):
        client.healthz()
    assert refused.value.status == 502


@pytest.mark.parametrize(
    "key", ["stillröom_a", "stillroom_a\r", " stillroom_a", "stillroom_\udce4"]
)
def test_a_key_that_cannot_be_sent_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ClientError, match="at place") as refused:
        Client("http://127.0.0.1:1", key)
    assert "still" not in str(refused.value)


def test_what_http_cannot_say_is_refused_at_once() -> None:
    with (
        answering(lambda path: (200, {})) as url,
        Client(url) as client,
        pytest.raises(ClientError, match="cannot be said in HTTP") as refused,
    ):
        client.submit("generate", {}, idempotency_key="a\nb")
    assert not isinstance(refused.value, NoAnswer)


@pytest.mark.parametrize("proxy", ["socks5://a:secret@127.0.0.1:1", "gopher://a:secret@127.0.0.1"])
def test_a_proxy_that_cannot_be_used_is_a_sentence(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ClientError, match="ALL_PROXY cannot be used") as refused:
        Client("http://192.0.2.1")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "problem",
    [
        {"detail": [{"loc": ["body"], "msg": "field required"}]},
        {"status": "bad", "errors": {"name": ["is missing"]}},
        {"status": 200, "code": 7, "errors": ["is missing"]},
        {"detail": "", "errors": [{"pointer": 3, "detail": None}]},
    ],
)
def test_a_foreign_servers_problem_keeps_its_status(problem: Any) -> None:
    with (
        answering(lambda path: (422, problem)) as url,
        Client(url) as client,
        pytest.raises(ApiError, match="answered 422") as refused,
    ):
        client.healthz()
    assert (refused.value.status, refused.value.code) == (422, "unknown")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_taken_for_the_answer(status: int, tmp_path: Path) -> None:
    """As of a proxy that wants https."""
    elsewhere = "https://stillroom.example/v1/jobs/job_1"
    with (
        answering(lambda path: (status, b""), location=elsewhere) as url,
        Client(url) as client,
    ):
        with pytest.raises(ClientError, match=f"/v1/jobs/job_1 is redirected to {elsewhere}"):
            client.delete_job("job_1")
        with pytest.raises(ClientError, match="is redirected to"):
            client.download(an_artifact(b""), tmp_path / "x.bin")
    assert list(tmp_path.iterdir()) == []


def test_a_redirect_to_nowhere_is_a_refusal() -> None:
    with (
        answering(lambda path: (302, b"")) as url,
        Client(url) as client,
        pytest.raises(ApiError, match="answered 302"),
    ):
        client.delete_job("job_1")


def an_artifact(content: bytes) -> Any:
    digest = hashlib.sha256(content).hexdigest()
    file = {"path": "x.bin", "bytes": len(content), "sha256": digest}
    about = {"id": "art_1", "name": "x.bin", "bytes": len(content), "sha256": digest}
    return about | {"files": [file]}


def test_download_arrives_whole(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000

    def answer(path: str) -> Answer:
        return (200, content if path.endswith("/content") else an_artifact(content))

    with answering(answer) as url, Client(url) as client:
        path = client.download("art_1", tmp_path / "deep" / "x.bin")
    assert path.read_bytes() == content


def test_a_name_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    name = "x" * 251 + ".bin"
    with answering(lambda path: (200, b"bytes")) as url, Client(url) as client:
        assert client.download(an_artifact(b"bytes"), tmp_path / name).read_bytes() == b"bytes"


def test_damaged_download_leaves_what_was_there(tmp_path: Path) -> None:
    there = tmp_path / "x.bin"
    there.write_bytes(b"from yesterday")
    with (
        answering(lambda path: (200, b"flipped bits")) as url,
        Client(url) as client,
        pytest.raises(DamagedDownload, match="arrived damaged"),
    ):
        client.download(an_artifact(b"the real bytes"), there)
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]
    assert there.read_bytes() == b"from yesterday"


class Breaking(BaseHTTPRequestHandler):
    """Sends ``CONTENT`` in parts, as asked, and hangs up after each thousand bytes."""

    asked: ClassVar[list[str | None]] = []
    tag: ClassVar[str] = ""
    silent_seconds: ClassVar[float] = 0.0
    """Before it hangs up."""

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.asked.append(wanted)
        whole = wanted is None or self.headers["If-Range"] != self.tag
        begin = 0 if whole else int(str(wanted).removeprefix("bytes=").removesuffix("-"))
        self.send_response(200 if whole else 206)
        self.send_header("Content-Length", str(len(CONTENT) - begin))
        self.end_headers()
        self.wfile.write(CONTENT[begin : begin + 1000])
        time.sleep(self.silent_seconds)

    def log_message(self, format: str, *args: object) -> None:
        pass


CONTENT = bytes(range(250)) * 10


@pytest.fixture
def breaking(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(fetching, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(Breaking, "asked", [])
    monkeypatch.setattr(Breaking, "tag", f'"{hashlib.sha256(CONTENT).hexdigest()}"')
    server = ThreadingHTTPServer(("127.0.0.1", 0), Breaking)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_download_that_breaks_goes_on_where_it_was(breaking: str, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    with Client(breaking) as client:
        row = an_artifact(CONTENT)
        path = client.download(row, tmp_path / "x.bin", tell=lambda *how: told.append(how))
    assert path.read_bytes() == CONTENT
    assert Breaking.asked == [None, "bytes=1000-", "bytes=2000-"]
    assert told[-1] == (2500, 2500)
    assert [path.name for path in tmp_path.iterdir()] == ["x.bin"]


def test_a_download_that_stalls_goes_on_where_it_was(
    breaking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Breaking, "silent_seconds", 2.0)
    with Client(breaking, timeout_seconds=0.5) as client:
        path = client.download(an_artifact(CONTENT), tmp_path / "x.bin")
    assert path.read_bytes() == CONTENT
    assert (Breaking.asked[0], Breaking.asked[-1]) == (None, "bytes=2000-")


def test_an_upload_that_stalls_is_sent_again(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    asked: list[str] = []

    def answer(path: str) -> Answer:
        asked.append(path)
        if len(asked) == 1:
            time.sleep(2)
        return 200, {"items": [], "dataset": {"id": "dst_1"}}

    with answering(answer) as url, Client(url, timeout_seconds=0.5) as client:
        assert client.upload("dst_1", [tmp_path])["dataset"]["id"] == "dst_1"
    assert len(asked) > 1


def test_the_next_call_goes_on_where_the_last_one_was(breaking: str, tmp_path: Path) -> None:
    for _ in range(2):
        with (
            Client(breaking, patience_seconds=-1) as client,
            pytest.raises(BrokenConnection),
        ):
            client.download(an_artifact(CONTENT), tmp_path / "x.bin")
    (part,) = tmp_path.iterdir()
    assert part.read_bytes() == CONTENT[:2000]
    with Client(breaking) as client:
        path = client.download(an_artifact(CONTENT), tmp_path / "x.bin")
    assert path.read_bytes() == CONTENT
    assert Breaking.asked == [None, "bytes=1000-", "bytes=2000-"]


def test_of_a_file_that_is_another_now_nothing_is_kept(
    breaking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = an_artifact(CONTENT)
    (tmp_path / f".{row['sha256'][:16]}.part").write_bytes(b"other bytes")
    with Client(breaking) as client, pytest.raises(DamagedDownload):
        client.download(row, tmp_path / "x.bin")
    assert list(tmp_path.iterdir()) == []
    with Client(breaking) as client:
        assert client.download(row, tmp_path / "x.bin").read_bytes() == CONTENT


def test_two_do_not_fetch_one_file_to_one_place(breaking: str, tmp_path: Path) -> None:
    row = an_artifact(CONTENT)
    lock = LockFile.take(tmp_path / f".{row['sha256'][:16]}.part")
    assert lock
    with Client(breaking) as client, pytest.raises(ClientError, match="by another command"):
        client.download(row, tmp_path / "x.bin")
    lock.release()


def test_a_server_that_is_not_there_is_not_waited_for(tmp_path: Path) -> None:
    with Client("http://127.0.0.1:1") as client:
        with pytest.raises(NoAnswer):
            client.download(an_artifact(CONTENT), tmp_path / "x.bin")
        (tmp_path / "a.png").write_bytes(b"x")
        with pytest.raises(NoAnswer):
            client.upload("dst_1", [tmp_path / "a.png"])
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_an_upload_that_broke_off_is_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "POLL_SECONDS", 0.01)
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"x" * 100)
    monkeypatch.setattr(uploads, "FILES_A_REQUEST", 1)
    sent = {"items": [], "dataset": {"id": "dst_1"}}
    answers = iter([(200, sent), (0, {}), (503, {}), (200, sent)])
    told: list[tuple[int, int]] = []
    with answering(lambda _: next(answers)) as url, Client(url) as client:
        client.upload("dst_1", [tmp_path], tell=lambda *how: told.append(how))
    assert told[-1] == (200, 200)
    assert next(answers, None) is None


def test_refused_download_carries_the_problem(tmp_path: Path) -> None:
    problem = {"status": 404, "code": "not_found", "detail": "There is no artifact 'art_1'."}
    with (
        answering(lambda path: (404, problem)) as url,
        Client(url) as client,
        pytest.raises(ApiError, match="There is no artifact"),
    ):
        client.download(an_artifact(b""), tmp_path / "x.bin")
    assert list(tmp_path.iterdir()) == []


def a_watched_job(state: str) -> Any:
    return {"id": "job_1", "state": state}


def test_watch_waits_for_a_server_that_is_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "POLL_SECONDS", 0.01)
    looks = iter([(200, a_watched_job("running")), (503, {}), (200, a_watched_job("succeeded"))])

    def answer(path: str) -> Answer:
        return (200, {"items": []}) if "/events" in path else next(looks)

    with answering(answer) as url, Client(url) as client:
        states = [job["state"] for job, _ in client.watch("job_1")]
    assert states == ["running", "succeeded"]


def test_watch_polls_a_server_that_does_not_hold_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "POLL_SECONDS", 0.05)
    looks = iter([*("running",) * 4, "succeeded"])
    asked: list[str] = []

    def answer(path: str) -> Answer:
        asked.append(path)
        return (200, {"items": []} if "/events" in path else a_watched_job(next(looks)))

    began = time.monotonic()
    with answering(answer) as url, Client(url) as client:
        assert client.wait("job_1")["state"] == "succeeded"
    assert time.monotonic() - began > 4 * 0.05
    assert not any("wait=" in path for path in asked)


def test_watch_gives_up_when_its_patience_ends() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with Client(url, patience_seconds=0.1) as client, pytest.raises(NoAnswer):
        client.wait("job_1")


def test_watch_does_not_wait_for_what_will_not_pass() -> None:
    with (
        answering(lambda path: (404, {"detail": "There is no job."})) as url,
        Client(url) as client,
        pytest.raises(ApiError, match="There is no job"),
    ):
        client.wait("job_1")


@pytest.mark.parametrize(
    "loss",
    [
        httpx.RemoteProtocolError("Server disconnected without sending a response."),
        httpx.ReadTimeout("timed out"),
    ],
)
def test_a_post_whose_answer_is_lost_is_sent_again_under_the_same_key(
    loss: httpx.TransportError, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the server dies between its commit and its answer, or the answer takes too long."""
    send = client._http.request
    lost: list[str] = []

    def lose_the_first(method: str, path: str, **request: Any) -> httpx.Response:
        answer = send(method, path, **request)
        if not lost:
            lost.append(answer.json()["id"])
            raise loss
        return answer

    monkeypatch.setattr(client._http, "request", lose_the_first)
    job = client.generate({"base": BASE, "prompt": "a robot"})
    assert [job["id"]] == lost


def test_a_server_that_always_hangs_up_is_told_of() -> None:
    asked: list[str] = []

    def hang_up(path: str) -> Answer:
        asked.append(path)
        return 0, b""

    with (
        answering(hang_up) as url,
        Client(url) as client,
        pytest.raises(NoAnswer, match="broke"),
    ):
        client.generate({"base": BASE, "prompt": "a robot"})
    assert asked == ["/v1/jobs"] * 2
