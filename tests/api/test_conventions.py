"""What holds for every route: problems, ids, hosts, sizes, the description of it all."""

import ast
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import jsonschema_rs
import pytest
from fastapi.testclient import TestClient

from api.codes import CODES
from api.examples import DISTILL, FINE_TUNE, GENERATE
from api.main import create_app
from core import bases, catalogue
from core.config import Settings
from core.errors import ServiceError
from tests.api.conftest import Person, Server
from tests.support import uploads

PROBLEM = "application/problem+json"


def test_every_problem_has_the_same_shape(ann: Person) -> None:
    for answer, status in (
        (ann.get("/v1/jobs/job_nothing"), 404),
        (ann.get("/nothing"), 404),
        (ann.call("PUT", "/v1/jobs"), 405),
        (ann.post("/v1/datasets", content=b"{", headers={"Content-Type": "application/json"}), 400),
        (ann.post("/v1/datasets", {}), 422),
        (ann.get("/v1/keys"), 403),
    ):
        problem = answer.json()
        assert answer.status_code == problem["status"] == status
        assert answer.headers["Content-Type"] == PROBLEM
        assert set(problem) - {"errors"} == {
            *("type", "title", "status", "detail", "code", "request_id"),
        }
        assert problem["type"] == f"/docs#{problem['code']}"
        assert problem["request_id"] == answer.headers["X-Request-Id"]
        assert problem["detail"].endswith(".")


def test_a_wrong_method_is_told_the_right_ones(ann: Person) -> None:
    assert ann.call("PUT", "/v1/jobs").headers["Allow"] == "GET, POST"
    assert ann.call("DELETE", "/v1/jobs/job_x/cancel").headers["Allow"] == "POST"


@pytest.mark.parametrize(
    "body", [b"{", b"not json", b'{"name": }', b"\xff\xfe", b"[" * 5000, b"9" * 5000]
)
def test_a_body_that_is_not_json(body: bytes, ann: Person) -> None:
    answer = ann.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_json")


