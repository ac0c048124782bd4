"""Why one file of an upload was not taken, or what is odd about it: a code and a sentence."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Flaw:
    code: str
    detail: str


class Refused(Exception):
    """This file is not taken; the others of its upload are not concerned."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.flaw = Flaw(code, detail)
