"""Verbs that change and delete."""

from pathlib import Path

from tests.api.cli.conftest import Run, last_id
from tests.support import loras


def test_a_picture_gets_a_caption_and_is_taken_out(on_server: Run, pictures: Path) -> None:
    dataset = on_server("dataset", "create", "robot", str(pictures))[1].strip()
    image = last_id(
        next(row for row in on_server("dataset", "show", dataset)[1].splitlines() if "img_" in row)
    )
    code, _, err = on_server("dataset", "caption", dataset, image, "a blue robot")
    assert (code, err) == (0, "robot-5.png has the caption 'a blue robot'.\n")
    assert "a blue robot" in on_server("dataset", "show", dataset)[1]
    code, _, err = on_server("dataset", "caption", dataset, image)
    assert (code, err) == (0, "robot-5.png has no caption.\n")
    assert on_server("dataset", "drop", dataset, image) == (0, "", f"{image} is gone.\n")
    assert image not in on_server("dataset", "show", dataset)[1]


def test_a_dataset_and_a_job_are_deleted(on_server: Run, pictures: Path) -> None:
    dataset = on_server("dataset", "create", "robot", str(pictures))[1].strip()
    job = on_server(
        "fine-tune", "--base", "nano-ssd-1b", "--dataset", dataset, "--instance-prompt", "sks"
    )[1].strip()
    for verb, name in (("dataset", dataset), ("jobs", job)):
        code, _, err = on_server(verb, "delete", name)
        assert (code, job in err, err.count("\n")) == (1, True, 1)
    on_server("cancel", job)
    for verb, name in (("dataset", dataset), ("jobs", job)):
        assert on_server(verb, "delete", name) == (0, "", f"{name} is gone.\n")
        assert on_server(verb, "show", name)[0] == 1


def test_an_artifact_is_listed_renamed_expires_and_is_deleted(
    on_server: Run, tmp_path: Path
) -> None:
    file = tmp_path / "dog.safetensors"
    file.write_bytes(loras.file_of(loras.spelt(loras.kohya, loras.unet_pairs(rank=3), 1)))
    lora = on_server("upload", str(file))[1].strip()
    assert on_server("artifacts", "rename", lora, "cat") == (0, "", f"{lora} is cat.\n")
    code, _, err = on_server("artifacts", "expire", lora, "--days", "2")
    assert (code, err.startswith(f"{lora} expires at 20")) == (0, True)
    listed = on_server("artifacts", "list", "--kind", "lora")[1].splitlines()
    (row,) = [row.split("\t") for row in listed if row.startswith(lora)]
    assert (row[1:3], row[4], row[5][:2]) == (["lora", "cat"], "", "20")
    code, _, err = on_server("artifacts", "expire", lora)
    assert (code, err) == (0, f"{lora} does not expire.\n")
    assert on_server("artifacts", "delete", lora) == (0, "", f"{lora} is gone.\n")
    assert lora not in on_server("artifacts", "list")[1]