def test_a_body_that_is_no_utf_8_is_told_so(ann: Person) -> None:
    body = b'{"name": "d\xffg"}'
    answer = ann.post("/v1/datasets", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_json")
    assert "UTF-8" in answer.json()["detail"]


def test_zero_bytes_in_addresses(ann: Person) -> None:
    assert ann.get("/v1/jobs/%00").status_code == 404
    assert ann.get("/v1/jobs?kind=%00").status_code == 422


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_a_body_of_another_type(kind: str, ann: Person) -> None:
    answer = ann.post("/v1/jobs", content=b'{"kind": "x"}', headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("body", [b"null", b"[]", b'"text"', b""])
def test_json_that_is_no_object(body: bytes, ann: Person) -> None:
    answer = ann.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422


@pytest.mark.parametrize("cursor", ["%", "ä", "aGk", "AAAA", "x" * 501, ""])
def test_a_cursor_of_ones_own_making(cursor: str, ann: Person) -> None:
    answer = ann.get("/v1/jobs", params={"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_cursor")


@pytest.mark.parametrize("limit", ["0", "201", "x", "-1"])
def test_limits_are_limited(limit: str, ann: Person) -> None:
    answer = ann.get("/v1/datasets", params={"limit": limit})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/limit"
    assert limit in answer.json()["detail"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8400", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8400", 200),
        ("studio.example", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("0.0.0.0", 421),
        ("", 421),
    ],
)
def test_only_known_names_are_answered(host: str, status: int, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, host="0.0.0.0", allowed_hosts=["studio.example"])
    http = TestClient(create_app(settings), base_url="http://localhost")
    answer = http.get("/healthz", headers={"Host": host})
    assert answer.status_code == status
    if status == 421:
        assert answer.json()["code"] == "wrong_host"


def test_large_bodies_are_refused_before_they_are_read(ann: Person) -> None:
    declared = ann.post("/v1/datasets", content=b"x" * (5 * 1024**2))
    assert (declared.status_code, declared.json()["code"]) == (413, "too_large")


def test_large_bodies_without_a_length_are_counted(ann: Person, tmp_path: Path) -> None:
    pieces = (b" " * 1024**2 for _ in range(6))
    counted = ann.post("/v1/datasets", content=pieces, headers={"Content-Type": "application/json"})
    assert (counted.status_code, counted.json()["code"]) == (413, "too_large")


def test_uploads_have_a_cap_of_their_own(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, max_body_bytes=1000)
    with TestClient(create_app(settings), base_url="http://localhost") as http:
        server = Server(http, settings)
        ann = server.person("read", "write")
        refused = ann.upload(ann.dataset(), ("a.png", b"x" * 2000))
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")


def test_what_nobody_foresaw_leaks_nothing(
    ann: Person, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(*_: object, **__: object) -> None:
        raise RuntimeError("secret of /home/of/somebody")

    monkeypatch.setattr("core.datasets.service.list_page", explode)
    answer = ann.get("/v1/datasets")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert answer.headers["Content-Type"] == PROBLEM
    assert "secret" not in answer.text
    assert "secret" in caplog.text


def test_a_client_that_leaves_is_no_failure_of_ours(
    ann: Person, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    headers = [
        (b"host", b"localhost"),
        (b"content-type", b"multipart/form-data; boundary=x"),
        (b"authorization", f"Bearer {ann.token}".encode()),
    ]
    path = f"/v1/datasets/{ann.dataset()}/images"
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": path, "headers": headers}
    scope |= {"query_string": b"", "asgi": {"version": "3.0"}, "http_version": "1.1"}
    sent: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    with caplog.at_level("INFO"):
        anyio.run(server.app, scope, receive, send)
    assert sent == []
    assert "the client left" in caplog.text
    assert "Traceback" not in caplog.text


def test_healthz_and_readyz(server: Server, tmp_path: Path) -> None:
    assert server.http.get("/healthz").json() == {"status": "ok"}
    with TestClient(create_app(Settings(home=tmp_path)), base_url="http://localhost") as http:
        alone = http.get("/readyz")
        assert (alone.status_code, alone.json()["code"]) == (503, "no_worker")
        assert alone.headers["Retry-After"] == "1"
        Server(http, Settings(home=tmp_path)).worker()
        assert http.get("/readyz").json() == {"status": "ready", "workers": 1}
        (tmp_path / "blobs").rmdir()
        away = http.get("/readyz")
        assert (away.status_code, away.json()["code"]) == (503, "store_unavailable")


def test_models_say_why_they_are_not_there(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with TestClient(create_app(settings), base_url="http://localhost") as http:
        server = Server(http, settings)
        reader = server.person("read")
        models = {model["id"]: model for model in reader.get("/v1/models").json()["items"]}
        assert set(models["vega"]) == {
            *("id", "layout", "parameters", "native_size", "prediction_type", "licence"),
            *("available", "why_not"),
        }
        assert models["nano-sdxl"]["available"] is True
        assert "stillroom models pull vega" in models["vega"]["why_not"]
        server.worker("vega")
        models = {model["id"]: model for model in reader.get("/v1/models").json()["items"]}
        assert (models["vega"]["available"], models["vega"]["why_not"]) == (True, None)


def test_models_that_were_added_are_told_like_the_others(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    with TestClient(create_app(settings), base_url="http://localhost") as http:
        server = Server(http, settings)
        reader = server.person("read")
        catalogue.add(
            "my.pony", bases.NANO_SDXL, settings, print, velocity=True, licence="fair use"
        )
        *_, model = reader.get("/v1/models").json()["items"]
        assert "stillroom models add my.pony PATH" in model.pop("why_not")
        assert model == {
            "id": "my.pony", "layout": "sdxl", "parameters": 7_402_292, "native_size": 64,
            "prediction_type": "v_prediction", "licence": "fair use", "available": False,
        }  # fmt: skip
        server.worker("my.pony")
        *_, model = reader.get("/v1/models").json()["items"]
        assert (model["available"], model["why_not"]) == (True, None)


def test_a_restart_keeps_the_admin_key(tmp_path: Path) -> None:
    keys = set()
    for _ in range(2):
        with TestClient(create_app(Settings(home=tmp_path)), base_url="http://localhost") as http:
            key = (tmp_path / "admin.key").read_text().strip()
            answer = http.get("/v1/keys", headers={"Authorization": f"Bearer {key}"})
            assert len(answer.json()["items"]) == 1
            keys.add(key)
    assert len(keys) == 1


def test_uploads_wait_in_the_home(ann: Person, server: Server) -> None:
    assert Path(tempfile.gettempdir()) == server.settings.scratch_path
    ann.dataset(("big.png", uploads.picture(size=(1500, 1500), format="PNG", compress_level=0)))
    assert list(server.settings.scratch_path.iterdir()) == []


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(references, node.values()))
    return set().union(*map(references, node)) if isinstance(node, list) else set()


def test_the_description_is_whole(server: Server) -> None:
    document = server.http.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas
    assert {"FineTuneSpec", "GenerateSpec", "ProblemRead", "JobRead"} <= set(schemas)
    assert "HTTPValidationError" not in schemas
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert any(status.startswith("2") for status in operation["responses"]), where
            for status, response in operation["responses"].items():
                if status >= "400":
                    assert list(response["content"]) == [PROBLEM], f"{where} {status}"
            if path.startswith("/v1"):
                assert {"401", "403", "503"} <= set(operation["responses"]), where
                assert operation["security"], where
    assert "`dataset_frozen`" in document["info"]["description"]
    rank = schemas["LoraSpec"]["properties"]["rank"]
    assert (rank["minimum"], rank["maximum"], rank["default"]) == (1, 256, 8)


def bodies(operation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Each JSON that an operation takes or answers with."""
    for part in (operation.get("requestBody", {}), *operation["responses"].values()):
        for media_type, told in part.get("content", {}).items():
            if media_type in ("application/json", PROBLEM):
                yield told


def test_every_example_is_as_its_schema_has_it(server: Server) -> None:
    document = server.http.get("/openapi.json").json()
    components = {"components": document["components"]}
    names = []
    for operations in document["paths"].values():
        for operation in operations.values():
            names.append(operation["operationId"])
            for told in bodies(operation):
                shown = [told["example"]] if "example" in told else told["examples"].values()
                assert shown, operation["operationId"]
                for example in shown:
                    value = example.get("value", example)
                    jsonschema_rs.validate({**told["schema"], **components}, value)
    assert len(names) == len(set(names))
    assert all(name.isidentifier() for name in names)


def test_the_examples_of_jobs_are_taken(ann: Person, server: Server) -> None:
    """But for what their rows are called: those were never made."""
    server.worker("ssd-1b", "sdxl")
    for example in (FINE_TUNE, DISTILL, GENERATE):
        named = set(re.findall(r"(?:dst|job)_\w+", str(example)))
        refused = ann.post("/v1/jobs", example)
        assert refused.status_code in (404, 422), refused.text
        assert any(id in refused.json()["detail"] for id in named), refused.text


ROOT = Path(__file__).resolve().parents[2]
COMMAND_LINE_ONLY = {"disk_full", "hash_mismatch", "not_a_base"}


def kinds(root: type[ServiceError]) -> set[type[ServiceError]]:
    return {root}.union(*map(kinds, root.__subclasses__()))


def said(source: str) -> set[str]:
    """Codes written in Python source: of errors raised, files refused, findings reported."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", "")
            if name in ("Refused", "Flaw", "Finding") and node.args:
                found.add(node.args[0])
            found |= {each.value for each in node.keywords if each.arg == "code"}
    return {str(node.value) for node in found if isinstance(node, ast.Constant)}


def test_every_code_that_is_said_is_listed_and_no_other() -> None:
    codes = {kind.code for kind in kinds(ServiceError)} - {ServiceError.code}
    for package in ("api", "core", "worker"):
        for path in (ROOT / package).rglob("*.py"):
            codes |= said(path.read_text())
    assert codes - COMMAND_LINE_ONLY <= set(CODES)
    sources = "".join(path.read_text() for path in ROOT.glob("[acw]*/**/*.py"))
    assert all(sources.count(f'"{code}"') > 1 for code in CODES)


def test_the_docs_ask_no_other_host(server: Server) -> None:
    page = server.http.get("/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for path in ("/docs", "/docs/docs.js", "/docs/docs.css"):
        answer = server.http.get(path)
        assert answer.status_code == 200
        assert "://" not in answer.text
        assert "<script>" not in answer.text


def test_importing_the_application_loads_no_tensors() -> None:
    code = (
        "import api.main, sys, json;"
        "print(json.dumps([m for m in ('torch', 'diffusers', 'peft', 'transformers', 'celery')"
        " if m in sys.modules]))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(loaded) == []
