"""Many buffers: first fit over occupied ranges puts each where a scan does, in any shape; limits hold."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cosma.packing import Buffer, Forbidden, live_peak, minimise, pack, verify
from cosma.packing.arrays import flatten, sections_of
from cosma.packing.csvfile import read_buffers
from cosma.packing.exact import LARGEST_COMPONENT, largest_component
from cosma.packing.firstfit import tables
from cosma.packing.large import pack_large
from cosma.packing.occupancy import Occupancy, load_of, sweep_fit
from cosma.packing.sections import layout
from tests.packing.reference import buffer_sets, scan_first_fit

SHARED = Path(__file__).resolve().parents[3] / "shared" / "packing" / "large"
TIMES = st.lists(st.tuples(st.integers(-3, 12), st.integers(1, 6)), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(buffers=buffer_sets(most=12, steps=9, aligned=True, windows=True), data=st.data())
def test_every_buffer_goes_where_a_scan_puts_it(buffers: list[Buffer], data: st.DataObject) -> None:
    buffers = [buffer for buffer in buffers if buffer.size]
    order = data.draw(st.permutations(range(len(buffers))))
    occupancy = Occupancy(flatten(buffers))
    for _ in range(2):
        occupancy.clear()
        height = occupancy.put(np.array(order, np.int64))
        expected = scan_first_fit(buffers, order)
        assert occupancy.offset.tolist() == expected
        assert height == max((k + buffer.size for k, buffer in zip(expected, buffers, strict=True)), default=0)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(buffers=buffer_sets(most=12, steps=9, aligned=True, windows=True, fixed=True), many=st.booleans())
def test_a_sweep_packs_anything(buffers: list[Buffer], many: bool) -> None:
    """Fixed buffers that clash with each other are for `quick_conflict` to refuse."""
    held = [buffer for buffer in buffers if buffer.offset is not None]
    assume(not verify(held, {buffer.id: buffer.offset or 0 for buffer in held}, 1 << 40))
    buffers = [
        replace(b, id=f"{b.id}.{k}", offset=b.offset if k == 0 else None) for k in range(1 + many) for b in buffers
    ]
    forbidden = (Forbidden(3, 7, 2, 5),)
    assume(not verify(held, {buffer.id: buffer.offset or 0 for buffer in held}, 1 << 40, forbidden=forbidden))
    offsets, height = sweep_fit(flatten(buffers, 2, forbidden))
    named = {buffer.id: int(offset) for buffer, offset in zip(buffers, offsets, strict=False)}
    assert verify(buffers, named, height, alignment=2, forbidden=forbidden) == []


@settings(max_examples=100, deadline=None, derandomize=True)
@given(lives=TIMES)
def test_lives_overlap_where_their_sections_do(lives: list[tuple[int, int]]) -> None:
    lower = np.array([begin for begin, _ in lives])
    upper = np.array([begin + length for begin, length in lives])
    first, end, sections = sections_of(lower, upper)
    for a in range(lower.size):
        for b in range(lower.size):
            assert (lower[a] < upper[b] and lower[b] < upper[a]) == (first[a] < end[b] and first[b] < end[a])
    assert (first.min(), end.max()) == (0, sections)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(buffers=buffer_sets(most=9, staircase=True))
def test_pairs_and_loads(buffers: list[Buffer]) -> None:
    instance = flatten(buffers)
    _, _, mates = tables(instance)
    assert instance.pairs() == mates.size // 2
    assert load_of(instance, Occupancy(instance)).max(initial=0) == live_peak(buffers)


def crowd(count: int, life: int, seed: int = 0) -> list[Buffer]:
    """Random buffers of which about half of `life` are alive at a time."""
    generator = np.random.default_rng(seed)
    lower = generator.integers(0, count, count)
    upper = lower + generator.integers(1, life, count)
    size = generator.integers(1, 1 << 16, count)
    rows = zip(lower.tolist(), upper.tolist(), size.tolist(), strict=True)
    return [Buffer(f"b{k}", *row) for k, row in enumerate(rows)]


@pytest.mark.parametrize("alignment", [1, 64])
def test_large_packings_are_valid_and_the_same_again(alignment: int) -> None:
    buffers = crowd(3000, 800)
    buffers[5] = Buffer("b5", 40, 700, 4096, offset=6400)
    forbidden = (Forbidden(1000, 2000), Forbidden(640_000, 640_064, 100, 200))
    assert flatten(buffers).pairs() > 1_000_000
    result = pack(buffers, 1 << 40, alignment=alignment, forbidden=forbidden, engine="heuristics")
    assert result.packed
    assert verify(buffers, result.offsets, result.height or 0, alignment=alignment, forbidden=forbidden) == []
    assert pack(buffers, 1 << 40, alignment=alignment, forbidden=forbidden, engine="heuristics") == result


def test_orders_are_tuned_until_the_packing_is_near_the_bound() -> None:
    buffers = crowd(1500, 400)
    peak = live_peak(buffers)
    offsets, height, work = pack_large(flatten(buffers), peak, rounds=1, seed=0)
    named = {buffer.id: int(offset) for buffer, offset in zip(buffers, offsets, strict=True)}
    assert verify(buffers, named, height) == []
    assert height <= 1.05 * peak
    assert work["placements"] > 20


def test_a_deadline_that_has_passed_leaves_a_packing() -> None:
    buffers = crowd(3000, 800)
    buffers[5] = Buffer("b5", 40, 700, 4096, offset=6400)
    before = time.monotonic()
    offsets, height, _ = pack_large(flatten(buffers), 0, rounds=1, seed=0, deadline=before)
    named = {buffer.id: int(offset) for buffer, offset in zip(buffers, offsets, strict=True)}
    assert verify(buffers, named, height) == []
    assert live_peak(buffers) < height < 1.2 * live_peak(buffers)


@pytest.mark.skipif(not SHARED.exists(), reason="the instances are not here")
def test_a_published_instance_is_packed_at_its_lower_bound() -> None:
    buffers = read_buffers(SHARED / "pangu_2.6B.csv")
    result = minimise(buffers)
    assert (result.height, result.optimal) == (5530099775, True)
    assert verify(buffers, result.offsets, 5530099775) == []


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 6), st.integers(1, 9)), min_size=1, max_size=25))
def test_no_component_is_larger_than_lives_say(lives: list[tuple[int, int, int]]) -> None:
    buffers = [Buffer(str(k), lower, lower + life, size) for k, (lower, life, size) in enumerate(lives)]
    components = layout(buffers, 1000).components
    assert max(len(component.members) for component in components) <= largest_component(buffers) <= len(buffers)


def test_a_chain_of_lives_too_long_for_the_search_is_not_laid_out() -> None:
    generator = np.random.default_rng(0)
    count = LARGEST_COMPONENT + 1000
    size = generator.integers(1, 100, count).tolist()
    chain = [Buffer(str(k), k, k + 8, size[k]) for k in range(count)]
    throughout = [Buffer(f"all {k}", 0, 9 * count, 5) for k in range(10)]
    apart = [Buffer(f"{k} apart", 9 * k, 9 * k + 8, size[k]) for k in range(count)]
    assert largest_component(chain) == count
    assert largest_component([*throughout, *chain]) == count
    assert largest_component([*throughout, *apart]) == 1
    result = minimise([*throughout, *chain], work_limit=10_000)
    assert result.packed
    assert "nodes" not in result.work
