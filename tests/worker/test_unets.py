"""UNets of artifacts on a worker's disk."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from core.artifacts.service import StoredFile
from core.artifacts.store import Store
from core.config import Settings
from core.errors import NotFound
from worker import unets


@pytest.fixture
def store(settings: Settings) -> Store:
    return Store.of(settings)


def put(store: Store, artifact_id: str) -> list[StoredFile]:
    files = []
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        content = f"{name} of {artifact_id}".encode()
        key = f"{artifact_id}/{name}"
        store.put_bytes(key, content)
        files.append(StoredFile(f"unet/{name}", len(content), "0" * 64, key))
    return files


def test_a_unet_is_fetched_once(store: Store, tmp_path: Path) -> None:
    files = put(store, "art_1")
    place = unets.lay_out(tmp_path / "unets", "art_1", files, store)
    assert {path.name for path in place.iterdir()} == {
        *("config.json", "diffusion_pytorch_model.safetensors"),
    }
    store.delete_prefix("art_1")
    assert unets.lay_out(tmp_path / "unets", "art_1", files, store) == place
    assert (place / "config.json").read_text() == "config.json of art_1"


def test_what_was_used_last_is_kept(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "unets"
    for number in range(unets.KEPT):
        place = unets.lay_out(folder, f"art_{number}", put(store, f"art_{number}"), store)
        os.utime(place, (number, number))
    unets.lay_out(folder, "art_0", [], store)  # in use again
    unets.lay_out(folder, "art_new", put(store, "art_new"), store)
    assert {path.name for path in folder.iterdir()} == {"art_0", "art_2", "art_3", "art_new"}


def test_a_fetch_that_fails_leaves_no_folder_that_looks_whole(store: Store, tmp_path: Path) -> None:
    files = put(store, "art_1")
    lost = replace(files[1], store_key="art_1/lost")
    with pytest.raises(NotFound):
        unets.lay_out(tmp_path / "unets", "art_1", [files[0], lost], store)
    assert not (tmp_path / "unets" / "art_1").exists()
    assert unets.lay_out(tmp_path / "unets", "art_1", files, store).is_dir()


def test_another_worker_may_be_faster(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, folder = put(store, "art_1"), tmp_path / "unets"
    fetch = Store.fetch

    def fetch_while_another_lays_out(store: Store, key: str, path: Path) -> None:
        fetch(store, key, path)
        (folder / "art_1").mkdir(exist_ok=True)
        (folder / "art_1" / "config.json").write_text("theirs")

    monkeypatch.setattr(Store, "fetch", fetch_while_another_lays_out)
    place = unets.lay_out(folder, "art_1", files, store)
    assert (place / "config.json").read_text() == "theirs"
    assert [path.name for path in folder.iterdir()] == ["art_1"]
