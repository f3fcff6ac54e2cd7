from __future__ import annotations

import time

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cosma.packing import Buffer, live_peak, pack, verify
from cosma.packing.arrays import flatten
from cosma.packing.firstfit import heuristics, place_in_order, tables
from tests.packing.reference import buffer_sets, scan_first_fit


@settings(max_examples=150, deadline=None, derandomize=True)
@given(buffers=buffer_sets(most=9, aligned=True, windows=True), data=st.data())
def test_the_kernel_puts_every_buffer_where_a_scan_does(buffers: list[Buffer], data: st.DataObject) -> None:
    buffers = [buffer for buffer in buffers if buffer.size]
    order = data.draw(st.permutations(range(len(buffers))))
    instance = flatten(buffers)
    part, buffer, mates = tables(instance)
    offsets = np.empty(len(buffers), np.int64)
    edges = np.empty((2, mates.size + 1), np.int64)
    height = place_in_order(np.array(order, np.int64), part, buffer, mates, 10**6, False, offsets, edges)
    expected = scan_first_fit(buffers, order)
    assert offsets.tolist() == expected
    assert height == max((offset + buffer.size for offset, buffer in zip(expected, buffers, strict=True)), default=0)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(buffers=buffer_sets(most=10), alignment=st.sampled_from([1, 4, 64]))
def test_arrays_pack_without_overlap_at_the_height_they_report(buffers: list[Buffer], alignment: int) -> None:
    capacity = live_peak(buffers)
    offsets, height, _ = heuristics(flatten(buffers, alignment), capacity, 64, 0)
    named = {buffer.id: int(offset) for buffer, offset in zip(buffers, offsets, strict=True)}
    assert verify(buffers, named, height, alignment=alignment) == []
    assert height == max(named[buffer.id] + buffer.size for buffer in buffers)
    assert height >= capacity


def test_both_ways_of_fitting_find_the_tightest_or_the_lowest_hole() -> None:
    buffers = [
        Buffer("low", 0, 1, 4, offset=5),
        Buffer("mid", 0, 1, 4, offset=12),
        Buffer("new", 0, 1, 2),
    ]
    assert pack(buffers, 20, engine="heuristics").offsets["new"] == 0
    instance = flatten(buffers)
    part, buffer, mates = tables(instance)
    offsets = np.empty(3, np.int64)
    edges = np.empty((2, 3), np.int64)
    for best, expected in ((False, 0), (True, 9)):
        place_in_order(np.array([2]), part, buffer, mates, 20, best, offsets, edges)
        assert offsets[2] == expected


def test_a_network_sized_call_is_cheap() -> None:
    generator = np.random.default_rng(7)
    lower = np.sort(generator.integers(0, 4000, 4000)).tolist()
    lengths, sizes = generator.geometric(1 / 6, 4000).tolist(), (generator.integers(1, 2000, 4000) * 64).tolist()
    lives = enumerate(zip(lower, lengths, sizes, strict=True))
    instance = flatten([Buffer(f"b{k}", start, start + steps, size) for k, (start, steps, size) in lives], 64)
    heuristics(instance, 0, 0, 0)
    before = time.process_time()
    _, height, _ = heuristics(instance, 1 << 60, 0, 0)
    assert height < 1 << 60
    assert time.process_time() - before < 0.1
