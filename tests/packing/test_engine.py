from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosma.packing import Buffer, Forbidden, Gap, PackingStatus, live_peak, minimise, pack, verify
from cosma.packing.buffers import check_buffers
from tests.packing.reference import buffer_sets, fits, tight

AREAS = st.tuples(st.integers(0, 8), st.integers(1, 3), st.sampled_from([None, (0, 2), (2, 5)]))
EXACT = settings(max_examples=120, deadline=None, derandomize=True)


def check(buffers: list[Buffer], capacity: int, alignment: int = 1, forbidden: tuple[Forbidden, ...] = ()) -> None:
    """The engine agrees with brute force; packings verify; conflicts do not fit and lose that by any removal."""
    check_buffers(buffers)
    result = pack(buffers, capacity, alignment=alignment, forbidden=forbidden)
    possible = fits(buffers, capacity, alignment=alignment, forbidden=forbidden)
    assert result.status is (PackingStatus.PACKED if possible else PackingStatus.INFEASIBLE)
    if result.packed:
        assert verify(buffers, result.offsets, capacity, alignment=alignment, forbidden=forbidden) == []
        assert result.height == max(result.offsets[b.id] + b.size for b in buffers)
        assert result.lower_bound <= result.height
        return
    assert result.irreducible
    assert result.lower_bound > 0
    conflict = [b for b in buffers if b.id in result.conflict or b.offset is not None]
    assert not fits(conflict, capacity, alignment=alignment, forbidden=forbidden)
    if len(result.conflict) > 1:
        for name in result.conflict:
            rest = [b for b in conflict if b.id != name]
            assert fits(rest, capacity, alignment=alignment, forbidden=forbidden)


def test_a_fixed_buffer_of_no_bytes_takes_no_part() -> None:
    empty = Buffer("empty", 0, 1, 0, offset=64)
    packed = pack([empty], 8)
    assert (packed.status, packed.height, packed.lower_bound) == (PackingStatus.PACKED, 0, 0)
    lowest = minimise([empty, Buffer("four", 0, 1, 4)])
    assert (lowest.height, lowest.lower_bound, lowest.optimal) == (4, 4, True)


def test_fixed_buffers_are_part_of_why_nothing_fits() -> None:
    found = pack([Buffer("free", 0, 2, 4), Buffer("fixed", 0, 2, 4, offset=2)], 8)
    assert found.status is PackingStatus.INFEASIBLE
    assert found.reason == "1 buffer cannot be placed in 8 bytes beside the fixed ones"


@EXACT
@given(buffers=buffer_sets(most=7, largest=6), slack=st.integers(-1, 1))
def test_plain_buffers(buffers: list[Buffer], slack: int) -> None:
    check(buffers, max(0, tight(buffers, slack)))


@EXACT
@given(buffers=buffer_sets(aligned=True), slack=st.integers(0, 3), alignment=st.sampled_from([1, 2, 3]))
def test_alignments(buffers: list[Buffer], slack: int, alignment: int) -> None:
    check(buffers, tight(buffers, slack), alignment)


@EXACT
@given(buffers=buffer_sets(staircase=True), slack=st.integers(0, 2))
def test_in_place_chains(buffers: list[Buffer], slack: int) -> None:
    check(buffers, tight(buffers, slack))


@EXACT
@given(buffers=buffer_sets(most=5, windows=True), slack=st.integers(0, 2))
def test_windows_anywhere_in_the_buffer(buffers: list[Buffer], slack: int) -> None:
    check(buffers, tight(buffers, slack))


@EXACT
@given(
    buffers=buffer_sets(most=6, aligned=True, staircase=True, fixed=True),
    slack=st.integers(0, 3),
    areas=st.lists(AREAS, max_size=2),
)
def test_fixed_addresses_and_forbidden_ranges(
    buffers: list[Buffer], slack: int, areas: list[tuple[int, int, tuple[int, int] | None]]
) -> None:
    forbidden = tuple(
        Forbidden(low, low + size, *(steps or (None, None))) for low, size, steps in areas
    )
    result = pack(buffers, tight(buffers, slack), forbidden=forbidden)
    if result.engine == "bound" and len(result.conflict) < 3:
        assert not fits(buffers, tight(buffers, slack), forbidden=forbidden)
    else:
        check(buffers, tight(buffers, slack), forbidden=forbidden)


