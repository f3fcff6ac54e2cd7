"""Regions: boxes, what they share, and which of them are one address range."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from cosma import GraphError
from cosma.graph import Graph, Operator, Region, Tensor
from cosma.graph.json_format import graph_from_json, graph_to_json
from cosma.graph.region import box_of_range

SHAPE = (3, 4, 2)


def boxes() -> list[Region]:
    spans = [[(a, b) for a in range(size) for b in range(a + 1, size + 1)] for size in SHAPE]
    return [Region("r", [a for a, _ in box], [b for _, b in box]) for box in product(*spans)]


def test_a_box_is_one_address_range_exactly_where_its_elements_are_neighbours() -> None:
    positions = np.arange(24).reshape(SHAPE)
    for region in boxes():
        inside = positions[region.slices].reshape(-1)
        together = bool((np.diff(inside) == 1).all())
        assert region.offset(SHAPE) == (int(inside[0]) if together else None)


def test_a_range_is_a_box_exactly_where_some_box_holds_it() -> None:
    positions = np.arange(24).reshape(SHAPE)
    known = {tuple(positions[region.slices].reshape(-1).tolist()): region for region in boxes()}
    for start in range(24):
        for stop in range(start + 1, 25):
            assert box_of_range("r", SHAPE, start, stop) == known.get(tuple(range(start, stop)))
    assert box_of_range("r", SHAPE, 5, 5) is None


def test_overlap_counts_shared_elements() -> None:
    masks = []
    for region in boxes():
        mask = np.zeros(SHAPE, bool)
        mask[region.slices] = True
        masks.append((region, mask))
    for (a, first), (b, second) in product(masks[::3], masks[::7]):
        assert a.overlap(b) == int((first & second).sum())


def test_labels_say_what_lies_within() -> None:
    assert Region("e", (0, 5, 1), (3, 6, 4)).label((3, 8, 8)) == "e[:, 5, 1:4]"


@pytest.mark.parametrize(("start", "stop"), [((0,), (1, 2)), ((2,), (1,)), ((-1,), (1,))])
def test_what_is_no_box_is_refused(start: tuple[int, ...], stop: tuple[int, ...]) -> None:
    with pytest.raises(GraphError, match="'r'"):
        Region("r", start, stop)


def test_roots_are_no_tensors_and_parts_have_roots() -> None:
    root = Tensor("e", 8, "input", "int8", (8,))
    parts = [Tensor(f"e{i}", 4, "input", "int8", (4,), region=Region("e", [4 * i], [4 * i + 4])) for i in (0, 1)]
    reader = Operator("v", "Concat", ("e0", "e1"), ("y",), reads=[Region("e", [0], [8])])
    result = Tensor("y", 8, "output", "int8", (8,))
    graph = Graph([*parts, result], [reader], "g", [root])
    assert graph.roots["e"] == root
    assert graph.parts_of("e") == tuple(parts)
    assert graph_from_json(graph_to_json(graph)) == graph
    assert graph.compulsory_bytes() == 16
    with pytest.raises(GraphError, match="not a root"):
        Graph([*parts, result], [reader])
    with pytest.raises(GraphError, match="is a tensor as well"):
        Graph([*parts, result, root], [reader], "g", [root])
    with pytest.raises(GraphError, match="no shape"):
        Graph([*parts, result], [reader], "g", [Tensor("e", 8, "input")])
    with pytest.raises(GraphError, match="twice"):
        Graph([*parts, result], [reader], "g", [root, root])
