"""The ``Prefer`` header: what can be read counts, the rest is passed over."""

import pytest

from api.preferences import wait_seconds


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        (["wait=5"], 5),
        (["respond-async, wait=5"], 5),
        (["return=minimal", "Wait = 7"], 7),
        (['wait="5"'], 5),
        (["wait=5; really"], 5),
        (["wait=5, wait=6"], 5),
        (["wait=30"], 30),
        (["wait=31"], 30),
        (["wait=999999999999"], 30),
        (["wait=0"], 0),
        ([], None),
        ([""], None),
        (["wait"], None),
        (["wait="], None),
        (["wait=-1"], None),
        (["wait=1.5"], None),
        (["wait=soon"], None),
        (["wait=٣"], None),
        (["wait=soon, wait=5"], None),
        (["await=5"], None),
        (["waiting=5"], None),
        ([f"wait={'9' * 5000}"], None),
    ],
)
def test_what_is_waited_for(prefer: list[str], seconds: int | None) -> None:
    assert wait_seconds(prefer) == seconds
