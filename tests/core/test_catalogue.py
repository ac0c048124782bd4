"""Adding a base and taking it away: on the disk, in the database, whole or not at all."""

import random
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sqlalchemy import select

from core import bases, catalogue
from core.adding import conversion, intake
from core.adding.found import Piece
from core.bases import BaseModel
from core.config import Settings
from core.db.engine import Database
from core.db.models import AddedBase
from core.diffusion import noise, sampling
from core.diffusion.components import Components
from core.errors import BaseNotAvailable, BaseUnknown, Conflict, NotABase, NotFound
from core.files.lock import LockFile
from core.jobs import pipelines
from core.jobs import service as jobs
from core.jobs.admission import parse
from core.layouts import NANO_WIDTHS, REAL_WIDTHS, SDXL, SSD_1B
from core.workers import service as workers
from tests.support import jobs as make
from tests.support import originals, real_size
from tests.support.nano import NUMPY_COPY, load, unet_output

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
NANO = {"nano-sdxl": (bases.NANO_SDXL, SDXL), "nano-ssd-1b": (bases.NANO_SSD_1B, SSD_1B)}


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    folder = tmp_path_factory.mktemp("originals")
    return {
        name: originals.write_nano(folder / f"{name}.safetensors", *of) for name, of in NANO.items()
    }


@pytest.fixture
def home(settings: Settings, any_database: Database) -> Settings:
    """A home on either database."""
    url = any_database.engine.url.render_as_string(hide_password=False)
    return settings.model_copy(update={"database_url": url})


def add(settings: Settings, path: Path, name: str = "mine", **how: Any) -> BaseModel:
    return catalogue.add(name, path, settings, lambda _: None, **how)


def rows(database: Database) -> list[AddedBase]:
    with database.read() as session:
        return list(session.scalars(select(AddedBase)))


def on_disk(settings: Settings) -> list[str]:
    return sorted(path.name for path in settings.added_path.glob("*"))


def components(base: BaseModel, settings: Settings) -> Components:
    return load(bases.folder(base, settings))


@pytest.mark.parametrize("name", NANO)
@pytest.mark.parametrize("as_folder", [False, True], ids=["file", "folder"])
def test_what_was_written_comes_back_tensor_by_tensor(
    name: str, as_folder: bool, files: Mapping[str, Path], settings: Settings, database: Database
) -> None:
    folder, layout = NANO[name]
    base = add(settings, folder if as_folder else files[name])
    assert (base.layout, base.widths, base.native_size) == (layout, NANO_WIDTHS, 64)
    ours, theirs = components(base, settings), load(folder)
    for part in PARTS:
        mine, embedded = (getattr(each, part).state_dict() for each in (ours, theirs))
        assert mine.keys() == embedded.keys()
        assert all(torch.equal(mine[key], embedded[key]) for key in mine), part
    assert torch.equal(unet_output(ours), unet_output(theirs))
    assert ours.tokenizer("a dog").input_ids == theirs.tokenizer("a dog").input_ids
    assert ours.zero_unconditional == theirs.zero_unconditional
    assert dict(ours.scheduler.config) == dict(theirs.scheduler.config)


def test_what_is_on_its_side_is_turned(tmp_path: Path) -> None:
    for dtype, name in ((torch.float16, "F16"), (torch.bfloat16, "BF16"), (torch.float32, "F32")):
        there = torch.randn(3, 5).to(dtype)
        content = there.view(torch.uint8).numpy().tobytes()
        path = tmp_path / name
        path.write_bytes(b"before" + content)
        piece = Piece(path, name, (5, 3), 6, 6 + len(content), transposed=True)
        turned = b"".join(conversion._chunks(piece))
        assert torch.equal(torch.frombuffer(bytearray(turned), dtype=dtype).view(5, 3), there.T)


def test_a_row_tells_the_api_what_it_is(
    files: Mapping[str, Path], home: Settings, any_database: Database
) -> None:
    base = add(home, files["nano-sdxl"], "pony.v6", licence="fair use")
    (row,) = rows(any_database)
    assert (row.id, row.layout, row.widths, row.native_size) == (
        "pony.v6",
        "sdxl",
        [32, 48, 64],
        64,
    )
    assert (row.prediction_type, row.licence, row.own_vae) == ("epsilon", "fair use", True)
    assert row.place == base.place
    with any_database.read() as session:
        assert catalogue.find(session, "pony.v6") == base
        assert catalogue.everything(session)[-1] == base
        with pytest.raises(BaseUnknown, match=r"'\.\./pony'\. .*nano-ssd-1b, pony\.v6\.$"):
            catalogue.find(session, "../pony")
    assert bases.ids_here(home)[-1] == "pony.v6"
    assert bases.folder(base, home).parent == home.models_path / "added"


