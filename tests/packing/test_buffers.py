from __future__ import annotations

from dataclasses import replace

import pytest

from cosma.errors import InputError
from cosma.packing import Buffer, Forbidden, Gap, live_peak, pack, parts_of
from cosma.packing.buffers import Part, check_buffers


def test_parts_of_a_buffer_with_gaps() -> None:
    buffer = Buffer("a", 2, 10, 8, gaps=(Gap(6, 7), Gap(3, 5, (0, 3)), Gap(9, 10, (4, 4))))
    assert parts_of(buffer) == [Part(2, 3, 0, 8), Part(3, 5, 0, 3), Part(5, 6, 0, 8), Part(7, 9, 0, 8)]
    assert parts_of(Buffer("empty", 0, 4, 0)) == []


def test_live_peak_counts_what_is_really_occupied() -> None:
    assert live_peak([Buffer("a", 0, 4, 5), Buffer("b", 4, 6, 7)]) == 7
    assert live_peak([Buffer("a", 0, 4, 5, gaps=(Gap(2, 4, (0, 1)),)), Buffer("b", 2, 6, 7)]) == 8
    assert live_peak([]) == 0


GOOD = Buffer("a", 0, 4, 8, alignment=2, offset=2, hint=4, gaps=(Gap(1, 2),))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lower": 4}, r"'a': lifetime \[4, 4\) ends before it starts"),
        ({"size": -1}, "size -1 is negative"),
        ({"alignment": 0}, "alignment 0 is not a positive"),
        ({"offset": 3}, "fixed offset 3 is negative or no multiple of its alignment 2"),
        ({"offset": -2}, "fixed offset -2"),
        ({"hint": -1}, "hint -1 is negative"),
        ({"gaps": (Gap(1, 1),)}, r"gap \[1, 1\) is empty"),
        ({"gaps": (Gap(1, 3), Gap(2, 4))}, r"gap \[2, 4\) is empty, overlaps"),
        ({"gaps": (Gap(3, 5),)}, "lies outside the lifetime"),
        ({"gaps": (Gap(1, 2, (0, 9)),)}, "window 0:9 .* not within the buffer's 8 bytes"),
        ({"gaps": (Gap(1, 2, (3, 2)),)}, "window 3:2"),
    ],
)
def test_meaningless_buffers_are_refused(change: dict[str, object], message: str) -> None:
    check_buffers([GOOD])
    with pytest.raises(InputError, match=message):
        check_buffers([replace(GOOD, **change)])  # type: ignore[arg-type]


def test_meaningless_sets_and_arguments_are_refused() -> None:
    with pytest.raises(InputError, match="'a': two buffers have this id"):
        pack([GOOD, GOOD], 100)
    for area in (Forbidden(3, 3), Forbidden(-1, 2), Forbidden(0, 1, 3, 3), Forbidden(0, 1, 3, None)):
        with pytest.raises(InputError, match="forbidden range"):
            pack([GOOD], 100, forbidden=[area])
    with pytest.raises(InputError, match="capacity: -1 is negative"):
        pack([], -1)
    with pytest.raises(InputError, match="alignment 0"):
        pack([], 1, alignment=0)
    with pytest.raises(InputError, match="engine 'magic' is unknown"):
        pack([], 1, engine="magic")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cannot take these buffers: buffer 'w'"):
        pack([Buffer("w", 0, 2, 4, gaps=(Gap(0, 1, (2, 4)),))], 9, engine="search")
