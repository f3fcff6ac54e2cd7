"""Modes of tiles against figures by hand, and the judge's own rules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, parser

import cosma
from cosma.access.modes import with_modes
from cosma.frontend import LoadedModel
from cosma.graph import Graph, Mode, Operator
from cosma.plan.file import plan_to_json
from cosma.rewrite.tile import tile
from cosma.rewrite.tiling import Tiling
from cosma.tiling.given import parse_rule, rule_tiling
from cosma.validator import Verdict
from cosma.validator.modes import check_modes
from tests.field.commands import cosma as command
from tests.onnx_files import save_network

ZOO = Path(__file__).resolve().parents[2] / "models" / "zoo"


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """Two convolutions of 3 x 3 over a map of 8 x 8, the second over eight channels of the first, and a pooled head."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="c1", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "w2"], ["b"], name="c2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["b", "a"], ["c"], name="add"),
        helper.make_node("GlobalAveragePool", ["c"], ["y"], name="gap"),
    ]
    return save_network(tmp_path / "chain.onnx", nodes, {"x": [1, 4, 8, 8]}, {"w1": (8, 4, 3, 3), "w2": (8, 8, 3, 3)})


def tiled(loaded: LoadedModel, graph: Graph, cuts: dict[str, tuple[tuple[int, ...], ...]]) -> Graph:
    whole = with_modes(graph, loaded.sites, keep_weights=True)
    return tile(whole, loaded.sites, Tiling(cuts)).graph


def mode_of(operator: Operator, name: str) -> Mode:
    return next(mode for mode in operator.modes if mode.name == name)


def test_a_tile_streams_the_parts_of_what_its_operator_streams(chain: Path) -> None:
    loaded = cosma.load_onnx(chain)
    graph = tiled(loaded, loaded.graph, {"c1": ((), (), (4,), ()), "c2": ((), (), (4,), ())})
    first = next(o for o in graph.operators if o.tile is not None and o.tile.root == "c2")
    assert [mode.name for mode in first.modes] == ["input-stationary", "weight-stationary", "output-stationary"]
    # The upper half of the result reads rows 0 to 4 of `a`, which is cut at rows 4 (its own) and 3, 5 (halos).
    assert len(first.inputs) == 3
    assert mode_of(first, "weight-stationary").may_stream == (*first.inputs, *first.outputs)
    assert mode_of(first, "input-stationary").may_stream == ("w2", *first.outputs)
    assert mode_of(first, "output-stationary").may_stream == (*first.inputs, "w2")
    # Three rows of eight channels, eight wide, four bytes.
    assert mode_of(first, "weight-stationary").workspace_bytes == 3 * 8 * 8 * 4