@NUMPY_COPY
def test_velocity_reaches_drawing_and_learning(
    files: Mapping[str, Path], settings: Settings, database: Database
) -> None:
    plain = components(add(settings, files["nano-ssd-1b"], "plain"), settings)
    base = add(settings, files["nano-ssd-1b"], "velocity", velocity=True)
    velocity = components(base, settings)
    assert base.prediction_type == "v_prediction"
    cpu = torch.device("cpu")
    for each, told in ((plain, False), (velocity, True)):
        assert noise.forward_process(each.scheduler.config, cpu).target_is_velocity is told
        solver, _ = sampling._solver("euler", each, 4, None)
        assert solver.config.prediction_type == ("v_prediction" if told else "epsilon")


@NUMPY_COPY
def test_zero_terminal_snr_reaches_them_too(
    files: Mapping[str, Path], settings: Settings, database: Database, tmp_path: Path
) -> None:
    path = tmp_path / "it.safetensors"
    flags = {"v_pred": torch.empty(0), "ztsnr": torch.empty(0)}
    save_file(load_file(files["nano-ssd-1b"]) | flags, path)
    base = components(add(settings, path), settings)
    process = noise.forward_process(base.scheduler.config, torch.device("cpu"))
    assert process.target_is_velocity
    assert process.signal_T[-1] == 0
    for name in sampling.SCHEDULERS:
        _, timesteps = sampling._solver(name, base, 4, None)
        assert timesteps[0] == 999, name


def test_the_same_again_changes_nothing(
    files: Mapping[str, Path], home: Settings, any_database: Database
) -> None:
    first = add(home, files["nano-sdxl"])
    written = (bases.folder(first, home) / "model_index.json").stat()
    assert add(home, files["nano-sdxl"], licence="another") == replace(first, licence="another")
    assert (bases.folder(first, home) / "model_index.json").stat() == written
    assert [row.licence for row in rows(any_database)] == ["not stated"]


def test_a_second_host_brings_the_same_bytes_or_none(
    files: Mapping[str, Path], home: Settings, any_database: Database, tmp_path: Path
) -> None:
    base = add(home, files["nano-sdxl"])
    other = home.model_copy(update={"home": tmp_path / "elsewhere"})
    other.__dict__.pop("root", None)
    other.prepare()
    with pytest.raises(Conflict, match="was added from other bytes"):
        add(other, files["nano-ssd-1b"])
    with pytest.raises(Conflict, match="predicts epsilon, and this would predict v_prediction"):
        add(other, files["nano-sdxl"], velocity=True)
    assert on_disk(other) == []
    assert add(other, files["nano-sdxl"]) == base
    assert on_disk(other) == on_disk(home) == [base.place]
    assert len(rows(any_database)) == 1


def test_another_vae_is_another_base(
    files: Mapping[str, Path], home: Settings, any_database: Database
) -> None:
    add(home, files["nano-sdxl"])
    with any_database.write() as session:
        session.get_one(AddedBase, "mine").own_vae = False
    with pytest.raises(Conflict, match="with the VAE that works in half precision, and here"):
        add(home, files["nano-sdxl"])


NAMES = ["", "Pony", "a b", "a/b", "..", ".hidden", "-x", "art_1", "a@b", "x" * 41, "ä", "a\n"]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_none_may_have(name: str, settings: Settings, tmp_path: Path) -> None:
    for refused in (
        lambda: add(settings, tmp_path, name),
        lambda: catalogue.remove(name, settings),
    ):
        with pytest.raises(NotABase, match="is no name for a base"):
            refused()


