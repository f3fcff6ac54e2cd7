"""The complete search against CP-SAT and against itself, on problems too large for brute force."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from cosma.packing import Buffer, Forbidden, Gap, live_peak, verify
from cosma.packing.bounds import quick_conflict
from cosma.packing.conflict import shrink
from cosma.packing.cpsat import solve_cpsat
from cosma.packing.exact import decide
from cosma.packing.sections import layout, supports


def random_problem(seed: int, kind: str) -> tuple[list[Buffer], int, int, tuple[Forbidden, ...]]:
    """A crowded problem of up to 14 buffers at or just above the bytes alive."""
    pick = random.Random(f"{kind} {seed}")
    steps = pick.randint(4, 9)
    buffers: list[Buffer] = []
    for k in range(pick.randint(6, 14)):
        lower = pick.randint(0, steps - 1)
        upper = pick.randint(lower + 1, min(steps, lower + pick.choice([2, 3, 9])))
        buffer = Buffer(str(k), lower, upper, pick.randint(1, pick.choice([4, 12])))
        if kind == "aligned":
            buffer = replace(buffer, alignment=pick.choice([1, 2, 4]))
        if kind == "staircase" and upper - lower > 1 and pick.random() < 0.4:
            begin = pick.randint(lower, upper - 1)
            gaps = [Gap(begin, upper, (0, pick.randint(0, buffer.size)))]
            if begin > lower and pick.random() < 0.4:
                gaps.append(Gap(lower, begin, (0, pick.randint(0, buffer.size))))
            buffer = replace(buffer, gaps=tuple(gaps))
        if kind == "walls" and pick.random() < 0.15:
            buffer = replace(buffer, offset=pick.randint(0, 8))
        buffers.append(buffer)
    least = max(live_peak(buffers), *(b.size + (b.offset or 0) for b in buffers))
    capacity = least + pick.choice([0, 0, 0, 1, 2])
    forbidden: tuple[Forbidden, ...] = ()
    if kind == "walls" and pick.random() < 0.6:
        low = pick.randint(0, capacity - 1)
        window = (0, pick.randint(1, steps)) if pick.random() < 0.5 else (None, None)
        forbidden = (Forbidden(low, low + pick.randint(1, 2), *window),)
    return buffers, capacity, pick.choice([1, 1, 3]) if kind == "aligned" else 1, forbidden


@pytest.mark.parametrize("kind", ["plain", "aligned", "staircase", "walls"])
def test_search_and_cpsat_agree(kind: str) -> None:
    answers = {True: 0, False: 0}
    for seed in range(110):
        buffers, capacity, alignment, forbidden = random_problem(seed, kind)
        if quick_conflict(buffers, capacity, forbidden) is not None:
            continue
        mine = decide(buffers, capacity, alignment=alignment, forbidden=forbidden, work_limit=20_000)
        theirs = solve_cpsat(buffers, capacity, alignment=alignment, forbidden=forbidden)
        if mine.offsets is None and not mine.infeasible:
            continue
        assert mine.infeasible == theirs.infeasible, (kind, seed)
        answers[mine.infeasible] += 1
        for offsets in (mine.offsets, theirs.offsets):
            if offsets is not None:
                named = {b.id: b.offset if b.offset is not None else offsets[k] for k, b in enumerate(buffers)}
                assert verify(buffers, named, capacity, alignment=alignment, forbidden=forbidden) == []
    assert answers[False] > 30
    assert kind in ("plain", "staircase") or answers[True] > 15


def cut_rectangles(seed: int, count: int, steps: int, capacity: int) -> list[Buffer]:
    """Cut a full rectangle of time and address into pieces: a problem without one free byte."""
    pick = random.Random(seed)
    pieces = [(0, steps, capacity)]
    while len(pieces) < count:
        k = max(range(len(pieces)), key=lambda k: (pieces[k][1] - pieces[k][0]) * pieces[k][2] * pick.random())
        lower, upper, size = pieces.pop(k)
        if (pick.random() < 0.5 and upper - lower > 1) or size == 1:
            if upper - lower == 1:
                pieces.append((lower, upper, size))
                continue
            at = pick.randint(lower + 1, upper - 1)
            pieces += [(lower, at, size), (at, upper, size)]
        else:
            at = pick.randint(1, size - 1)
            pieces += [(lower, upper, at), (lower, upper, size - at)]
    pick.shuffle(pieces)
    return [Buffer(str(k), lower, upper, size) for k, (lower, upper, size) in enumerate(pieces)]


@pytest.mark.parametrize("seed", range(12))
def test_a_rectangle_cut_to_pieces_is_put_together_again(seed: int) -> None:
    buffers = cut_rectangles(seed, 30 + 5 * seed, 40, 1000)
    decision = decide(buffers, 1000, work_limit=200_000)
    assert decision.offsets is not None
    assert verify(buffers, {b.id: decision.offsets[k] for k, b in enumerate(buffers)}, 1000) == []
    assert decide(buffers, 1000, work_limit=200_000) == decision


def test_the_unit_is_exact_for_odd_sizes_under_alignment() -> None:
    # 100 bytes at alignment 64: 64 + 36 fits only with the 36 on top.
    buffers = [Buffer("a", 0, 2, 36), Buffer("b", 0, 2, 64)]
    decision = decide(buffers, 100, alignment=64, work_limit=1000)
    assert decision.offsets == {0: 64, 1: 0}
    assert decide(buffers, 99, alignment=64, work_limit=1000).infeasible
    assert layout(buffers, 100, alignment=64).unit == 64
    mixed = [replace(buffers[0], alignment=4), replace(buffers[1], alignment=6)]
    assert layout(mixed, 100).unit == 2


def test_independent_parts_are_cut_apart() -> None:
    left = [Buffer(f"l{k}", 0, 3 + k % 2, 10) for k in range(4)]
    right = [Buffer(f"r{k}", 4, 7 + k % 2, 10) for k in range(4)]
    whole = Buffer("through", 0, 9, 5)
    problem = layout([*left, *right, whole], 45)
    assert [len(part.members) for part in problem.components] == [0, 0]
    assert sum(len(part.bottom) for part in problem.components) == 9


def test_windows_above_the_address_are_left_to_cpsat() -> None:
    assert supports([Buffer("a", 0, 2, 4, gaps=(Gap(0, 1, (0, 2)),))]) is None
    assert "'a'" in (supports([Buffer("a", 0, 2, 4, gaps=(Gap(0, 1, (2, 4)),))]) or "")


def test_shrinking_drops_all_that_is_not_needed() -> None:
    needed = {3, 17, 40}
    asked: list[int] = []

    def infeasible(members: list[int]) -> bool:
        asked.append(len(members))
        return needed <= set(members)

    assert set(shrink(range(60), infeasible).members) == needed
    assert len(asked) < 60
    unsure = shrink(range(6), lambda members: None)
    assert unsure.members == tuple(range(6))
    assert not unsure.irreducible
    assert not shrink(range(60), infeasible, test_limit=2).irreducible
    assert shrink(range(60), infeasible, exhausted=lambda: True).members == tuple(range(60))