def test_the_reason_names_the_step_and_the_bytes() -> None:
    result = pack([Buffer("a", 0, 2, 5), Buffer("b", 1, 3, 4), Buffer("c", 1, 2, 1)], 8)
    assert result.status is PackingStatus.INFEASIBLE
    assert result.conflict == ("a", "b")
    assert result.reason == "at step 1 the buffers alive need 10 bytes of 8"
    assert result.lower_bound == 10


def test_a_proof_needs_more_than_the_fullest_step() -> None:
    # No step needs more than 12 bytes, but the middle third is walled off while the long ones live.
    buffers = [Buffer("long", 0, 4, 5), Buffer("p", 0, 1, 4), Buffer("q", 3, 4, 4)]
    wall = (Forbidden(4, 8, 1, 3),)
    assert pack(buffers, 12, forbidden=wall).status is PackingStatus.INFEASIBLE
    assert pack(buffers, 13, forbidden=wall).packed


def test_hints_are_kept_when_they_can_be() -> None:
    buffers = [Buffer("a", 0, 4, 4, hint=8), Buffer("b", 0, 4, 4, hint=0), Buffer("c", 0, 2, 2)]
    assert pack(buffers, 12).offsets == {"a": 8, "b": 0, "c": 4}
    clash = [replace(buffers[0], hint=2), *buffers[1:]]
    result = pack(clash, 12)
    assert result.packed
    assert verify(clash, result.offsets, 12) == []
    assert pack(buffers, 10).packed


def test_without_work_only_heuristics_answer() -> None:
    buffers = [Buffer("a", 0, 4, 3, offset=2), Buffer("b", 0, 4, 4)]
    assert pack(buffers, 8, work_limit=0).status is PackingStatus.UNKNOWN
    assert pack(buffers, 8, engine="heuristics").offsets == {}
    assert pack(buffers, 8).status is PackingStatus.INFEASIBLE


@pytest.mark.parametrize("engine", ["search", "cp-sat"])
def test_both_exact_engines_answer_alone(engine: str) -> None:
    buffers = [Buffer("a", 0, 4, 3, offset=2), Buffer("b", 0, 4, 4), Buffer("c", 2, 4, 2)]
    assert pack(buffers, 8, engine=engine).status is PackingStatus.INFEASIBLE  # type: ignore[arg-type]
    assert pack(buffers, 9, engine=engine).height == 9  # type: ignore[arg-type]


def test_empty_and_zero_sized() -> None:
    assert pack([], 0).packed
    assert pack([Buffer("z", 0, 3, 0)], 0).offsets == {"z": 0}
    gone = Buffer("gone", 0, 2, 5, gaps=(Gap(0, 2),))
    assert pack([gone, Buffer("a", 0, 2, 5)], 5).packed


@EXACT
@given(buffers=buffer_sets(most=6, aligned=True, staircase=True))
def test_minimise_finds_the_smallest_capacity(buffers: list[Buffer]) -> None:
    steps: list[int] = []
    result = minimise(buffers, progress=lambda better: steps.append(better.height or 0))
    assert result.optimal
    assert steps == sorted(steps, reverse=True)
    assert verify(buffers, result.offsets, result.height or 0) == []
    assert result.height == 0 or not fits(buffers, (result.height or 0) - 1)


def test_minimise_reports_clashing_fixed_buffers() -> None:
    result = minimise([Buffer("a", 0, 2, 4, offset=0), Buffer("b", 1, 3, 4, offset=2)])
    assert result.status is PackingStatus.INFEASIBLE
    assert result.conflict == ("a", "b")


@EXACT
@given(buffers=buffer_sets(most=8, aligned=True))
def test_the_same_call_gives_the_same_addresses(buffers: list[Buffer]) -> None:
    capacity = live_peak(buffers) + 1
    assert pack(buffers, capacity, seed=3) == pack(buffers, capacity, seed=3)
