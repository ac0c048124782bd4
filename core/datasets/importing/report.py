"""What an import tells: what there is now, and what was left out."""

from dataclasses import dataclass, field

from core.datasets.importing.layouts import Name
from core.datasets.service import Kind
from core.pictures.refusal import Flaw

SHOWN = 10
"""Files told of by a sentence, of each code."""


@dataclass
class LeftOut:
    """All files of one code. ``first`` are sentences about some of them."""

    code: str
    files: int = 0
    first: list[str] = field(default_factory=list)


@dataclass
class Tally:
    """Counted as it goes."""

    left_out: dict[str, LeftOut] = field(default_factory=dict)

    def leave_out(self, flaw: Flaw) -> None:
        of_code = self.left_out.setdefault(flaw.code, LeftOut(flaw.code))
        of_code.files += 1
        if len(of_code.first) < SHOWN:
            of_code.first.append(flaw.detail)

    def leave_out_many(self, all_of_code: LeftOut) -> None:
        self.left_out[all_of_code.code] = all_of_code

    @property
    def files(self) -> int:
        return sum(each.files for each in self.left_out.values())


@dataclass(frozen=True)
class Report:
    """``decoded``: whether pixels were looked at, not headers alone."""

    dataset: str
    name: str
    kind: Kind
    layout: Name
    images: int
    bytes: int
    sha256: str
    decoded: bool
    left_out: list[LeftOut]
