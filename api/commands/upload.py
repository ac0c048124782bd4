"""`stillroom upload`: a LoRA that was made elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

from api.client import Client
from api.commands.terminal import bytes_text, line, say
from api.commands.verb import Told, verb


@verb
def upload(
    client: Client,
    file: Annotated[Path, typer.Argument(help="A LoRA as .safetensors.", show_default=False)],
    name: Annotated[
        str | None, typer.Option(help="What to call it [default: as the file].")
    ] = None,
) -> Told:
    """Bring a LoRA, in peft's, diffusers' or kohya's form; its id is printed, for `--lora`."""
    artifact = client.upload_lora(file, name)

    def show() -> None:
        for warning in artifact["warnings"]:
            say(warning["detail"])
        layouts = " or ".join(artifact["metadata"]["layouts"])
        say(f"{artifact['format']}, layout {layouts}, {bytes_text(artifact['bytes'])}")
        line(artifact["id"])

    return Told(artifact, show)
