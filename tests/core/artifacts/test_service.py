"""Artifact rows."""

import hashlib
from pathlib import Path

import pytest

from core.artifacts import service
from core.artifacts.service import StoredFile
from core.db.engine import Database
from core.db.models import Artifact
from core.errors import NotFound
from core.files.digest import sha256_of


def stored(path: str, content: bytes = b"x") -> StoredFile:
    return StoredFile(path, len(content), hashlib.sha256(content).hexdigest(), f"key/{path}")


def make(database: Database, owner: str = "ann", **given: object) -> Artifact:
    about = {"kind": "lora", "role": "lora", "name": "dog", "format": "peft", "job_id": None}
    with database.write() as session:
        return service.record(
            session,
            owner=owner,
            **({"files": [stored("dog.safetensors")]} | about | given),  # type: ignore[arg-type]
        )


def test_one_file_lends_its_hash(any_database: Database) -> None:
    artifact = make(any_database, facts={"rank": 8})
    with any_database.read() as session:
        found = service.get(session, "ann", artifact.id)
    assert found.sha256 == hashlib.sha256(b"x").hexdigest()
    assert (found.bytes, found.facts) == (1, {"rank": 8})
    assert service.file_of(found, "dog.safetensors").store_key == "key/dog.safetensors"


def test_many_files_have_the_hash_of_their_sorted_lines(database: Database) -> None:
    files = [stored("b.json", b"bb"), stored("a.json", b"a")]
    artifact = make(database, files=files)
    lines = f"a.json {files[1].sha256}\nb.json {files[0].sha256}\n"
    assert artifact.sha256 == hashlib.sha256(lines.encode()).hexdigest()
    assert artifact.bytes == 3
    assert [file.path for file in service.files_of(artifact)] == ["a.json", "b.json"]


def test_others_find_nothing(database: Database) -> None:
    artifact = make(database)
    with database.read() as session:
        for owner, artifact_id in (("bob", artifact.id), ("ann", "art_nothing")):
            with pytest.raises(NotFound):
                service.get(session, owner, artifact_id)
        assert service.list_page(session, "bob") == ([], None)
    with pytest.raises(NotFound):
        service.file_of(artifact, "../dog.safetensors")


def test_lists_are_filtered_and_paged(any_database: Database) -> None:
    made = [make(any_database, kind=kind).id for kind in ("lora", "image", "image", "image")]
    with any_database.read() as session:
        first, cursor = service.list_page(session, "ann", kind="image", limit=2)
        second, end = service.list_page(session, "ann", kind="image", limit=2, cursor=cursor)
    assert [artifact.id for artifact in first + second] == made[:0:-1]
    assert end is None


def test_a_full_last_page_has_no_next(database: Database) -> None:
    make(database)
    with database.read() as session:
        assert service.list_page(session, "ann", limit=1)[1] is None


def test_hash_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    assert sha256_of(tmp_path / "x") == hashlib.sha256(b"x").hexdigest()
