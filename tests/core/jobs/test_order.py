"""Whose turn it is, of heads that nobody stored."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as some

from core.jobs.order import AGEING_SECONDS, RESIDENT_SECONDS, Head, in_order

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SERVICE_SECONDS = 120.0


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def head(lane: str, **fields: Any) -> Head:
    told: dict[str, Any] = {
        "job_id": f"job_{lane}",
        "owner": lane,
        "kind": "generate",
        "base": "nano-sdxl",
        "priority": 0,
        "queued_at": ago(10),
        "lane_served_at": None,
        "owner_served_at": None,
    }
    told |= fields
    return Head(lane=lane, **{"loads": told["base"]} | told)


def served(lane: str, seconds: float, **fields: Any) -> Head:
    """Of a lane, the owner's only one, that had its turn so long ago."""
    return head(lane, lane_served_at=ago(seconds), owner_served_at=ago(seconds), **fields)


def order(*heads: Head, resident: tuple[str, ...] = ()) -> list[str]:
    return [each.lane for each in in_order(heads, resident, NOW)]


def test_priority_goes_before_all_else() -> None:
    urgent = served("urgent", 1, priority=1, kind="fine_tune")
    assert order(head("new"), urgent) == ["urgent", "new"]


def test_pictures_go_before_trainings_of_the_same_priority() -> None:
    training = head("training", kind="fine_tune", queued_at=ago(300))
    distillation = head("distillation", kind="distill", queued_at=ago(200))
    assert order(training, distillation, served("picture", 5))[0] == "picture"


def test_an_hour_of_waiting_is_worth_a_point_of_priority() -> None:
    urgent = head("urgent", priority=1)
    assert order(head("old", queued_at=ago(AGEING_SECONDS - 1)), urgent)[0] == "urgent"
    # two points now, one of them its age: ahead of one point that has not waited
    assert order(head("old", queued_at=ago(2 * AGEING_SECONDS)), urgent)[0] == "old"
    aged = head("old", queued_at=ago(AGEING_SECONDS), kind="fine_tune")
    assert order(aged, head("new"))[0] == "old"


def test_a_lane_that_was_served_begins_to_wait_anew() -> None:
    backlog = served("backlog", 5, queued_at=ago(10 * AGEING_SECONDS))
    assert order(backlog, head("new", priority=1))[0] == "new"


def test_a_job_that_waits_for_the_future_is_as_young_as_can_be() -> None:
    assert head("early", queued_at=ago(-5)).rank(NOW) == (0, False)


def test_an_owner_who_was_never_served_goes_first() -> None:
    heads = served("ann", 3000), served("bob", 10), head("new", queued_at=ago(1))
    assert order(*heads) == ["new", "ann", "bob"]


def test_of_one_owner_the_lane_that_waited_longest_goes_first() -> None:
    ann: dict[str, Any] = {"owner": "ann", "owner_served_at": ago(5)}
    lately = head("lately", **ann, lane_served_at=ago(5), queued_at=ago(900))
    before = head("before", **ann, lane_served_at=ago(60), queued_at=ago(800))
    assert order(lately, before) == ["before", "lately"]


def test_the_oldest_job_decides_where_all_else_is_equal() -> None:
    assert order(head("b"), head("a"), head("c")) == ["a", "b", "c"]


def test_a_resident_base_counts_as_so_many_seconds_and_no_more() -> None:
    cold = served("cold", 100, base="ssd-1b")
    just = served("just", 100 - RESIDENT_SECONDS + 1)
    late = served("late", 100 - RESIDENT_SECONDS - 1)
    assert order(cold, just, resident=("nano-sdxl",)) == ["just", "cold"]
    assert order(cold, late, resident=("nano-sdxl",)) == ["cold", "late"]
    assert order(cold, just) == ["cold", "just"]


def test_a_resident_base_counts_among_an_owners_lanes_too() -> None:
    ann: dict[str, Any] = {"owner": "ann", "owner_served_at": ago(5), "lane_served_at": ago(5)}
    cold = head("cold", **ann | {"lane_served_at": ago(5 + RESIDENT_SECONDS - 1)}, base="ssd-1b")
    assert order(cold, head("warm", **ann), resident=("nano-sdxl",)) == ["warm", "cold"]
    assert order(cold, head("warm", **ann)) == ["cold", "warm"]


def test_of_an_artifact_its_own_unet_must_be_resident() -> None:
    mine = head("mine", loads="art_1", queued_at=ago(9))
    assert order(mine, head("cold", base="ssd-1b"), resident=("nano-sdxl",)) == ["cold", "mine"]
    assert order(mine, head("cold"), resident=("art_1",)) == ["mine", "cold"]


def test_a_resident_base_does_not_outrank() -> None:
    urgent = head("urgent", priority=1, base="ssd-1b")
    assert order(head("warm"), urgent, resident=("nano-sdxl",))[0] == "urgent"


heads = some.builds(
    head,
    lane=some.text("abcdefgh", min_size=1, max_size=3),
    owner=some.sampled_from(["ann", "bob", "eve"]),
    kind=some.sampled_from(["generate", "fine_tune"]),
    base=some.sampled_from(["nano-sdxl", "ssd-1b"]),
    priority=some.integers(-2, 2),
    queued_at=some.integers(0, 20_000).map(ago),
)
backlogs = some.lists(heads, min_size=1, max_size=6, unique_by=lambda each: each.lane)


def served_in_turns(backlog: list[Head], turns: int) -> list[tuple[Head, datetime]]:
    """Who is begun when, on one device that keeps a base, while no lane ever empties."""
    waiting, at = {each.lane: each for each in backlog}, NOW
    begun: list[tuple[Head, datetime]] = []
    resident: tuple[str, ...] = ()
    for _ in range(turns):
        first = in_order(list(waiting.values()), resident, at)[0]
        begun.append((first, at))
        resident = (first.base,)
        waiting[first.lane] = replace(first, lane_served_at=at)
        for each in waiting.values():
            if each.owner == first.owner:
                waiting[each.lane] = replace(waiting[each.lane], owner_served_at=at)
        at += timedelta(seconds=SERVICE_SECONDS)
    return begun


@given(backlogs)
def test_no_head_is_starved(backlog: list[Head]) -> None:
    gap = max(each.priority for each in backlog) - min(each.priority for each in backlog)
    # an hour a point, one more for a training, one for the hour that has begun; then the others
    # that waited as long, each once
    most = timedelta(
        seconds=(gap + 2) * AGEING_SECONDS + (len(backlog) + 1) * SERVICE_SECONDS,
    )
    begun = served_in_turns(backlog, turns=2 * int(most.total_seconds() / SERVICE_SECONDS))
    ended = begun[-1][1]
    for each in backlog:
        turns = [NOW, *(at for first, at in begun if first.lane == each.lane), ended]
        assert max(b - a for a, b in pairwise(turns)) <= most


@given(backlogs)
def test_nobody_is_left_out_or_served_twice(backlog: list[Head]) -> None:
    assert Counter(in_order(backlog, ["ssd-1b"], NOW)) == Counter(backlog)


def test_owners_alternate_however_many_lanes_they_have() -> None:
    many = [head(f"ann{number}", owner="ann") for number in range(5)]
    begun = served_in_turns([*many, head("bob")], turns=20)
    assert [len(list(turns)) for _, turns in groupby(first.owner for first, _ in begun)] == [1] * 20
    lanes = Counter(first.lane for first, _ in begun)
    assert lanes["bob"] == 10
    assert {lanes[each.lane] for each in many} == {2}
