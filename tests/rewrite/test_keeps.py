"""No rewrite loses a field that it does not change: of the graph, of its tensors, of its operators, of their nodes."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import cosma
from cosma.accelerator.constraints import Constraints
from cosma.access.modes import with_modes
from cosma.access.operator import operator_access
from cosma.errors import InputError
from cosma.frontend import LoadedModel, load_onnx
from cosma.graph import Graph, Mode, Operator, Tensor, TensorKind
from cosma.problem.forced import forced_on
from cosma.rewrite import count_as, cut_selections, fuse, quantise
from cosma.rewrite.fuse import without_links
from cosma.rewrite.join import join_copies
from cosma.rewrite.lineage import Lineage, Rewritten
from cosma.rewrite.state import with_states
from cosma.rewrite.tile import tile
from cosma.rewrite.tile_modes import with_tile_modes
from cosma.rewrite.tiling import Tiling, even_cuts
from tests.onnx_files import save_network
from tests.zero_copy.models import random_model

SEEDS = range(12)


def same_nodes(graph: Graph) -> Rewritten:
    return Rewritten(graph, Lineage.identity(graph))


def cut(loaded: LoadedModel, graph: Graph) -> Rewritten:
    """Cut what can be cut in two along its first axes, but for what a join consists of."""
    pieces = {name for join in graph.joins.values() for name in join.tensors}
    cuts = {}
    for operator in graph.operators:
        access = operator_access(graph, loaded.sites, operator)
        shape = access.shapes.get(access.result)
        if shape is not None and not pieces.intersection((*operator.inputs, *operator.outputs)):
            cuts[operator.name] = tuple(
                even_cuts(size, 2) if ok else () for size, ok in zip(shape, access.cuts(), strict=True)
            )
    try:
        return tile(graph, loaded.sites, Tiling(cuts))
    except InputError as error:
        if "nothing writes" not in str(error):
            raise
        return same_nodes(graph)  # a neighbour of an operator that is cut would cut a piece


def back_to_front(graph: Graph) -> Rewritten:
    """Run the last operator that needs no other one's result before the first one, where there are two of them."""
    free = [o.name for o in graph.operators if not graph.predecessors(o.name)]
    pair = [(free[-1], free[0])] if len(free) > 1 else []
    machine = cosma.Accelerator(scratchpad=1 << 20, constraints=Constraints(before=pair))
    forced = forced_on(graph, machine)
    assert not forced.conflict
    return same_nodes(forced.graph)


def states_of(graph: Graph) -> dict[str, str]:
    """The first output that may be the next value of the first input."""
    (before, *_), (after, *_) = graph.of_kind(TensorKind.INPUT), graph.of_kind(TensorKind.OUTPUT)
    return {after.name: before.name} if after.size_bytes >= before.size_bytes else {}


@dataclass(frozen=True)
class Rewrite:
    """A rewrite and the fields that it may change, of tensors and of operators that keep their names."""

    make: Callable[[LoadedModel, Graph], Rewritten]
    tensor: frozenset[str] = frozenset()
    operator: frozenset[str] = frozenset()


FUSED = frozenset({"type", "domain", "attributes", "fused", "weights", "covers", "macs", "modes"})
OPERANDS = frozenset({"inputs", "outputs", "reads", "joined"})

REWRITES: dict[str, Rewrite] = {
    "replace": Rewrite(lambda _, g: same_nodes(g.replace())),
    "dtype": Rewrite(lambda _, g: count_as(g, "float16"), frozenset({"dtype", "size_bytes"})),
    "fuse": Rewrite(lambda _, g: fuse(g), operator=FUSED | OPERANDS),
    "without links": Rewrite(
        lambda _, g: same_nodes(without_links(g)), frozenset({"size_bytes"}), frozenset({"inputs", "weights"})
    ),
    "cut selections": Rewrite(lambda _, g: cut_selections(g, least_unread=0), operator=OPERANDS | {"modes"}),
    "join copies": Rewrite(
        lambda m, g: join_copies(g, m.sites), frozenset({"kind", "state"}), OPERANDS | {"modes"}
    ),
    "tile": Rewrite(cut, operator=OPERANDS | {"weights", "modes"}),
    "modes": Rewrite(
        lambda m, g: same_nodes(with_modes(g, m.sites, keep_weights=True)), operator=frozenset({"modes"})
    ),
    "modes of tiles": Rewrite(
        lambda m, g: same_nodes(with_tile_modes(g, with_modes(g, m.sites, keep_weights=True))),
        operator=frozenset({"modes"}),
    ),
    "states": Rewrite(lambda _, g: same_nodes(with_states(g, states_of(g))), frozenset({"state"})),
    "constraints": Rewrite(lambda _, g: back_to_front(g)),
}  # fmt: skip

#: What is rewritten: the network as it is, and as other rewrites leave it.
BEFORE: dict[str, Callable[[LoadedModel], Graph]] = {
    "nodes": lambda m: m.graph,
    "moded": lambda m: with_modes(m.graph, m.sites, keep_weights=True),
    "stated": lambda m: with_states(m.graph, states_of(m.graph)),
    "joined": lambda m: join_copies(m.graph, m.sites).graph,
    "parts": lambda m: cut_selections(m.graph, least_unread=0).graph,
}


