"""Whose turn it is: the heads of the lanes, in the order in which they are served.

1. Priority. A lane gains a point for each hour that it was not served, so nothing waits for ever.
2. Pictures before trainings: somebody waits for them.
3. The owner who was served least recently.
4. Of one owner the lane that waited longest.

Where a base has to be loaded first, that costs tens of seconds: one that is resident counts as if
it had waited ``RESIDENT_SECONDS`` longer, for its owner and among the owner's lanes. Whoever waits
longer than that goes first all the same.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

AGEING_SECONDS = 3600.0
RESIDENT_SECONDS = 30.0


@dataclass(frozen=True)
class Head:
    """The oldest job of a lane.

    ``base`` is what a worker's disk must hold, ``loads`` what its memory: the same, or the artifact
    whose UNet stands in for the base's own. ``lane_served_at`` and ``owner_served_at`` say when a
    job of this lane, or of any lane of its owner, was last begun; None: never.
    """

    lane: str
    job_id: str
    owner: str
    kind: str
    base: str
    loads: str
    priority: int
    queued_at: datetime
    lane_served_at: datetime | None
    owner_served_at: datetime | None

    @property
    def waits_since(self) -> datetime:
        return max(self.queued_at, self.lane_served_at or self.queued_at)

    def rank(self, at: datetime) -> tuple[int, bool]:
        """Priority with age, and kind: what goes before any fairness."""
        hours = (at - self.waits_since) // timedelta(seconds=AGEING_SECONDS)
        return -(self.priority + max(0, hours)), self.kind != "generate"


def in_order(heads: Sequence[Head], resident: Collection[str], at: datetime) -> list[Head]:
    """Who is served first comes first. ``resident`` is what the device's memory holds, by id."""
    warm = timedelta(seconds=RESIDENT_SECONDS)
    favoured = {(head.owner, head.rank(at)) for head in heads if head.loads in resident}

    def turn(head: Head) -> tuple[tuple[int, bool], bool, datetime, datetime, str]:
        rank = head.rank(at)
        owner_since = head.owner_served_at or at
        if (head.owner, rank) in favoured:
            owner_since -= warm
        lane_since = head.waits_since - (warm if head.loads in resident else timedelta())
        return rank, head.owner_served_at is not None, owner_since, lane_since, head.job_id

    return sorted(heads, key=turn)
