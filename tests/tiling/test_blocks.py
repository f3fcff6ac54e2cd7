"""Networks of like blocks: which they are, and one cut for all."""

from __future__ import annotations

import pytest
from onnx import helper

from cosma.frontend import LoadedModel, load_onnx
from cosma.tiling import Segment, build_grid
from cosma.tiling.blocks import cut_blocks, like_blocks, shifted
from cosma.tiling.find import _scored
from cosma.tiling.layout import Room, outcome
from cosma.tiling.repeats import Repeats
from tests.onnx_files import save_network

#: Operators of a block, and blocks.
LENGTH, BLOCKS = 4, 8
ROOM = Room(6 * 1024, 16, False, 4000)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A head of another width, eight blocks of two layers and a sum, and a tail."""
    nodes, last = [helper.make_node("MatMul", ["x", "first"], ["y0"])], "y0"
    weights: dict[str, tuple[int, ...]] = {"first": (16, 64), "last": (64, 8)}
    for i in range(BLOCKS):
        weights |= {f"up{i}": (64, 128), f"down{i}": (128, 64)}
        nodes += [
            helper.make_node("MatMul", [last, f"up{i}"], [f"a{i}"]),
            helper.make_node("Relu", [f"a{i}"], [f"b{i}"]),
            helper.make_node("MatMul", [f"b{i}", f"down{i}"], [f"c{i}"]),
            helper.make_node("Add", [f"c{i}", last], [f"y{i + 1}"]),
        ]
        last = f"y{i + 1}"
    nodes.append(helper.make_node("MatMul", [last, "last"], ["y"]))
    path = tmp_path_factory.mktemp("blocks") / "network.onnx"
    return load_onnx(save_network(path, nodes, {"x": [32, 16]}, weights))


def test_blocks_are_found_where_little_goes_from_one_to_the_next(network: LoadedModel) -> None:
    grid = build_grid(network.graph.with_dtype("int8"), network.sites).grid
    blocks = like_blocks(grid, Repeats(grid))
    assert blocks == [(1 + LENGTH * i, 1 + LENGTH * (i + 1)) for i in range(BLOCKS)]


def test_what_is_best_for_one_block_is_done_in_all(network: LoadedModel) -> None:
    grid = build_grid(network.graph.with_dtype("int8"), network.sites).grid
    count = len(grid.height)
    start = tuple(Segment(v, v + 1, 8, (4 if grid.width[v] >= 4 else 1,)) for v in range(count))
    before = outcome(grid, start, ROOM)
    found, work = cut_blocks(grid, Repeats(grid), ROOM, _scored, (), 100_000, 0, start)
    assert work > 0
    (segments,) = found
    assert [s.begin for s in segments] == [0, *(s.end for s in segments[:-1])]
    assert segments[-1].end == count
    first = tuple(s for s in segments if 1 <= s.begin < 1 + LENGTH)
    for i in range(BLOCKS):
        assert tuple(s for s in segments if 0 <= s.begin - 1 - LENGTH * i < LENGTH) == shifted(first, LENGTH * i)
    after = outcome(grid, segments, ROOM)
    assert before is not None
    assert after is not None
    assert after.cost_bytes < before.cost_bytes
    assert cut_blocks(grid, Repeats(grid), ROOM, _scored, (), 100_000, 0, start) == (found, work)
