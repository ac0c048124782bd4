"""Downloads keep to their folder, and what is there."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from api.client import ClientError
from api.commands import download, programs
from tests.api.cli.conftest import Run
from tests.api.cli.test_watching import a_look
from tests.api.live import Answer, answering


def an_artifact(number: int, name: str, content: bytes) -> Any:
    digest = hashlib.sha256(content).hexdigest()
    return {
        "id": f"art_{number}",
        "name": name,
        "role": "images",
        "bytes": len(content),
        "sha256": digest,
        "files": [{"path": "only.png", "bytes": len(content), "sha256": digest}],
    }


def test_download_never_leaves_its_folder_nor_replaces_another_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLROOM_KEY", "any")

    def answer(path: str) -> Answer:
        content = path.encode() if path.endswith("/content") else b""
        made = b"/v1/artifacts/art_1/content"
        return (200, content or an_artifact(1, "../../way out.png", made))

    folder = tmp_path / "here"
    with answering(answer) as url:
        assert run("download", "art_1", "--to", str(folder), "--url", url)[0] == 0
        assert [path.name for path in folder.iterdir()] == ["way out.png"]
        assert run("download", "art_1", "--to", str(folder), "--url", url)[0] == 0
        (folder / "way out.png").write_bytes(b"mine")
        code, _, err = run("download", "art_1", "--to", str(folder), "--url", url)
    assert code == 1
    assert "is something else already" in err
    assert (folder / "way out.png").read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [folder]


def test_artifacts_of_one_name_are_told_apart() -> None:
    made = [
        an_artifact(1, "a.png", b""),
        an_artifact(2, "b.png", b""),
        an_artifact(3, "a.png", b""),
    ]
    assert download._names(made) == ["art_1-a.png", "b.png", "art_3-a.png"]


def test_pictures_of_another_job_get_a_name_of_their_own(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names tell number and seed alone: the same seed with another prompt makes the same ones."""
    monkeypatch.setenv("STILLROOM_KEY", "any")
    made = [
        an_artifact(1, "0000-7.png", b"/v1/artifacts/art_1/content"),
        an_artifact(2, "0001-8.png", b"/v1/artifacts/art_2/content"),
    ]

    def answer(path: str) -> Answer:
        if path.endswith("/content"):
            return 200, path.encode()
        if "/events" in path:
            return 200, {"items": []}
        listed = path.startswith("/v1/jobs/job_1/artifacts")
        return 200, {"items": made} if listed else a_look("succeeded", 500)

    (tmp_path / "0000-7.png").write_bytes(b"of another prompt")
    command = ("generate", "a robot", "--base", "x", "--to", str(tmp_path))
    with answering(answer) as url:
        for _ in range(2):
            code, out, err = run(*command, "--url", url)
            assert code == 0, err
            paths = [tmp_path / "art_1-0000-7.png", tmp_path / "0001-8.png"]
            assert out.splitlines() == ["job_1", *map(str, paths)]
        assert json.loads(run(*command, "--url", url, "--json")[1])["files"][0]["path"] == str(
            paths[0]
        )
    assert (tmp_path / "0000-7.png").read_bytes() == b"of another prompt"
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "0000-7.png", *paths])


@pytest.mark.parametrize("how", [(), ("--json",)])
def test_a_job_is_named_before_its_pictures_are_fetched(
    how: tuple[str, ...], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLROOM_KEY", "any")

    def answer(path: str) -> Answer:
        if "/artifacts" in path:
            return 404, {}
        return 200, {"items": []} if "/events" in path else a_look("succeeded", 500)

    with answering(answer) as url:
        command = ("generate", "a robot", "--base", "x", "--to", str(tmp_path), "--url", url)
        code, out, err = run(*command, *how)
    assert (code, "stillroom watch job_1" in err) == (1, True)
    assert (out == "job_1\n") == (not how)


def a_lora(**more: Any) -> Any:
    made = an_artifact(1, "lora_kohya_ssd1b.safetensors", b"weights")
    about = {"kind": "lora", "format": "kohya", "role": "lora_kohya", "base": "ssd-1b"}
    told = {"trigger": None, "instance_prompt": "a photo of sks dog"}
    return made | about | {"layout": "ssd-1b", "job": "job_1", "metadata": told} | more


def a_checkpoint() -> Any:
    return a_lora(kind="unet", format="original", role="checkpoint", metadata={})


@pytest.mark.parametrize(
    ("program", "made", "place", "words"),
    [
        ("comfyui", a_lora(), "models/loras", "SSD-1B-A1111.safetensors) and load it with"),
        ("a1111", a_lora(base="sdxl"), "models/Lora", "<lora:my-dog:1>"),
        ("forge", a_checkpoint(), "models/Stable-diffusion", "choose the checkpoint my-dog"),
    ],
)
def test_a_file_is_put_where_a_program_looks(
    program: str,
    made: Any,
    place: str,
    words: str,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STILLROOM_KEY", "any")

    def answer(path: str) -> Answer:
        if path.startswith("/v1/jobs/job_1/artifacts"):
            other = a_lora(id="art_0", role="lora", format="peft")
            return 200, {"items": [other, made], "next_cursor": None}
        if path == "/v1/jobs/job_1":
            return 200, {"id": "job_1", "name": "my dog", "state": "succeeded"}
        return 200, b"weights" if path == "/v1/artifacts/art_1/content" else made

    with answering(answer) as url:
        rest = ("--for", program, "--url", url)
        code, _, err = run("download", "job_1", "--to", str(tmp_path), *rest)
        assert (code, "folder: there is no" in err) == (1, True)
        (tmp_path / place).mkdir(parents=True)
        for _ in range(2):
            code, _, err = run("download", "job_1", "--to", str(tmp_path), *rest)
            assert code == 0, err
        assert (tmp_path / place / "my-dog.safetensors").read_bytes() == b"weights"
        assert words in err
        assert "a photo of sks dog" in err or made["kind"] == "unet"
        assert run("download", "job_1", *rest)[0] == 2, "where is it?"


@pytest.mark.parametrize(
    ("name", "trigger", "called"),
    [
        ("../../etc", None, "etc"),
        (None, "sks dog", "sks-dog"),
        (None, None, "job_1"),
        ("…", None, "job_1"),
    ],
)
def test_names_for_programs_are_names(name: str | None, trigger: str | None, called: str) -> None:
    job: Any = {"name": name}
    made = a_lora(metadata={"trigger": trigger})
    assert programs.file_name(made, job) == f"{called}.safetensors"


def test_a_program_is_told_apart_from_what_it_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="in peft form"):
        programs.place(programs.known("comfyui"), a_lora(format="peft"), tmp_path)
