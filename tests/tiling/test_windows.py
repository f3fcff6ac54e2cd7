"""Windows of neighbouring segments: never worse, whole, and the same again."""

from __future__ import annotations

import itertools

import pytest
from onnx import helper

from cosma.arrays import Ints
from cosma.frontend import LoadedModel, load_onnx
from cosma.tiling import Segment, build_grid
from cosma.tiling.find import WINDOW_SHARE, _rate, _scored, _window_share
from cosma.tiling.layout import Outcome, Room, outcome
from cosma.tiling.search import TilingSearch
from cosma.tiling.segments import Segmentation
from cosma.tiling.windows import search_windows
from tests.onnx_files import save_network

ROOM = Room(6 * 1024, 16, False, 2000)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """Layers of different widths, with sums of what lies two layers apart."""
    nodes, last, weights = [], "x", {}
    widths = (64, 96, 64, 128, 64, 48, 64, 160, 64)
    for i, (before, width) in enumerate(itertools.pairwise(widths)):
        weights[f"w{i}"] = (before, width)
        nodes.append(helper.make_node("MatMul", [last, f"w{i}"], [f"y{i}"]))
        last = f"y{i}"
        if i % 2:
            nodes.append(helper.make_node("Add", [last, "x" if i == 1 else f"z{i - 2}"], [f"z{i}"]))
            last = f"z{i}"
    nodes[-1].output[0] = "y"
    path = tmp_path_factory.mktemp("windows") / "network.onnx"
    return load_onnx(save_network(path, nodes, {"x": [32, 64]}, weights))


def searched(network: LoadedModel, work: int, seed: int) -> tuple[TilingSearch, Segmentation]:
    grid = build_grid(network.graph.with_dtype("int8"), network.sites).grid

    def judge(segments: Segmentation, limits: Ints | None) -> Outcome | None:
        return _scored(outcome(grid, segments, ROOM, limits=limits), segments)

    start = tuple(Segment(v, v + 1, 8, (4,)) for v in range(len(grid.height)))
    search = TilingSearch(grid, judge, seed, slack_bytes=ROOM.capacity_bytes)
    assert search.price(start) > 0
    search_windows(search, ROOM, start, (), _rate, work)
    return search, start


def test_what_is_found_costs_what_a_plan_of_the_whole_network_does(network: LoadedModel) -> None:
    search, start = searched(network, 200_000, 0)
    best = search.ranked()[0]
    assert [s.begin for s in best] == [0, *(s.end for s in best[:-1])]
    assert best[-1].end == len(search.grid.height)
    again = outcome(search.grid, best, ROOM)
    assert again is not None
    assert again.cost_bytes == search.bytes_moved(best) < search.bytes_moved(start)
    assert again.tiles <= ROOM.most_tiles


def test_the_same_seed_finds_the_same_and_no_work_changes_nothing(network: LoadedModel) -> None:
    (one, start), (other, _), (none, _) = (searched(network, work, 3) for work in (40_000, 40_000, 0))
    assert one.ranked() == other.ranked()
    assert one.work == other.work
    assert none.ranked() == [start]


def test_there_are_no_windows_where_each_would_be_most_of_the_network() -> None:
    alike = [Segment(i, i + 1, 8, (4,)) for i in range(40)]
    assert _window_share(tuple(alike)) == WINDOW_SHARE
    assert _window_share(tuple(alike[:5])) == 0
    assert _window_share((*alike[:-1], Segment(39, 40, 1000, (4,)))) == 0


def test_a_search_that_is_stopped_ends_at_once(network: LoadedModel) -> None:
    search, start = searched(network, 0, 0)
    search.stop = lambda: True
    before = search.work
    search_windows(search, ROOM, start, (), _rate, 10_000_000)
    assert search.work == before