def check(rewritten: Rewritten, before: Graph, rewrite: Rewrite) -> None:
    after = rewritten.graph
    assert after.name == before.name
    for field in set(inspect.signature(Graph).parameters) - {"name", "tensors", "operators"}:
        kept, there = getattr(before, field), getattr(after, field)
        assert kept.keys() <= there.keys(), f"{field} are lost"
        for name, value in kept.items():
            changed = {f.name for f in fields(value) if getattr(value, f.name) != getattr(there[name], f.name)}
            assert changed <= rewrite.tensor, (field, name, changed)
    for name, tensor in after.tensors.items():
        if name in before.tensors:
            old = before.tensors[name]
            changed = {f.name for f in fields(Tensor) if getattr(tensor, f.name) != getattr(old, f.name)}
            assert changed <= rewrite.tensor, (name, changed)
    old_operators = {o.name: o for o in before.operators}
    for operator in after.operators:
        source = [old_operators[name] for name in rewritten.lineage.operators[operator.name]]
        # The nodes that an operator stands for, with their attributes.
        assert operator.parts == tuple(part for o in source for part in o.parts), operator.name
        if operator.name in old_operators:
            old = old_operators[operator.name]
            changed = {f.name for f in fields(Operator) if getattr(operator, f.name) != getattr(old, f.name)}
            assert changed <= rewrite.operator, (operator.name, changed)
            if len(source) == 1 and set(old.operands) == set(operator.operands) and old.outputs == operator.outputs:
                lost = {f for f in changed if getattr(old, f) and not getattr(operator, f)}
                assert not lost, (operator.name, lost)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> list[LoadedModel]:
    folder = tmp_path_factory.mktemp("keeps")
    made = [random_model(folder, seed, views=seed % 2 == 1) for seed in SEEDS]
    return [load_onnx(found[0]) for found in made if found is not None]


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("rewrite", REWRITES)
def test_rewrites_keep_what_they_do_not_change(networks: list[LoadedModel], rewrite: str, before: str) -> None:
    changed = 0
    for network in networks:
        graph = BEFORE[before](network)
        made = REWRITES[rewrite].make(network, graph)
        check(made, graph, REWRITES[rewrite])
        changed += made.graph != graph
    # What is cut or joined already is left alone.
    assert changed or rewrite == "replace" or (rewrite, before) in {
        ("states", "stated"), ("modes", "moded"), ("modes of tiles", "moded"), ("join copies", "joined"),
        ("cut selections", "parts"), ("tile", "joined"), ("tile", "parts"),
    }  # fmt: skip


def test_what_quantised_groups_stand_for_keeps_its_attributes(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "s"], ["xf"]),
        helper.make_node("MaxPool", ["xf"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("LeakyRelu", ["p"], ["r"], name="relu", alpha=0.25),
        helper.make_node("QuantizeLinear", ["r", "s"], ["q"]),
        helper.make_node("Transpose", ["q"], ["y"], name="turn", perm=[0, 2, 3, 1]),
    ]
    inputs, outputs = {"x": [1, 4, 8, 8]}, {"y": [1, 4, 4, 4]}
    scale = {"s": np.array(0.5, np.float32)}
    path = save_network(tmp_path / "net.onnx", nodes, inputs, scale, outputs, element=TensorProto.UINT8)
    nodes_alone = load_onnx(path).finest_graph
    before = nodes_alone.replace(operators=(replace(o, macs=7) for o in nodes_alone.operators))
    after = quantise(before).graph
    group = next(o for o in after.operators if len(o.parts) > 1)
    assert [(p.type, p.attribute("kernel_shape"), p.attribute("alpha")) for p in group.parts] == [
        ("DequantizeLinear", None, None), ("MaxPool", (2, 2), None), ("LeakyRelu", None, 0.25),
        ("QuantizeLinear", None, None),
    ]  # fmt: skip
    assert group.macs == 7
    turned = next(o for o in after.operators if o.type == "Transpose")
    assert turned == next(o for o in before.operators if o.type == "Transpose")


def test_fused_operators_stream_what_their_parts_do() -> None:
    """The result passes only where the tensor between the two may pass in both; rooms add up."""
    def fused(head: Mapping[str, tuple[tuple[str, ...], int]], follower: Mapping[str, tuple[tuple[str, ...], int]]):
        tensors = [Tensor(n, 8, k) for n, k in (("x", "input"), ("e", "input"), ("a", "intermediate"), ("y", "output"))]
        modes = [tuple(Mode(name, *rest) for name, rest in given.items()) for given in (head, follower)]
        graph = Graph(
            tensors, [Operator("m", "MatMul", ["x"], ["a"], modes=modes[0]),
                      Operator("p", "Add", ["a", "e"], ["y"], modes=modes[1])]
        )  # fmt: skip
        (operator,) = fuse(graph).graph.operators
        return {mode.name: (set(mode.may_stream), mode.workspace_bytes) for mode in operator.modes}

    lockstep = {"lockstep": (("a", "e", "y"), 1)}
    assert fused({"rows": (("x", "a"), 4)}, lockstep) == {"rows": ({"x", "e", "y"}, 5)}
    assert fused({"sums": (("x",), 4)}, lockstep) == {"sums": ({"x", "e"}, 5)}
    assert fused({"rows": (("x", "a"), 4)}, {"late": (("y",), 0)}) == {"rows": ({"x"}, 4)}
    assert fused({"rows": (("x", "a"), 4)}, {}) == {"rows": ({"x"}, 4)}
    assert fused({}, {}) == {}


def test_every_part_of_a_graph_can_be_replaced() -> None:
    given = set(inspect.signature(Graph).parameters) - {"name"}
    assert set(inspect.signature(Graph.replace).parameters) - {"self"} == given


def test_only_what_reads_a_network_makes_graphs_by_hand() -> None:
    """All else goes by ``Graph.replace``."""
    root = Path(cosma.__file__).parent
    found = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Graph"
    }
    readers = {"export/tflite.py", "frontend/assemble.py", "graph/json_format.py", "plan/file.py"}
    # The whole network again in place of its parts: there roots and joins are tensors.
    assert found - {"compiler/tilings.py"} == readers | {"graph/graph.py", "validator/parts.py"}
