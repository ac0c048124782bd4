"""Ids sort by the time they were made."""

from core.ids import new_id


def test_ids_ascend_within_a_process() -> None:
    ids = [new_id("job") for _ in range(10_000)]
    assert ids == sorted(set(ids))


def test_an_id_is_its_prefix_and_26_characters() -> None:
    prefix, rest = new_id("dst").split("_")
    assert (prefix, len(rest)) == ("dst", 26)
    assert rest.isalnum()
