from __future__ import annotations

import pytest

from cosma.packing import Buffer, Forbidden, Gap, verify

BUFFERS = [
    Buffer("a", 0, 3, 4),
    Buffer("b", 3, 9, 4, alignment=4),
    Buffer("c", 0, 9, 4, offset=4),
    Buffer("d", 1, 2, 8, gaps=(Gap(1, 2, (6, 8)),)),
]
GOOD = {"a": 0, "b": 0, "c": 4, "d": 4}
FORBIDDEN = [Forbidden(12, 16), Forbidden(0, 4, 9, 12)]


def verdicts(offsets: dict[str, int], capacity: int = 12, alignment: int = 1) -> list[tuple[str, tuple[str, ...]]]:
    found = verify(BUFFERS, offsets, capacity, alignment=alignment, forbidden=FORBIDDEN)
    return [(violation.verdict, violation.ids) for violation in found]


def test_a_valid_packing_has_no_violations() -> None:
    assert verdicts(GOOD) == []


@pytest.mark.parametrize(
    ("change", "capacity", "expected"),
    [
        ({"a": 1}, 12, [("overlap", ("a", "c"))]),
        ({"b": 2}, 12, [("alignment", ("b",)), ("overlap", ("c", "b"))]),
        ({"c": 8}, 12, [("fixed", ("c",)), ("overlap", ("c", "d"))]),
        ({"a": -4}, 12, [("negative", ("a",))]),
        ({}, 11, [("capacity", ("d",))]),
        ({"d": 6}, 16, [("forbidden", ("d",))]),
        ({"d": 0}, 12, [("overlap", ("c", "d"))]),
    ],
)
def test_each_broken_rule_has_its_verdict(
    change: dict[str, int], capacity: int, expected: list[tuple[str, tuple[str, ...]]]
) -> None:
    assert verdicts(GOOD | change, capacity) == expected


def test_missing_and_misaligned_addresses() -> None:
    assert verdicts({"a": 0, "b": 0, "c": 4}) == [("missing", ("d",))]
    assert verdicts(GOOD, alignment=8) == [("alignment", ("d",))]


def test_buffers_that_meet_in_time_may_share_addresses() -> None:
    pair = [Buffer("x", 0, 2, 4), Buffer("y", 2, 4, 4)]
    assert verify(pair, {"x": 0, "y": 0}, 4) == []
    assert verify(pair[:1], {"x": 0}, 4, forbidden=[Forbidden(0, 4, 2, 4)]) == []
