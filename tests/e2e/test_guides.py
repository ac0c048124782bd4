"""What the guides tell a reader to type works as it stands, on the nano pair and in two steps."""

import re
import shlex
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from core import bases
from core.layouts import SSD_1B
from tests.support import loras, pictures
from tests.support.command_line import understand
from tests.support.reader import ROOT, blocks, run, shell_for
from tests.support.server import Server

GUIDES = (
    "bring-a-lora-or-base",
    "distil",
    "fine-tune-your-dog",
    "from-diffengine",
    "from-replicate-or-astria",
    "generate",
)


class Reader:
    """Reads one guide and does as it says, with our server for theirs."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.environment = shell_for(server, folder)

    def types(self, guide: str) -> None:
        """The commands, in one shell: each finds the ids that those before it were told."""
        script = "\n".join(blocks(f"docs/{guide}.md", "sh"))
        run(["bash", "-euo", "pipefail", "-c", self.at_toy_size(script)], *self.where)

    def programs(self, guide: str) -> str:
        """The Python, as one program; what it prints."""
        script = "\n".join(blocks(f"docs/{guide}.md", "python"))
        return run([sys.executable, "-c", self.at_toy_size(script)], *self.where)

    @property
    def where(self) -> tuple[Path, dict[str, str]]:
        return self.folder, self.environment

    def at_toy_size(self, script: str) -> str:
        script = script.replace("segmind/SSD-1B", str(bases.NANO_SSD_1B))
        script = script.replace("http://127.0.0.1:8400", self.server.url)
        script = script.replace("~/.local/share/stillroom", str(self.server.settings.root))
        script = re.sub(r"(?<![\w/-])(ssd-1b|sdxl)(?![\w-])", r"nano-\1", script)
        return re.sub(r"((?<!inference_)steps(?:\"?:| |=)\s?)\d+", r"\g<1>2", script)

    def made(self, pattern: str) -> int:
        return len(list(self.folder.glob(pattern)))


@pytest.fixture
def reader(server: Server, tmp_path: Path) -> Reader:
    return Reader(server, tmp_path)


def test_a_dog(reader: Reader) -> None:
    reader.types("fine-tune-your-dog")
    named = set(
        re.findall(r"`(\w+\.safetensors)`", (ROOT / "docs/fine-tune-your-dog.md").read_text())
    )
    assert named == {path.name for path in (reader.folder / "dog").glob("*.safetensors")}
    assert reader.made("dog/step-000002-0.png") == 1
    assert reader.made("drawn/*.png") == 2


@pytest.mark.skipif(shutil.which("curl") is None, reason="the guide speaks HTTP by curl")
def test_pictures(reader: Reader) -> None:
    pictures.draw(1).save(reader.folder / "photo.png")
    reader.types("generate")
    assert reader.made("foxes/*.png") == 4
    assert reader.made("painted/*.webp") == 1
    printed = reader.programs("generate")
    assert printed.startswith(f"{reader.server.url}/")
    assert reader.made("fox.png") == 1


def test_a_lora_and_a_base_of_ones_own(reader: Reader) -> None:
    tensors = loras.spelt(loras.kohya_sgm, loras.unet_pairs(SSD_1B), 2)
    (reader.folder / "robot.safetensors").write_bytes(loras.file_of(tensors))
    (reader.folder / "pony.safetensors").symlink_to(bases.NANO_SSD_1B)  # a folder is taken, too
    reader.types("bring-a-lora-or-base")
    assert reader.made("drawn/*.png") == 1


def test_from_a_hosted_service(reader: Reader) -> None:
    with zipfile.ZipFile(reader.folder / "pictures.zip", "w") as archive:
        for path in (reader.folder / "pictures").iterdir():
            archive.write(path, path.name)
    printed = reader.programs("from-replicate-or-astria")
    assert float(printed.splitlines()[-1]) > 0
    assert reader.made("?.png") == 2
    with reader.server.client() as client:
        assert not any(job["labels"].get("order") == "4711" for job in client.list_jobs())


@pytest.mark.faults
def test_from_diffengine(reader: Reader) -> None:
    reader.types("from-diffengine")
    reader.programs("from-diffengine")
    assert reader.made("dog.png") == 1


@pytest.mark.faults
def test_a_student(reader: Reader) -> None:
    reader.types("distil")
    assert reader.made("drawn/*.png") == 1
    reader.programs("distil")
    assert reader.made("panda.png") == 1


def test_every_guide_has_a_test_and_a_place_in_the_index() -> None:
    told = Path(__file__).read_text()
    index = (ROOT / "docs/README.md").read_text()
    for guide in GUIDES:
        assert f'("{guide}")' in told
        assert f"({guide}.md)" in index


@pytest.mark.parametrize("guide", GUIDES)
def test_only_what_is_run_stands_between_fences(guide: str) -> None:
    text = (ROOT / f"docs/{guide}.md").read_text()
    assert set(re.findall(r"^```(\w*)", text, re.MULTILINE)) <= {"sh", "python", ""}
    assert text.count("```") == 2 * sum(
        len(blocks(f"docs/{guide}.md", x)) for x in ("sh", "python")
    )


@pytest.mark.parametrize("guide", GUIDES)
def test_the_command_line_understands_every_command(guide: str) -> None:
    """Those within a sentence too, and those that only `make faults` runs."""
    text = (ROOT / f"docs/{guide}.md").read_text()
    typed = "".join(blocks(f"docs/{guide}.md", "sh")).replace("\\\n", "")
    commands = re.findall(r"stillroom ((?:\"[^\"]*\"|[^)\n\"])+)", typed)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    commands += re.findall(r"`(?:\S+=\S+ )?stillroom ([^`…]+)`", prose)
    assert commands
    for command in commands:
        understand(shlex.split(command))
