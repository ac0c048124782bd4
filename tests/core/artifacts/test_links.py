"""Tokens of links: what they open, for how long, and what else they do not."""

from datetime import timedelta

import pytest

from core.artifacts import links, service
from core.artifacts.service import StoredFile
from core.db.engine import Database
from core.db.models import Artifact, Key, now
from core.errors import NotFound
from core.owners import service as owners
from core.owners.service import Scope

FILE = StoredFile("dog.safetensors", 3, "0" * 64, "artifacts/a/dog.safetensors")


def an_artifact(database: Database, owner: str = "ann", **about: object) -> str:
    given = {"kind": "lora", "role": "lora", "name": "dog", "format": "peft", "job_id": None}
    with database.write() as session:
        return service.record(session, owner=owner, files=[FILE], **(given | about)).id  # type: ignore[arg-type]


def a_key(database: Database, *scopes: Scope, owner: str = "ann") -> str:
    with database.write() as session:
        return owners.create(session, owner=owner, name="x", scopes=scopes or ("read",))[0].id


def signed(database: Database, key_id: str, artifact_id: str, seconds: int = 60) -> str:
    with database.read() as session:
        return links.sign(session, "ann", key_id, artifact_id, seconds=seconds)[0]


def opens(database: Database, artifact_id: str, token: str) -> bool:
    with database.read() as session:
        try:
            return links.opened(session, artifact_id, token).id == artifact_id
        except NotFound:
            return False


def test_every_process_on_the_database_knows_a_link_again(any_database: Database) -> None:
    artifact = an_artifact(any_database)
    token = signed(any_database, a_key(any_database), artifact)
    url = any_database.engine.url.render_as_string(hide_password=False)
    other = Database(url)
    assert opens(other, artifact, token)
    other.dispose()


def test_it_opens_its_own_artifact_alone(database: Database) -> None:
    artifact, other = an_artifact(database), an_artifact(database)
    token = signed(database, a_key(database), artifact)
    assert opens(database, artifact, token)
    assert not opens(database, other, token)
    assert not opens(database, "art_nothing", token)


def test_nothing_of_a_token_can_be_changed(database: Database) -> None:
    artifact, key = an_artifact(database), a_key(database)
    token = signed(database, key, artifact)
    until, _, signature = token.split(".")
    others = (
        f"{int(until) + 1}.{key}.{signature}",
        f"{until}.{a_key(database)}.{signature}",
        f"{until}.{key}.{'0' * 64}",
        f"{until}.{key}.{signature.upper()}",
        *(token[:-1], f"{token} ", f"{token}\n", "", "x", "..", f".{key}.{signature}"),
    )
    assert [each for each in others if opens(database, artifact, each)] == []


def test_it_ends_with_its_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = an_artifact(database)
    token = signed(database, a_key(database), artifact, seconds=60)
    monkeypatch.setattr(links, "now", lambda: now() + timedelta(seconds=58))
    assert opens(database, artifact, token)
    monkeypatch.setattr(links, "now", lambda: now() + timedelta(seconds=60))
    assert not opens(database, artifact, token)


def test_it_ends_with_its_key(database: Database) -> None:
    artifact, key, other = an_artifact(database), a_key(database), a_key(database)
    token, others = signed(database, key, artifact), signed(database, other, artifact)
    with database.write() as session:
        owners.delete(session, key)
    assert not opens(database, artifact, token)
    assert opens(database, artifact, others)


def test_it_ends_with_the_artifact(database: Database) -> None:
    artifact = an_artifact(database)
    token = signed(database, a_key(database), artifact)
    with database.write() as session:
        session.delete(session.get_one(Artifact, artifact))
    assert not opens(database, artifact, token)


def test_an_artifact_that_expires_takes_its_links_along(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    expires_at = now() + timedelta(seconds=30)
    artifact, key = an_artifact(database, expires_at=expires_at), a_key(database)
    with database.read() as session:
        _, until = links.sign(session, "ann", key, artifact, seconds=3600)
    assert until == expires_at.replace(microsecond=0)
    kept = an_artifact(database)
    token = signed(database, key, kept, seconds=3600)
    with database.write() as session:
        session.get_one(Artifact, kept).expires_at = expires_at
    assert opens(database, kept, token)
    monkeypatch.setattr(links, "now", lambda: expires_at)
    assert not opens(database, kept, token)
    with database.read() as session, pytest.raises(NotFound, match="any more"):
        links.sign(session, "ann", key, kept, seconds=60)


def test_a_key_that_may_not_read_signs_nothing_that_opens(database: Database) -> None:
    artifact, key = an_artifact(database), a_key(database, "write")
    assert not opens(database, artifact, signed(database, key, artifact))


def test_who_holds_a_key_cannot_sign_for_longer_than_we_do(database: Database) -> None:
    artifact, key_id = an_artifact(database), a_key(database)
    with database.read() as session:
        key = session.get_one(Key, key_id)
        stamp = int((now() + timedelta(days=8)).timestamp())
        forged = f"{stamp}.{key_id}.{links._signature(key, artifact, stamp)}"
    assert not opens(database, artifact, forged)


def test_another_owners_artifact_is_not_there(database: Database) -> None:
    artifact = an_artifact(database, owner="bob")
    with database.read() as session, pytest.raises(NotFound):
        links.sign(session, "ann", a_key(database), artifact, seconds=60)