def test_a_name_of_ours_is_taken(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(NotABase, match="'sdxl' is a base of the catalogue"):
        add(settings, tmp_path, "sdxl")


def test_a_path_that_is_not_there(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(NotABase, match="There is no"):
        add(settings, tmp_path / "none")


def test_what_breaks_off_leaves_nothing_half(
    files: Mapping[str, Path],
    settings: Settings,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(shutil, "copyfile", interrupt)
        with pytest.raises(KeyboardInterrupt):
            add(settings, files["nano-sdxl"])
    assert (on_disk(settings), rows(database)) == ([], [])
    add(settings, files["nano-sdxl"])


KILLED = """
import os, sys
from pathlib import Path
from core import catalogue
from core.adding import conversion
from core.config import Settings
conversion.shutil.copyfile = lambda *_: os._exit(9)
catalogue.add("mine", Path(sys.argv[1]), Settings(home=sys.argv[2]), print)
"""


def test_a_killed_add_is_out_of_sight_and_swept_by_the_next(
    files: Mapping[str, Path], settings: Settings, database: Database
) -> None:
    command = [sys.executable, "-c", KILLED, str(files["nano-sdxl"]), str(settings.root)]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 9
    assert on_disk(settings) == [".mine.part"]
    assert (bases.ids_here(settings), rows(database)) == (["nano-sdxl", "nano-ssd-1b"], [])
    base = add(settings, files["nano-sdxl"])
    assert on_disk(settings) == [base.place]


def test_a_folder_whose_row_was_not_written_gets_it(
    files: Mapping[str, Path], settings: Settings, database: Database
) -> None:
    base = add(settings, files["nano-sdxl"])
    with database.write() as session:
        session.delete(session.get_one(AddedBase, "mine"))
    (settings.added_path / "mine@000000000000").mkdir()
    assert add(settings, files["nano-ssd-1b"]).place != base.place
    (row,) = rows(database)
    assert on_disk(settings) == [row.place]


def test_two_at_once_are_one(
    files: Mapping[str, Path], settings: Settings, database: Database
) -> None:
    lock = LockFile.take(settings.run_path / "adding-mine.lock")
    assert lock
    with pytest.raises(Conflict, match="Another process is adding or removing 'mine'"):
        add(settings, files["nano-sdxl"])
    lock.release()
    add(settings, files["nano-sdxl"])


def test_a_full_disk_is_told_before_a_byte_is_written(
    files: Mapping[str, Path],
    settings: Settings,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("core.files.space.free_bytes", lambda _: 1_000_000)
    with pytest.raises(Conflict, match=r"0\.02 GB are to come and 0\.00 GB are free") as full:
        add(settings, files["nano-sdxl"])
    assert full.value.code == "disk_full"
    assert on_disk(settings) == []


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_one_value_that_is_no_number_and_nothing_is_left(
    bad: float, files: Mapping[str, Path], settings: Settings, database: Database, tmp_path: Path
) -> None:
    tensors = load_file(files["nano-sdxl"])
    key = next(key for key in tensors if key.startswith("first_stage_model."))
    tensors[key].view(-1)[-1] = bad
    save_file(tensors, tmp_path / "merge.safetensors")
    with pytest.raises(NotABase, match=r"merge\.safetensors holds a value that is infinite or not"):
        add(settings, tmp_path / "merge.safetensors")
    assert on_disk(settings) == []
    assert rows(database) == []


def test_a_file_that_shrinks_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(b"1234")
    with pytest.raises(NotABase, match="got shorter"):
        list(conversion._chunks(Piece(tmp_path / "it", "F16", (4,), 0, 8)))


def test_removing_takes_row_and_folder(
    files: Mapping[str, Path], home: Settings, any_database: Database
) -> None:
    add(home, files["nano-sdxl"])
    assert catalogue.remove("mine", home) == []
    assert (on_disk(home), rows(any_database)) == ([], [])
    with pytest.raises(NotFound, match="'mine'"):
        catalogue.remove("mine", home)


def holder(database: Database, settings: Settings, *held: str, host: str = "b/1") -> None:
    with database.write() as session:
        worker = workers.register(
            session,
            worker_id=f"wrk_{random.random()}",
            host=host,
            pid=1,
            device="cpu",
            role="any",
            bases=list(held),
        )
        worker.ready = True


def test_a_job_that_has_not_ended_keeps_its_base(
    files: Mapping[str, Path], home: Settings, any_database: Database
) -> None:
    add(home, files["nano-sdxl"])
    spec = make.SPEC | {"base": "mine"}
    with pytest.raises(BaseNotAvailable, match="stillroom models add mine PATH"):
        make.submit(any_database, home, spec=spec)
    holder(any_database, home, "mine")
    job = make.submit(any_database, home, spec=spec)
    assert (job.base, job.spec["width"]) == ("mine", 64)
    with pytest.raises(Conflict, match=f"'{job.id}' has not ended and needs 'mine'"):
        catalogue.remove("mine", home)
    with any_database.write() as session:
        jobs.cancel(session, "ada", job.id)
    assert catalogue.remove("mine", home) == ["b"]
    with pytest.raises(BaseUnknown, match="'mine'"):
        make.submit(any_database, home, spec=spec)
    with pytest.raises(Conflict, match="the disk of b holds a base of that name"):
        add(home, files["nano-ssd-1b"])


def test_a_base_that_is_removed_under_a_submit_is_unknown(
    files: Mapping[str, Path], home: Settings, any_database: Database
) -> None:
    add(home, files["nano-sdxl"])
    with any_database.write() as session:
        catalogue.hold(session, "mine")
        pipelines.find(session, "ada", "mine")
    catalogue.remove("mine", home)
    with any_database.write() as session, pytest.raises(BaseUnknown, match="just removed"):
        catalogue.hold(session, "mine")


def test_a_submit_and_a_removal_take_turns(
    files: Mapping[str, Path], home: Settings, any_database: Database
) -> None:
    add(home, files["nano-sdxl"])
    holder(any_database, home, "mine")
    spec = parse("generate", make.SPEC | {"base": "mine"})
    with ThreadPoolExecutor() as pool:
        with any_database.write() as session:
            job = jobs.submit(session, home, owner="ada", spec=spec)
            removal = pool.submit(catalogue.remove, "mine", home)
            with pytest.raises(TimeoutError):
                removal.result(timeout=0.5)
        with pytest.raises(Conflict, match=job.id):
            removal.result()


def real_size_file(folder: Path) -> Path:
    """With holes for tensors: none is read."""
    return originals.write_header(folder / "it.safetensors", originals.real_size(SSD_1B))


def lend(folder: Path, *, takes_halves: bool = True) -> None:
    """What is pulled for checkpoints, but for what the files are about."""
    for name in ("tokenizer", "tokenizer_2"):
        (folder / name).mkdir(parents=True)
        (folder / name / "vocab.json").write_text(f"{name}'s")
        (folder / name / "merges.txt").write_text("")
    (folder / "vae").mkdir()
    config = f'{{"force_upcast": {"false" if takes_halves else "true"}}}'
    (folder / "vae/config.json").write_text(config)
    with torch.device("meta"):
        state = real_size.vae().state_dict()
    told = {key: ("F32", tuple(tensor.shape)) for key, tensor in state.items()}
    originals.write_header(folder / "vae/diffusion_pytorch_model.safetensors", told)


def examine(path: Path, settings: Settings, said: list[str]) -> intake.Addition:
    return intake.examine("mine", path, settings, said.append, velocity=False, licence=None)


@pytest.fixture
def no_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "sha256_of", lambda path: "0" * 64)


@pytest.mark.usefixtures("no_hash")
def test_tokenizers_are_lent_or_the_command_named(settings: Settings, tmp_path: Path) -> None:
    file, said = real_size_file(tmp_path), list[str]()
    with pytest.raises(NotABase, match=r"no tokenizers.*stillroom models pull parts.*pull ssd-1b"):
        examine(file, settings, said)
    lend(tmp_path / "SDXL", takes_halves=False)
    (tmp_path / "SDXL" / "model_index.json").write_text("{}")
    lent = settings.model_copy(update={"bases": {"sdxl": tmp_path / "SDXL"}})
    addition = examine(file, lent, said)
    assert (addition.tokenizers, addition.own_vae) == (tmp_path / "SDXL", True)
    assert addition.base.widths == REAL_WIDTHS
    assert "draws with its own VAE" in said[0]
    assert "stillroom models pull parts" in said[0]


@pytest.mark.usefixtures("no_hash")
def test_a_vae_that_may_overflow_makes_way(settings: Settings, tmp_path: Path) -> None:
    file, said, parts = real_size_file(tmp_path), list[str](), settings.models_path / "parts"
    lend(parts)
    addition = examine(file, settings, said)
    assert (addition.tokenizers, addition.own_vae) == (parts, False)
    assert {piece.path.parent for piece in addition.found.parts["vae"].values()} == {parts / "vae"}
    assert addition.found.configs["vae"]["force_upcast"] is False
    assert f"draws with the VAE of {parts / 'vae'}" in said[0]
    shutil.rmtree(parts / "vae")
    assert examine(file, settings, said).base.place != addition.base.place
