"""A Dockerfile as its instructions, in order."""

import json
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    name: str
    text: str

    def words(self) -> list[str]:
        """Of the exec form. ValueError where it is a line for a shell."""
        told: list[str] = json.loads(self.text[self.text.index("[") :])
        return told


class Dockerfile:
    def __init__(self, path: Path) -> None:
        text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE)
        lines = text.replace("\\\n", " ").splitlines()
        pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
        self.instructions = [Instruction(name, " ".join(text.split())) for name, text in pairs]

    def all(self, name: str) -> list[Instruction]:
        return [each for each in self.instructions if each.name == name]

    def last(self, name: str) -> Instruction:
        return self.all(name)[-1]

    def environment(self) -> dict[str, str]:
        pairs = [word for each in self.all("ENV") for word in each.text.split()]
        return dict(pair.split("=", 1) for pair in pairs)
