"""Stretches of a packing packed again."""

from __future__ import annotations

from dataclasses import replace

from cosma.packing import Buffer, pack, verify
from cosma.packing.improve import improve
from tests.packing.test_search import cut_rectangles


def long_problem(copies: int) -> tuple[list[Buffer], list[int]]:
    """Rectangles cut to pieces, one after the other, and their packing with three buffers lifted out of it."""
    buffers: list[Buffer] = []
    offsets: list[int] = []
    for n in range(copies):
        piece = [
            replace(buffer, id=f"{n}.{buffer.id}", lower=buffer.lower + 40 * n, upper=buffer.upper + 40 * n)
            for buffer in cut_rectangles(n, 12, 40, 1000)
        ]
        packed = pack(piece, 1000)
        buffers += piece
        offsets += [packed.offsets[buffer.id] for buffer in piece]
    return buffers, offsets


def test_buffers_that_stick_out_are_brought_back() -> None:
    buffers, offsets = long_problem(5)
    for k in (3, 20, 41):
        offsets[k] = 1000
    found = improve(buffers, offsets, 1000, work_limit=100_000)
    assert found.stuck == ()
    assert verify(buffers, {b.id: found.offsets[k] for k, b in enumerate(buffers)}, 1000) == []
    assert 0 < found.units < 100_000
    assert improve(buffers, offsets, 1000, work_limit=100_000) == found


def test_what_finds_no_place_is_named_and_the_rest_stays_a_packing() -> None:
    buffers, offsets = long_problem(3)
    buffers.append(Buffer("more", 45, 50, 10))
    offsets.append(1000)
    found = improve(buffers, offsets, 1000, work_limit=100_000)
    assert [buffers[k].id for k in found.stuck] == ["more"]
    placed = [b for k, b in enumerate(buffers) if k in found.offsets]
    assert len(placed) == len(buffers) - 1
    named = {b.id: found.offsets[k] for k, b in enumerate(buffers) if k in found.offsets}
    assert verify(placed, named, 1000) == []


def test_fixed_buffers_stay() -> None:
    buffers = [Buffer("a", 0, 4, 3, offset=2), Buffer("b", 0, 2, 2), Buffer("c", 1, 4, 3)]
    found = improve(buffers, [2, 8, 5], 8, work_limit=1000)
    assert found.stuck == ()
    assert found.offsets[0] == 2
    assert verify(buffers, {b.id: found.offsets[k] for k, b in enumerate(buffers)}, 8) == []
    assert found.offsets[1] == 0
    assert improve(buffers, [2, 8, 5], 8, work_limit=0).stuck == (1,)
