"""What was made is kept by key, the oldest go first."""

import pytest

from core.inference.memo import Memo


def memo(max_bytes: int) -> Memo[str, list[int]]:
    return Memo(max_bytes, lambda value: 10 * len(value))


def test_the_second_use_is_a_look_up() -> None:
    held = memo(100)
    first = held.take("a", lambda: [1, 2])
    assert held.take("a", lambda: [3]) is first
    assert held.held_bytes == 20


def test_those_not_used_for_longest_go_when_there_is_no_room() -> None:
    held = memo(60)
    values = {name: held.take(name, lambda: [1, 2, 3]) for name in "ab"}
    assert held.take("a", list) is values["a"]
    held.take("c", lambda: [1])
    assert held.held_bytes == 40
    assert held.take("a", list) is values["a"]
    assert held.take("b", lambda: [7]) == [7]


def test_the_newest_stays_whatever_its_size() -> None:
    held = memo(5)
    assert held.take("a", lambda: [1, 2]) == [1, 2]
    assert held.take("a", list) == [1, 2]
    held.take("b", lambda: [1])
    assert held.held_bytes == 10


def test_what_could_not_be_made_leaves_nothing() -> None:
    held = memo(5)
    with pytest.raises(ZeroDivisionError):
        held.take("a", lambda: [1 // 0])
    assert held.held_bytes == 0
    assert held.take("a", lambda: [2]) == [2]
