"""POST /v1/artifacts: LoRAs that were made elsewhere, and everything else that is sent there."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from httpx2 import Response
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from api.middleware import JSON_BODY_BYTES
from core.config import MIB
from tests.api.conftest import Person, Server
from tests.support import loras, uploads
from tests.support.loras import with_header

PART = ("down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",)
SENT = loras.file_of(loras.spelt(loras.kohya_sgm, loras.unet_pairs(rank=2), 1))
SMALL = loras.file_of(loras.spelt(loras.peft, loras.unet_pairs(modules=PART)), {"a": "b"})
HEADER_BYTES = int.from_bytes(SMALL[:8], "little")


def bring(
    person: Person, content: bytes = SENT, filename: str = "dog.safetensors", **fields: Any
) -> Response:
    sent = {"file": (filename, io.BytesIO(content), "application/octet-stream")}
    return person.post("/v1/artifacts", files=sent, data=fields)


def test_a_lora_is_brought_and_read_back(ann: Person) -> None:
    made = bring(ann, name="my dog")
    assert made.status_code == 201
    row = made.json()
    assert made.headers["Location"] == f"/v1/artifacts/{row['id']}"
    warnings = row.pop("warnings")
    assert warnings == []
    assert row == ann.get(made.headers["Location"]).json() == {
        "id": row["id"],
        "job": None,
        "kind": "lora",
        "role": "lora",
        "name": "my dog",
        "format": "kohya",
        "bytes": len(SENT),
        "sha256": uploads.sha256(SENT),
        "base": None,
        "layout": "ssd-1b",
        "files": [
            {"path": "dog.safetensors", "bytes": len(SENT), "sha256": uploads.sha256(SENT)}
        ],
        "metadata": row["metadata"],
        "created_at": row["created_at"],
        "expires_at": None,
    }  # fmt: skip
    assert row["metadata"]["rank"] == 2
    assert ann.get(f"{made.headers['Location']}/content").content == SENT
    assert ann.get("/v1/artifacts", params={"kind": "lora"}).json()["items"] == [row]


def test_sent_again_it_is_the_same_one(ann: Person) -> None:
    first, again = bring(ann), bring(ann, name="other")
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["Location"] == first.headers["Location"]


def test_another_owner_finds_nothing(ann: Person, bob: Person) -> None:
    made = bring(ann).json()
    for path in ("", "/content", "/files/dog.safetensors"):
        assert bob.get(f"/v1/artifacts/{made['id']}{path}").status_code == 404
    spec = {"base": "nano-ssd-1b", "prompt": "x", "loras": [{"artifact": made["id"]}]}
    refused = bob.post("/v1/jobs", {"kind": "generate", "spec": spec})
    assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
    own = bring(bob)
    assert own.status_code == 201
    assert own.json()["id"] != made["id"]


def test_one_that_fits_several_comes_with_a_warning(ann: Person) -> None:
    for answer in (bring(ann, SMALL), bring(ann, SMALL)):
        row = answer.json()
        assert row["layout"] is None
        assert [each["code"] for each in row["warnings"]] == ["layout_ambiguous"]
        assert row["metadata"]["layouts"] == ["sdxl", "ssd-1b", "vega"]


def test_jobs_take_it_where_it_fits(ann: Person) -> None:
    lora = bring(ann).json()["id"]
    for base, status in (("nano-ssd-1b", 201), ("nano-sdxl", 422)):
        spec = {"base": base, "prompt": "x", "loras": [{"artifact": lora}]}
        answer = ann.post("/v1/jobs", {"kind": "generate", "spec": spec})
        assert answer.status_code == status
    told = answer.json()
    assert told["code"] == "layout_mismatch"
    assert "layout ssd-1b" in told["detail"]
    assert "'nano-sdxl'" in told["detail"]


@pytest.mark.parametrize(
    ("content", "code", "word"),
    [
        (uploads.zip_of({"data.pkl": b"x"}), "not_safetensors", "a zip"),
        (SENT[:-1], "truncated", "dog.safetensors"),
        (loras.file_of({"a.hada_w1_a": loras.unet_pairs(modules=PART)["unet", PART[0]][0]}),
         "unsupported_lora", "`a.hada_w1_a` is LoHa's"),
        (b"", "not_safetensors", "dog.safetensors"),
    ],
)  # fmt: skip
def test_what_is_none_is_refused_in_a_sentence(
    content: bytes, code: str, word: str, ann: Person
) -> None:
    refused = bring(ann, content)
    assert (refused.status_code, refused.json()["code"]) == (422, code)
    assert word in refused.json()["detail"]
    assert ann.get("/v1/artifacts").json()["items"] == []


def test_a_reader_may_not(server: Server) -> None:
    refused = bring(server.person("read"))
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")


@pytest.mark.parametrize(
    ("form", "status", "word"),
    [
        ({"data": {"name": "x"}}, 422, "`file`"),
        ({"data": {"file": "text"}}, 422, "`file`"),
        ({"files": {"files": ("a", b"x")}}, 422, "no field `files`"),
        ({"files": [("file", ("a", b"x")), ("file", ("b", b"x"))]}, 400, "Too many files"),
        ({"files": {"file": ("a", SENT)}, "data": {"rank": "4"}}, 422, "no field `rank`"),
        ({"files": {"file": ("a", SENT)}, "data": {"name": ""}}, 422, "`name`"),
        ({"files": {"file": ("a", SENT)}, "data": {"name": "a\0b"}}, 422, "`name`"),
        ({"files": {"file": ("a", SENT)}, "data": {"name": "x" * 201}}, 422, "`name`"),
        ({"content": b"x"}, 422, "`file`"),
    ],
)
def test_forms_that_cannot_be_meant(
    form: dict[str, Any], status: int, word: str, ann: Person
) -> None:
    refused = ann.post("/v1/artifacts", **form)
    assert refused.status_code == status
    assert word in refused.json()["detail"]


@pytest.mark.parametrize("charset", ["undefined", "punycode", "unicode_escape"])
def test_a_form_in_an_odd_charset_is_no_error_of_ours(ann: Person, charset: str) -> None:
    name = b'--X\r\nContent-Disposition: form-data; name="name"\r\n\r\n\\ud800\r\n'
    file = b'--X\r\nContent-Disposition: form-data; name="file"; filename="\\ud800"\r\n\r\n'
    refused = ann.call(
        "POST",
        "/v1/artifacts",
        headers={"Content-Type": f"multipart/form-data; boundary=X; charset={charset}"},
        content=name + file + SMALL + b"\r\n--X--",
    )
    assert refused.status_code in (400, 422)


def test_it_is_counted_as_uploads_are(ann: Person, server: Server) -> None:
    """Neither by the cap of JSON bodies nor by none."""
    data = b"\0" * (JSON_BODY_BYTES + MIB)
    large = loras.raw_file({"x": ("F16", [len(data) // 2], data)})
    assert bring(ann, large).json()["code"] == "unsupported_lora"
    declared = {"Content-Length": str(server.settings.max_body_bytes + 1)}
    refused = ann.call("POST", "/v1/artifacts", headers=declared, content=b"")
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")


def test_a_large_one_waits_in_the_home_and_leaves_it(ann: Person, server: Server) -> None:
    pairs = loras.unet_pairs(rank=16)
    assert bring(ann, loras.file_of(loras.spelt(loras.peft, pairs))).status_code == 201
    assert list(server.settings.scratch_path.iterdir()) == []


def test_the_description_tells_of_it(server: Server) -> None:
    post = server.http.get("/openapi.json").json()["paths"]["/v1/artifacts"]["post"]
    assert {"201", "400", "413", "422"} <= set(post["responses"])
    form = post["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["required"] == ["file"]


numbers: st.SearchStrategy[Any] = st.integers(-2, 2**70) | st.sampled_from(
    [True, None, 1.5, "1", [], {}]
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "BF16", "F64", "I8", "", None, 3]),
        "shape": st.lists(numbers, max_size=5) | numbers,
        "data_offsets": st.lists(numbers, max_size=3) | numbers,
    }
)


@st.composite
def odd_files(draw: st.DrawFn) -> bytes:
    """SMALL with something changed: bytes, a tensor's line, a name, the length of the header."""
    header = json.loads(SMALL[8 : 8 + HEADER_BYTES])
    data, length = SMALL[8 + HEADER_BYTES :], None
    for _ in range(draw(st.integers(1, 3))):
        key = draw(st.sampled_from(sorted(header)) | st.text(max_size=8))
        change = draw(st.sampled_from(["entry", "field", "name", "length", "data", "metadata"]))
        if change == "entry":
            header[key] = draw(entries)
        elif change == "field" and isinstance(header.get(key), dict):
            field = draw(st.sampled_from(["dtype", "shape", "data_offsets", "more"]))
            header[key] = header[key] | {field: draw(numbers | st.lists(numbers, max_size=4))}
        elif change == "name" and key in header:
            header[draw(st.text(max_size=8)) + key] = header.pop(key)
        elif change == "length":
            length = draw(st.integers(0, 2**64 - 1) | st.integers(0, 2 * len(SMALL)))
        elif change == "data":
            at = draw(st.integers(0, max(0, len(data) - 1)))
            data = data[:at] + draw(st.binary(max_size=8)) + data[at + draw(st.integers(0, 8)) :]
        else:
            header["__metadata__"] = draw(
                st.dictionaries(
                    st.sampled_from(["modelspec.trigger_phrase", "lora_adapter_metadata", "x"]),
                    st.text(max_size=8) | numbers,
                )
            )
    return with_header(json.dumps(header).encode(), data, length)


@hypothesis_settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(odd_files(), st.text(max_size=8))
def test_no_file_breaks_the_server(ann: Person, content: bytes, filename: str) -> None:
    answer = bring(ann, content, filename.encode("utf-8", "replace").decode() or "x")
    assert answer.status_code in (201, 422), answer.text
    if answer.status_code == 422:
        assert answer.json()["detail"]


@pytest.mark.parametrize("flip", [0, 1, 7, 8, 9, 100, HEADER_BYTES + 7, HEADER_BYTES + 8])
def test_a_flipped_byte(ann: Person, flip: int) -> None:
    content = bytearray(SMALL)
    content[flip] ^= 0x40
    assert bring(ann, bytes(content)).status_code in (201, 422)


def test_no_pickle_is_opened(ann: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch = b"cpathlib\nPath.touch\n(cpathlib\nPath\n(Vunpickled\ntRtR."
    assert bring(ann, touch).json()["code"] == "not_safetensors"
    assert list(tmp_path.iterdir()) == []
