"""Tilings given and chosen, from a model to a plan that is checked against it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

import cosma
from cosma.compiler.compile import run_compile
from cosma.compiler.limits import Limits, Progress
from cosma.errors import FormatError, InputError
from cosma.rewrite.tile import tile
from cosma.tiling import Segment, build_grid, choose_segments, search_tilings, tiling_of
from cosma.tiling.alone import each_alone
from cosma.tiling.choose import FEW_STRIPES, rows_by_stripe
from cosma.tiling.given import parse_rule, read_tiling, rule_tiling
from cosma.tiling.lay_kernels import lay_tiles
from cosma.tiling.layout import Room, tiles_of
from tests.execute.networks import FAMILIES, Maker
from tests.onnx_files import save_network


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """Three convolutions over maps of 32 KiB (float32), a pooled head; whole maps need 64 KiB, stripes far less."""
    weights = {"w1": (8, 4, 3, 3), "w2": (8, 8, 3, 3), "w3": (4, 8, 1, 1)}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="c1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"], name="r1"),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="c2", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["d"], name="r2"),
        helper.make_node("Conv", ["d", "w3"], ["e"], name="c3"),
        helper.make_node("GlobalAveragePool", ["e"], ["y"], name="gap"),
    ]
    return save_network(tmp_path / "wide.onnx", nodes, {"x": [1, 4, 32, 32]}, weights)


MACHINE = cosma.Accelerator(scratchpad="24KiB", operands="resident", weights="scratchpad", fusion="epilogue")


def test_the_choice_of_a_tiling_is_part_of_the_effort_and_of_the_time(wide: Path) -> None:
    seen: list[Progress] = []
    tight = MACHINE.replace(scratchpad="12KiB")
    result = run_compile(wide, tight, limits=Limits(effort=2.0), tiling="auto", sink=seen.append)
    assert any(progress.phase == "tilings" for progress in seen)
    assert max(progress.spent for progress in seen) <= 2.0
    assert result.plan.solver["effort"] == 2.0
    cut = run_compile(wide, tight, limits=Limits(effort=1e6, time_limit_s=0.2), tiling="auto")
    assert cut.plan.stopped_by == "time"
    assert not cut.reproducible
    assert cut.seconds < 20


def test_without_a_plan_at_the_time_limit_the_error_says_so(tmp_path: Path) -> None:
    nodes = [helper.make_node("CumSum", ["x", "axis"], ["y"], name="cumsum")]
    path = save_network(tmp_path / "whole.onnx", nodes, {"x": [1, 64 * 1024]}, {"axis": np.array(1)})
    with pytest.raises(cosma.TimeLimitError, match="within the time limit"):
        cosma.compile(path, MACHINE, tiling="auto", time_limit_s=1e-6)
    with pytest.raises(cosma.InfeasibleError, match="cumsum"):
        cosma.compile(path, MACHINE, tiling="auto")


def test_tiles_are_planned_where_operators_are_stationary(wide: Path) -> None:
    machine = MACHINE.replace(operands="stationary")
    plan = cosma.compile(wide, machine, effort=0.5, tiling="auto")
    assert any(operator.tile is not None for operator in plan.graph.operators)
    assert cosma.replay(plan, cosma.load_onnx(wide).finest_graph, model=wide).valid
    resident = cosma.compile(wide, MACHINE, effort=0.5, tiling="auto")
    assert plan.traffic.noncompulsory <= resident.traffic.noncompulsory


def test_a_plan_of_tiles_is_one_to_start_from_for_a_larger_scratchpad(wide: Path) -> None:
    small = cosma.compile(wide, MACHINE.replace(scratchpad="20KiB"), effort=1.0, tiling="auto")
    large = cosma.compile(wide, MACHINE, effort=0.0, tiling="auto", starts=[small])
    assert large.traffic.noncompulsory <= small.traffic.noncompulsory


def test_stripes_fit_where_whole_maps_do_not(wide: Path) -> None:
    with pytest.raises(cosma.InfeasibleError):
        cosma.compile(wide, MACHINE, effort=0.5)
    plan = cosma.compile(wide, MACHINE, effort=0.5, tiling="auto")
    loaded = cosma.load_onnx(wide)
    assert plan.traffic.noncompulsory < 32 * 1024 / 10
    roomy = cosma.compile(wide, MACHINE.replace(scratchpad="32KiB"), effort=0.5, tiling="auto")
    assert (roomy.traffic.noncompulsory, roomy.certificate.status) == (0, "optimal")
    assert "any tiling" in roomy.certificate.method
    assert any(operator.tile is not None for operator in plan.graph.operators)
    assert cosma.replay(plan, loaded.finest_graph, model=wide).valid


def test_plans_of_tiles_are_kept_in_files(wide: Path, tmp_path: Path) -> None:
    plan = cosma.compile(wide, MACHINE, effort=0.1, tiling="stripes=8", strategy="existing")
    path = tmp_path / "plan.json"
    cosma.save_plan(plan, path)
    again = cosma.load_plan(path)
    assert '"version":2' in path.read_text().replace(" ", "")
    assert [o.tile for o in again.graph.operators] == [o.tile for o in plan.graph.operators]
    assert cosma.replay(again, cosma.load_onnx(wide).finest_graph, model=wide).valid


def test_auto_is_no_worse_than_no_tiling(wide: Path) -> None:
    for size in ("36KiB", "40KiB", "48KiB", "80KiB"):
        machine = MACHINE.replace(scratchpad=size)
        tiled = cosma.compile(wide, machine, effort=0.5, tiling="auto").traffic.noncompulsory
        try:
            whole = cosma.compile(wide, machine, effort=0.5).traffic.noncompulsory
        except cosma.InfeasibleError:
            continue
        assert tiled <= whole


def test_same_bytes_twice(wide: Path) -> None:
    from cosma.plan.file import plan_to_json

    plans = [cosma.compile(wide, MACHINE, effort=0.3, tiling="auto") for _ in range(2)]
    assert plan_to_json(plans[0]) == plan_to_json(plans[1])


def test_rules_cut_what_can_be_cut(wide: Path) -> None:
    loaded = cosma.load_onnx(wide)
    tiling = rule_tiling(loaded.graph, loaded.sites, {"rows": 8})
    assert tiling.cuts["c1"] == ((), (), (8, 16, 24), ())
    assert "gap" not in tiling.cuts
    weights = rule_tiling(loaded.graph, loaded.sites, parse_rule("weights=64"))
    for operator in loaded.graph.operators:
        held = sum(loaded.graph.tensors[w].size_bytes for w in operator.weights)
        pieces = max((len(cuts) + 1 for cuts in weights.cuts.get(operator.name, ((),))), default=1)
        shape = loaded.graph.tensors[operator.outputs[0]].shape
        assert pieces == (min(-(-held // 64), shape[1]) if held > 64 else 1), operator.name
    channels = rule_tiling(loaded.graph, loaded.sites, {"channels": 2})
    assert channels.cuts["c2"] == ((), (4,), (), ())


def test_files_name_operators_axes_and_positions(wide: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiling.toml"
    path.write_text(
        'segments = [["c1", "r1"], ["c2"]]\n'
        '[[cut]]\noperator = "c*"\naxis = 2\ntiles = 4\n'
        '[[cut]]\noperator = "c2"\naxis = 1\nat = [2, 6]\n'
    )
    tiling = read_tiling(path, cosma.load_onnx(wide).graph, {})
    assert tiling.cuts["c1"] == ((), (), (8, 16, 24), ())
    assert tiling.cuts["c2"] == ((), (2, 6), (8, 16, 24), ())
    assert tiling.segments == (("c1", "r1"), ("c2",))
    plan = cosma.compile(wide, MACHINE.replace(scratchpad="64KiB", fusion="none"), tiling=path, effort=0.1)
    assert sum(o.tile is not None for o in plan.graph.operators) == 4 + 12 + 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[[cut]]\noperator = "nobody"\naxis = 2\ntiles = 2', "no operator is named 'nobody'"),
        ('[[cut]]\noperator = "c1"\naxis = 7\ntiles = 2', "4 axes, not axis 7"),
        ('[[cut]]\noperator = "c1"\naxis = 2', "one of at, tiles or step"),
        ('[[cut]]\noperator = "c1"\naxis = 2\ntiles = 0', "above 0"),
        ('[[cut]]\noperator = "c1"\naxis = 2\ntiles = 33', "33 tiles along axis 2, which has 32 elements"),
        ('[[cut]]\noperator = "c1"\naxis = 2\nat = [4.5]', "each of at must be a whole number, not 4.5"),
        ('[[cut]]\noperator = "c1"\naxis = 2\nat = ["4"]', "each of at must be a whole number"),
        ('[[cut]]\noperator = "c1"\naxis = 2\nat = 4', "at must be a list"),
        ('[[cut]]\noperator = "c1"\naxis = 2\nstep = true', "step must be a whole number"),
        ('[[cut]]\noperator = "c*"\naxis = 2\ntiles = 2\n' * 2, "operator 'c1' is cut along axis 2 by two tables"),
        ('[[order]]\noperator = "c1"\nloops = [0, 1, 2, 3]\n' * 2, "an order by two tables"),
        ('segments = [["c1", "c9"]]', "segments: no operator is named 'c9'"),
        ('segments = [["c1", "r1"], ["c1"]]', "operator 'c1' is named twice"),
        ("segments = [[1]]", "names of operators, not 1"),
        ("cuts = 3", "unknown key 'cuts'"),
        ("[[cut]", "not a TOML file"),
        ("[[cut]]\naxis = 1", "operator must be a text"),
    ],
)
def test_wrong_files_are_refused(wide: Path, tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "tiling.toml"
    path.write_text(text)
    with pytest.raises((InputError, FormatError), match=says):
        read_tiling(path, cosma.load_onnx(wide).graph, {})


def test_names_with_the_characters_of_patterns_are_names(tmp_path: Path) -> None:
    file = tmp_path / "tiling.toml"
    path = save_network(
        tmp_path / "net.onnx", [helper.make_node("Relu", ["x"], ["y"], name="layers[0]/act?")], {"x": [4, 8]}
    )
    file.write_text('[[cut]]\noperator = "layers[0]/act?"\naxis = 0\ntiles = 2')
    assert read_tiling(file, cosma.load_onnx(path).graph, {}).cuts == {"layers[0]/act?": ((2,), ())}


@pytest.mark.parametrize("text", ["rows=0", "rows=x", "lines=4", "rows=2,rows=3", "rows=2,stripes=3", "rows="])
def test_wrong_rules_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="tiling"):
        parse_rule(text)


def test_graphs_without_nodes_cannot_be_cut(wide: Path) -> None:
    with pytest.raises(InputError, match="ONNX"):
        cosma.compile(cosma.load_onnx(wide).graph, MACHINE, tiling="auto")


def test_files_cut_sums_and_order_tiles(tmp_path):
    from cosma.rewrite.tiling import REDUCED
    from cosma.tiling.given import read_tiling
    from tests.validator.test_sums import chain_network

    loaded = cosma.load_onnx(chain_network(tmp_path / "net.onnx"))
    gemm = next(o.name for o in loaded.graph.operators if o.type == "Gemm")
    file = tmp_path / "tiling.toml"
    file.write_text(
        f'[[cut]]\noperator = "{gemm}"\naxis = "sum"\nstep = 10\n'
        f'[[cut]]\noperator = "{gemm}"\naxis = 1\ntiles = 2\n'
        f'[[order]]\noperator = "{gemm}"\nloops = [0, "sum", -1]\n'
    )
    tiling = read_tiling(file, loaded.graph, loaded.sites)
    assert tiling.sums == {gemm: (10, 20, 30)}
    assert tiling.loops == {gemm: (0, REDUCED, 1)}
    pieces = tiling.pieces(gemm, (6, 10), 36)
    assert [(box[1], span) for box, span in pieces[:4]] == [
        ((0, 5), (0, 10)), ((5, 10), (0, 10)), ((5, 10), (10, 20)), ((0, 5), (10, 20))
    ]  # fmt: skip
    assert len(pieces) == 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[cut]]\noperator = "*Relu*"\naxis = "sum"\nstep = 1\n', "no operator is named|partial sums"),
        ('[[order]]\noperator = "*"\nloops = "rows"\n', "must be a list"),
        ('[[order]]\noperator = "*"\nloops = [0, "tokens"]\n', "an axis is a whole number"),
    ],
)
def test_files_with_wrong_sums_are_refused(tmp_path, text, message):
    from cosma.tiling.given import read_tiling
    from tests.validator.test_sums import chain_network

    loaded = cosma.load_onnx(chain_network(tmp_path / "net.onnx"))
    file = tmp_path / "tiling.toml"
    file.write_text(text)
    with pytest.raises(cosma.CosmaError, match=message):
        read_tiling(file, loaded.graph, loaded.sites)


def test_segments_of_a_rule_keep_a_deep_network_on_chip(tmp_path: Path) -> None:
    """With tiles of all operators in turns, weights would be read again for each stripe; in segments nothing is."""
    m = Maker()
    value, channels = "x", 8
    for i in range(6):
        m.add("Conv", [value, m.weight(f"w{i}", 2 * channels, channels, 3, 3)], f"c{i}", pads=[1] * 4, strides=[2, 2])
        value, channels = f"c{i}", 2 * channels
    path = m.save(tmp_path / "deep.onnx", {"x": (1, 8, 192, 192)}, [value])
    accelerator = cosma.Accelerator(scratchpad="96KiB", weights="scratchpad", operands="resident")
    plan = cosma.compile(path, accelerator, dtype="int8", tiling="rows=2,weights=16KiB", effort=0)
    loaded = cosma.load_onnx(path)
    tiling = rule_tiling(loaded.graph.with_dtype("int8"), loaded.sites, parse_rule("rows=2,weights=16KiB"))
    assert cosma.compile(path, accelerator, dtype="int8", tiling=tiling, effort=0).traffic == plan.traffic
    every = replace(tiling, segments=(tuple(tiling.operators),))
    in_turns = cosma.compile(path, accelerator, dtype="int8", tiling=every, effort=0)
    assert plan.traffic.noncompulsory < in_turns.traffic.noncompulsory


@pytest.mark.parametrize("text", ["weights=0", "channels=2,weights=4KiB", "rows=2,weights=1KiB,weights=2KiB"])
def test_wrong_weights_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="tiling"):
        parse_rule(text)


def test_the_choice_of_segments_asks_at_every_operator_whether_to_stop(tmp_path: Path) -> None:
    """What one share of a large network takes is seconds; a time limit must not wait for it."""
    loaded = cosma.load_onnx(FAMILIES["cnn"](tmp_path / "net.onnx"))
    grid = build_grid(loaded.graph, loaded.sites).grid
    count = len(grid.height)
    polls = 0

    def stop_after(most: int) -> Callable[[], bool]:
        def stop() -> bool:
            nonlocal polls
            polls += 1
            return polls > most

        return stop

    every = choose_segments(grid, 1 << 16, (0.9, 0.5), (1.0,), stop=stop_after(1000))
    assert polls == 2 * count
    polls = 0
    first = choose_segments(grid, 1 << 16, (0.9, 0.5), (1.0,), stop=stop_after(count + 2))
    assert first == every[:1]
    assert polls == count + 3


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), min_size=1, max_size=20))
def test_rows_that_a_stripe_reads_are_those_that_its_rows_read(spans: list[tuple[int, int]]) -> None:
    low = np.array([begin for begin, _ in spans])
    high = low + [count for _, count in spans]
    found = rows_by_stripe(low, high)
    if len({*zip(low.tolist(), high.tolist(), strict=True)}) == 1:
        assert (found == -1).all()
        return
    for (most, both), stripes in zip(found.tolist(), FEW_STRIPES, strict=True):
        n = min(stripes, len(low))
        stops = [s * len(low) // n for s in range(n + 1)]
        read = [(min(low[a:b]), max(high[a:b])) for a, b in pairwise(stops)]
        assert most == max(b - a for a, b in read)
        assert both == max([0, *(before[1] - after[0] for before, after in pairwise(read))])


def test_windows_that_lie_in_groups_are_cut_between_the_groups() -> None:
    """Eight windows of one row of an image each: a stripe of eight needs one row and none of the next."""
    row = np.arange(64) // 8
    at = {n: tuple(found) for n, found in zip(FEW_STRIPES, rows_by_stripe(row, row + 1).tolist(), strict=True)}
    assert (at[1], at[8], at[4], at[64]) == ((8, 0), (1, 0), (2, 0), (1, 1))


def test_a_choice_with_too_many_tiles_is_made_anew_with_fewer(tmp_path: Path) -> None:
    loaded = cosma.load_onnx(FAMILIES["cnn"](tmp_path / "net.onnx"))
    grid = build_grid(loaded.graph, loaded.sites).grid
    free = choose_segments(grid, 1 << 13, (0.9,), (1.0,))[0]
    count = sum(one.tile_count for one in free)
    few = choose_segments(grid, 1 << 13, (0.9,), (1.0,), most_tiles=count - 1)[0]
    assert sum(one.tile_count for one in few) < count
    assert choose_segments(grid, 1 << 13, (0.9,), (1.0,), most_tiles=count)[0] == free
    polls = iter(range(len(grid.height) + 1))
    stopped = choose_segments(grid, 1 << 13, (0.9,), (1.0,), stop=lambda: next(polls, -1) < 0, most_tiles=count - 1)
    assert stopped == [free]  # finished before the stop


def test_tiles_may_be_as_many_as_operators_need_by_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cosma.tiling.find.MOST_TILES", 4)
    monkeypatch.setattr("cosma.tiling.find.MOST_TILES_EACH", 1)
    loaded = cosma.load_onnx(FAMILIES["branches"](tmp_path / "net.onnx"))
    accelerator = cosma.Accelerator(scratchpad="4KiB", weights="scratchpad")
    grid, found, *_ = search_tilings(loaded.graph, loaded.sites, accelerator, effort=0.01)
    assert found
    assert len(tiles_of(grid.grid, found[0])) > 40


@pytest.mark.parametrize("pieces", [3, 4])
def test_tiles_chosen_consist_of_as_few_ranges_as_an_operand_may(tmp_path: Path, pieces: int) -> None:
    m = Maker(3)
    value = "x"
    for i in range(4):
        m.add("Conv", [value, m.weight(f"w{i}", 8, 8, 3, 3)], f"c{i}", pads=[1] * 4)
        value = m.add("Relu", [f"c{i}"], f"r{i}")
    path = m.save(tmp_path / "net.onnx", {"x": (1, 8, 64, 64)}, [value])
    accelerator = cosma.Accelerator(scratchpad="24KiB", weights="scratchpad", fusion="epilogue", operands="stationary")

    def plan_with(pieces: int | None) -> cosma.Plan:
        return cosma.compile(path, accelerator.replace(pieces=pieces), dtype="int8", tiling="auto", effort=0.5)

    def most_touched(plan: cosma.Plan) -> int:
        graph = plan.graph
        touched = [
            Counter(region.root for name in names if (region := graph.tensors[name].region) is not None)
            for operator in graph.operators for names in (operator.operands, operator.outputs)
        ]  # fmt: skip
        return max(max(one.values(), default=1) for one in touched)

    plan = plan_with(pieces)
    assert 1 < most_touched(plan) <= pieces
    assert plan.traffic.noncompulsory == 0
    assert most_touched(plan_with(None)) > 1
    counted = cosma.load_onnx(path).finest_graph.with_dtype("int8")
    assert cosma.replay(plan, counted, model=path).valid


def test_an_operator_that_is_not_cut_reads_all_in_the_tables_too(tmp_path: Path) -> None:
    """A convolution of stride two leaves out the last row; uncut it reads it all the same, as its graph does."""
    m = Maker(4)
    m.add("Conv", ["x", m.weight("w0", 4, 4, 1, 1)], "a")
    m.add("Conv", ["a", m.weight("w1", 4, 4, 1, 1)], "b", strides=[2, 2])
    path = m.save(tmp_path / "net.onnx", {"x": (1, 4, 8, 8)}, ["b"])
    loaded = cosma.load_onnx(path)
    grid = build_grid(loaded.graph, loaded.sites)
    for stripes, parts in ((1, 1), (2, 2)):
        segments = (Segment(0, 1, 1, (1,)), Segment(1, 2, stripes, (1,)))
        tiled = tile(loaded.graph, loaded.sites, tiling_of(grid, segments)).graph
        known = [t for t in tiled.tensors.values() if t.name == "a" or (t.region is not None and t.region.root == "a")]
        arrays = lay_tiles(grid.grid, tiles_of(grid.grid, segments), 64)
        assert (arrays[-2] == list(loaded.graph.tensors).index("a")).sum() == len(known)
        assert (len(known) > 1) == (parts > 1)


def test_an_operator_is_cut_into_as_many_tiles_as_it_needs(tmp_path: Path) -> None:
    """A tile of a sixty-fourth of the words does not fit, and this version of Gemm has no partial sums."""
    m = Maker(5)
    m.add("Gemm", ["x", m.weight("w", 2048, 512), m.weight("b", 2048)], "y", transB=1)
    path = m.save(tmp_path / "net.onnx", {"x": (1, 512)}, ["y"], opset=9)
    loaded = cosma.load_onnx(path)
    grid = build_grid(loaded.graph.with_dtype("int8"), loaded.sites).grid
    (found,) = each_alone(grid, Room(4096, 64, False, 4000))
    assert found.ways
    assert found.tiles > 4 * 64
