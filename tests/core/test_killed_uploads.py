"""What a process that dies inside an upload leaves in the store: nothing, a day later."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select, update

from core import purge
from core.artifacts.store import Store
from core.config import Settings
from core.datasets import service
from core.db.engine import Database
from core.db.models import Artifact, Dataset, Deletion, Image, now
from tests.support import loras, uploads

SEND = """
import sys
from pathlib import Path

from core.artifacts import intake as loras
from core.artifacts.store import Store
from core.config import Settings
from core.datasets import intake as pictures
from core.datasets.decoder_pool import DecoderPool
from core.db.engine import Database

settings = Settings()
given = Database.of(settings), Store.of(settings)
kind, dataset, path = sys.argv[1:]
with Path(path).open("rb") as file:
    if kind == "pictures":
        sent = [pictures.Upload("sent", file)]
        pool = DecoderPool(settings)
        pictures.receive(*given, pool, settings, owner="ann", dataset_id=dataset, uploads=sent)
        pool.close()
    else:
        loras.receive(*given, settings, owner="ann", upload=loras.Upload("sent", file))
"""
LABELS = {"pictures": "inside an upload", "loras": "inside an upload of a LoRA"}
SENT = {
    "pictures": uploads.picture(),
    "loras": loras.file_of(loras.spelt(loras.kohya_sgm, loras.unet_pairs(rank=2), 1)),
}


@pytest.mark.parametrize("kind", LABELS)
def test_only_what_came_again_is_left(
    kind: str, any_database: Database, settings: Settings, tmp_path: Path
) -> None:
    store, sent = Store.of(settings), tmp_path / "sent"
    sent.write_bytes(SENT[kind])
    with any_database.write() as session:
        dataset = service.create(session, "ann", name="dog", kind="instance").id
    environment = os.environ | {
        "STILLROOM_HOME": str(settings.root),
        "STILLROOM_DATABASE_URL": any_database.engine.url.render_as_string(hide_password=False),
        "STILLROOM_CRASH_AT": LABELS[kind],
        "STILLROOM_CRASH_MARK": str(tmp_path / "mark"),
    }
    for code in (137, 0):
        command = [sys.executable, "-c", SEND, kind, dataset, str(sent)]
        ended = subprocess.run(command, env=environment, check=False, capture_output=True)
        assert ended.returncode == code, ended.stderr.decode()

    def files() -> list[str]:
        blobs = settings.blobs_path
        return [str(path.relative_to(blobs)) for path in blobs.rglob("*") if path.is_file()]

    purge.finish(any_database, store, settings)
    assert len(files()) == 2  # for all that anybody knows, it is still coming
    with any_database.write() as session:
        session.execute(update(Deletion).values(since=now(), until=now()))  # two days on
    purge.finish(any_database, store, settings)
    with any_database.read() as session:
        images = session.scalars(select(Image.store_key).where(Image.dataset_id == dataset))
        artifacts = session.scalars(select(Artifact.files))
        named = [*images, *(file["store_key"] for each in artifacts for file in each)]
        assert files() == named
        assert session.scalar(select(Deletion)) is None
        assert session.get(Dataset, dataset)
