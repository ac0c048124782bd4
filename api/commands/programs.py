"""Programs that draw with what jobs here made: where they look for files, and what to do there."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from api.answers import Artifact, Job
from api.client import ClientError

ProgramName = Literal["comfyui", "a1111", "forge"]
PROGRAMS: tuple[ProgramName, ...] = get_args(ProgramName)

_CHECKPOINTS = {
    "ssd-1b": "SSD-1B-A1111.safetensors",
    "sdxl": "sd_xl_base_1.0.safetensors",
    "vega": "segmind-vega.safetensors",
}
"""What others call the bases of the catalogue."""
_UNFIT = re.compile(r"[^\w.-]+")


@dataclass(frozen=True)
class Program:
    """``loras`` and ``checkpoints``: folders below its own."""

    title: str
    loras: str
    checkpoints: str
    use_lora: str
    """How; ``{file}`` is its name without the ending."""


_A1111 = "write `<lora:{file}:1>` in the prompt"
_KNOWN: dict[ProgramName, Program] = {
    "comfyui": Program("ComfyUI", "models/loras", "models/checkpoints", "load it with Load LoRA"),
    "a1111": Program("A1111", "models/Lora", "models/Stable-diffusion", _A1111),
    "forge": Program("Forge", "models/Lora", "models/Stable-diffusion", _A1111),
}


def known(name: ProgramName) -> Program:
    return _KNOWN[name]


def place(program: Program, artifact: Artifact, root: Path) -> Path:
    """The folder that such a file belongs into.

    Raises:
        ClientError: the program reads no such file, or is not at ``root``.
    """
    folders = {("lora", "kohya"): program.loras, ("unet", "original"): program.checkpoints}
    folder = folders.get((artifact["kind"], artifact["format"]))
    if folder is None:
        raise ClientError(
            f"{program.title} does not read '{artifact['id']}': it is a {artifact['kind']} in "
            f"{artifact['format']} form. Give the id of the job that made it."
        )
    if not (root / folder).is_dir():
        raise ClientError(
            f"{root} is not {program.title}'s folder: there is no {folder} in it. Give its folder "
            "with --to."
        )
    return root / folder


def file_name(artifact: Artifact, job: Job | None) -> str:
    """What the person will look for: the job's name, else its trigger, else its id."""
    called = (job and job["name"]) or artifact["metadata"].get("trigger")
    stem = _UNFIT.sub("-", called or "").strip("-.") or (artifact["job"] or artifact["id"])
    return f"{stem}.safetensors"


def advice(program: Program, artifact: Artifact, path: Path) -> str:
    """What to do there, in sentences."""
    if artifact["kind"] == "unet":
        return f"In {program.title} choose the checkpoint {path.name}: it is whole."
    prompt = artifact["metadata"].get("instance_prompt") or artifact["metadata"].get("trigger")
    base = artifact["base"] or artifact["layout"] or "sdxl"
    file = _CHECKPOINTS.get(base)
    checkpoint = f"the checkpoint of {base}" + (f" ({file})" if file else "")
    use = program.use_lora.format(file=path.stem)
    words = f' Its words: "{prompt}".' if prompt else ""
    return f"In {program.title} take {checkpoint} and {use}.{words}"