def test_a_tile_that_reads_less_than_a_window_holds_what_it_reads(chain: Path) -> None:
    loaded = cosma.load_onnx(chain)
    graph = tiled(loaded, loaded.graph, {"c2": ((), (), (1, 2), ())})
    rows = [mode_of(o, "weight-stationary").workspace_bytes // (8 * 8 * 4) for o in graph.operators if o.tile]
    assert rows == [2, 3, 3]


def test_sums_are_those_of_the_tile(chain: Path) -> None:
    loaded = cosma.load_onnx(chain)
    narrow = loaded.graph.with_dtype("int8")
    graph = tiled(loaded, narrow, {"c2": ((), (2,), (), ())})
    spaces = [mode_of(o, "output-stationary").workspace_bytes for o in graph.operators if o.tile]
    assert spaces == [3 * 8 * 8 + 4 * 2 * 8 * 8, 3 * 8 * 8 + 4 * 6 * 8 * 8]


def test_operators_that_are_not_cut_stream_all_parts_they_touch(chain: Path) -> None:
    loaded = cosma.load_onnx(chain)
    graph = tiled(loaded, loaded.graph, {"c1": ((), (), (4,), ())})
    add = graph.operator("add")
    assert set(mode_of(add, "lockstep").may_stream) == {*add.inputs, "c"}
    assert len(add.inputs) == 3


@pytest.mark.parametrize("rule", ["rows=3", "stripes=4", "channels=2"])
@pytest.mark.parametrize("name", ["mobilenet_v2_224", "unet_256", "darts_v2_imagenet", "mobilenet_v2_int8_qdq"])
def test_the_judge_finds_every_mode_of_tiles_possible(name: str, rule: str) -> None:
    loaded = cosma.load_onnx(ZOO / f"{name}.onnx")
    accelerator = cosma.Accelerator(scratchpad="1MiB", operands="stationary", weights="scratchpad")
    graph = loaded.graph.with_dtype("int8")
    parsed = parse_rule(rule)
    assert parsed is not None
    cut = tile(
        with_modes(graph, loaded.sites, keep_weights=True), loaded.sites, rule_tiling(graph, loaded.sites, parsed)
    ).graph
    assert check_modes(cut, accelerator) == []
    assert sum(bool(mode.may_stream) for o in cut.operators if o.tile for mode in o.modes) > 100


def plan_of_tiles(chain: Path) -> tuple[cosma.Plan, Graph]:
    loaded = cosma.load_onnx(chain)
    accelerator = cosma.Accelerator(scratchpad="4KiB", operands="stationary", weights="scratchpad")
    return cosma.compile(chain, accelerator, tiling="rows=2", strategy="e2", effort=0.1), loaded.finest_graph


def test_what_a_tile_cannot_do_is_found(chain: Path) -> None:
    plan, graph = plan_of_tiles(chain)
    assert cosma.replay(plan, graph, model=chain).valid

    def verdicts(kind: str, **change: object) -> set[str]:
        chosen = next(o for o in plan.graph.operators if o.type == kind and o.tile is not None)
        modes = (replace(Mode("weight-stationary", (*chosen.inputs, *chosen.outputs), 1 << 12), **change),)  # type: ignore[arg-type]
        operators = [replace(o, modes=modes) if o is chosen else o for o in plan.graph.operators]
        changed = Graph(plan.graph.tensors.values(), operators, plan.graph.name, plan.graph.roots.values())
        found = cosma.replay(replace(plan, graph=changed), graph).violations
        return {v.message.partition(": ")[2] for v in found if v.verdict == Verdict.MODE_FORBIDDEN}

    first = next(o for o in plan.graph.operators if o.type == "Conv" and o.tile is not None)
    assert verdicts("Conv") == set()
    assert verdicts("Conv", workspace_bytes=8) == {"it needs 384 bytes of workspace and has 8"}
    assert verdicts("Conv", may_stream=(*first.operands, *first.outputs)) == {
        "neither a factor nor the result stays in the scratchpad"
    }
    assert verdicts("Conv", name="output-stationary") == {
        "by its name the result stays in the scratchpad, which it streams"
    }


def test_little_room_is_enough_where_tiles_stream(chain: Path, tmp_path: Path) -> None:
    loaded = cosma.load_onnx(chain)
    least = {}
    for operands in ("resident", "stationary"):
        machine = cosma.Accelerator(scratchpad=2048, operands=operands, weights="scratchpad", fusion="epilogue")
        plan = cosma.compile(chain, machine, tiling="auto", effort=0.1)
        assert cosma.replay(plan, loaded.finest_graph, model=chain).valid
        cosma.save_plan(plan, tmp_path / "plan.json")
        assert plan_to_json(cosma.load_plan(tmp_path / "plan.json")) == plan_to_json(plan)
        least[operands] = plan.traffic.noncompulsory
    assert least["stationary"] < least["resident"]


def test_commands_plan_prove_and_run_tiles_that_stream(chain: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    machine = ("--scratchpad", "3584", "--operands", "stationary", "--weights", "scratchpad", "--fusion", "epilogue")
    done = command("compile", chain, *machine, "--tiling", "auto", "--effort", "0.05", "-o", plan)
    assert done.code == 0, done.err
    done = command("check", plan, chain, "--prove", "--effort", "0.05")
    assert done.code == 0, done.err
    assert "every operator in any of its modes" in done.out
    done = command("compile", chain, *machine[:1], "256", *machine[2:], "--tiling", "rows=1")
    assert done.code == 3
    assert "does not fit: operator" in done.err


def test_tiles_that_stream_fit_where_whole_operators_do_not_in_any_mode(chain: Path) -> None:
    machine = cosma.Accelerator(scratchpad=1024, operands="stationary", weights="scratchpad")
    with pytest.raises(cosma.InfeasibleError):
        cosma.compile(chain, machine, strategy="e2")
    plan = cosma.compile(chain, machine, strategy="e2", tiling="auto", effort=0.1)
    assert cosma.replay(plan, cosma.load_onnx(chain).finest_graph, model=chain).valid


def test_steps_of_a_sum_stream_partial_sums_where_they_may_stream_the_result(chain: Path) -> None:
    loaded = cosma.load_onnx(chain)
    graph = with_modes(loaded.graph.with_dtype("int8"), loaded.sites, keep_weights=True)
    cut = tile(graph, loaded.sites, Tiling({}, sums={"c2": (3,)})).graph
    accelerator = cosma.Accelerator(scratchpad="4KiB", operands="stationary", weights="scratchpad")
    assert check_modes(cut, accelerator) == []
    first, second = (o for o in cut.operators if o.accumulation is not None)
    assert second.accumulation is not None
    partial = second.accumulation.sums[0]
    assert partial == first.outputs[0]
    for mode in (*first.modes, *second.modes):
        assert (partial in mode.may_stream) == (mode.name != "output-stationary"), mode
    assert set(mode_of(second, "weight-stationary").may_stream) > {partial, *second.outputs}
    everything = (*second.operands, *second.outputs)
    operators = [replace(o, modes=[Mode("all", everything, 4096)]) if o is second else o for o in cut.operators]
    changed = Graph(cut.tensors.values(), operators, cut.name, cut.roots.values())
    assert ["neither a factor nor the result stays" in v.message for v in check_modes(changed, accelerator)] == [True]


def test_what_is_read_in_part_is_cut_and_streams_in_part(tmp_path: Path) -> None:
    model = parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 20]>
        agraph (float[1,8,16,16] x) => (float[1,4,16,16] y, float[1,4,16,16] z) {
            a = Conv <pads=[1,1,1,1]> (x, w1)
            i0 = Constant <value_ints=[0]> ()
            i4 = Constant <value_ints=[4]> ()
            i8 = Constant <value_ints=[8]> ()
            i1 = Constant <value_ints=[1]> ()
            p = Slice (a, i0, i4, i1)
            q = Slice (a, i4, i8, i1)
            y = Conv <pads=[1,1,1,1]> (p, w2)
            z = Conv <pads=[1,1,1,1]> (q, w3)
        }""")
    for name, shape in (("w1", (8, 8, 3, 3)), ("w2", (4, 4, 3, 3)), ("w3", (4, 4, 3, 3))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    path = tmp_path / "slices.onnx"
    path.write_bytes(model.SerializeToString())
    machine = cosma.Accelerator(scratchpad="8KiB", operands="stationary", weights="scratchpad")
    plan = cosma.compile(path, machine, effort=0.2)
    # One half of `a`, of 4 KiB, goes off-chip and comes back.
    assert (plan.traffic.noncompulsory, plan.certificate.status) == (2 * 4096, "optimal")
    assert len(plan.graph.parts_of("a")) == 2
    assert cosma.replay(plan, cosma.load_onnx(path).finest_graph, model=path).valid
