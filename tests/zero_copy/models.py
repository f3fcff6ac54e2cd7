"""Small ONNX models with Concat, Split, Slice and Gather, fixed ones and random ones."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper

import cosma
from cosma.plan.file import plan_from_json, plan_to_json
from tests.onnx_files import save_network

Shape = list[int]


def save(
    folder: Path, name: str, nodes: Sequence[NodeProto], inputs: dict[str, Shape], outputs: dict[str, Shape],
    constants: dict[str, Sequence[int]] | None = None,
) -> Path:  # fmt: skip
    """Write a model of float32 tensors; constants are vectors of int64."""
    weights = {n: np.array(v, np.int64) for n, v in (constants or {}).items()}
    path = save_network(folder / f"{name}.onnx", nodes, inputs, weights, outputs)
    onnx.checker.check_model(onnx.load(path))
    return path


def dense_block(folder: Path) -> Path:
    """A dense block: every layer reads all before it, and their Concat is the output too."""
    nodes, joined = [helper.make_node("Relu", ["x"], ["a0"])], ["a0"]
    for i in range(4):
        if i:
            nodes.append(helper.make_node("Concat", joined, [f"c{i}"], axis=1))
        else:
            nodes.append(helper.make_node("Exp", ["a0"], ["c0"]))
        nodes += [
            helper.make_node("ReduceMean", [f"c{i}"], [f"m{i}"], axes=[1], keepdims=1),
            helper.make_node("Tanh", [f"m{i}"], [f"a{i + 1}"]),
        ]
        joined = [*joined, f"a{i + 1}"]
    nodes.append(helper.make_node("Concat", joined, ["y"], axis=1))
    return save(folder, "dense", nodes, {"x": [1, 4, 8, 8]}, {"y": [1, 8, 8, 8]})


def shuffle(folder: Path) -> Path:
    """Split, work on two of three, joined in another order, a Slice of that, and a reader of all."""
    nodes = [
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("Split", ["e", "sizes"], ["p", "q", "r"], axis=1),
        helper.make_node("Relu", ["p"], ["pp"]),
        helper.make_node("Tanh", ["q"], ["qq"]),
        helper.make_node("Concat", ["qq", "r", "pp"], ["z"], axis=1),
        helper.make_node("Slice", ["z", "start", "end", "axis"], ["w"]),
        helper.make_node("Abs", ["w"], ["y"]),
        helper.make_node("Softmax", ["z"], ["v"], axis=1),
    ]
    constants = {"sizes": [2, 2, 2], "start": [1], "end": [5], "axis": [1]}
    return save(folder, "shuffle", nodes, {"x": [1, 6, 8, 8]}, {"y": [1, 4, 8, 8], "v": [1, 6, 8, 8]}, constants)


def random_model(folder: Path, seed: int, *, views: bool = False) -> tuple[Path, int] | None:
    """A random model and the bytes of all its tensors; None where the seed gives no legal one.

    With views, axes of size one come and go.
    """
    rng = random.Random(seed)
    shapes: dict[str, Shape] = {"x": [1, 4, 4, 4]}
    nodes: list[NodeProto] = []
    constants: dict[str, Sequence[int]] = {}

    def new(shape: Shape) -> str:
        name = f"t{len(shapes)}"
        shapes[name] = list(shape)
        return name

    def constant(values: Sequence[int]) -> str:
        name = f"k{len(constants)}"
        constants[name] = values
        return name

    for _ in range(rng.randint(5, 10)):
        kinds = ["one", "one", "two", "concat", "concat", "split", "slice", "gather"]
        kind = rng.choice([*kinds, "view", "view", "view"] if views else kinds)
        name = rng.choice(list(shapes))
        shape = shapes[name]
        axis = rng.randrange(len(shape)) if views else rng.choice([1, 1, 2, 3])
        if kind == "view":
            ones = [i for i, size in enumerate(shape) if size == 1]
            if ones and len(shape) > 2 and rng.random() < 0.6:
                gone = rng.choice(ones)
                result = new([*shape[:gone], *shape[gone + 1 :]])
                nodes.append(helper.make_node("Squeeze", [name, constant([gone])], [result]))
            elif len(shape) < 5:
                at = rng.randint(0, len(shape))
                result = new([*shape[:at], 1, *shape[at:]])
                nodes.append(helper.make_node("Unsqueeze", [name, constant([at])], [result]))
        elif kind == "one":
            nodes.append(helper.make_node(rng.choice(["Relu", "Tanh", "Abs", "Softmax"]), [name], [new(shape)]))
        elif kind == "two":
            other = rng.choice([n for n, s in shapes.items() if s == shape])
            nodes.append(helper.make_node("Add", [name, other], [new(shape)]))
        elif kind == "concat":
            fit = [n for n, s in shapes.items() if [*s[:axis], *s[axis + 1 :]] == [*shape[:axis], *shape[axis + 1 :]]]
            fit = [n for n in fit if len(shapes[n]) == len(shape)]
            chosen = rng.sample(fit, min(len(fit), rng.randint(2, 3)))
            total = sum(shapes[n][axis] for n in chosen)
            if len(chosen) > 1 and total <= 24:
                nodes.append(
                    helper.make_node("Concat", chosen, [new([*shape[:axis], total, *shape[axis + 1 :]])], axis=axis)
                )
        elif kind == "split" and shape[axis] > 1:
            first = rng.randint(1, shape[axis] - 1)
            sizes = [first, shape[axis] - first]
            results = [new([*shape[:axis], size, *shape[axis + 1 :]]) for size in sizes]
            nodes.append(helper.make_node("Split", [name, constant(sizes)], results, axis=axis))
        elif kind in ("slice", "gather"):
            start = rng.randint(0, shape[axis] - 1)
            stop = rng.randint(start + 1, shape[axis])
            result = new([*shape[:axis], stop - start, *shape[axis + 1 :]])
            if kind == "slice":
                backwards = stop - start == shape[axis] and rng.random() < 0.2
                spans = ([-1], [-99], [axis], [-1]) if backwards else ([start], [stop], [axis], [1])
                nodes.append(helper.make_node("Slice", [name, *map(constant, spans)], [result]))
            else:
                rows = list(range(start, stop))
                if rng.random() < 0.3:
                    rng.shuffle(rows)
                nodes.append(helper.make_node("Gather", [name, constant(rows)], [result], axis=axis))
    read = {name for node in nodes for name in node.input}
    outputs = [name for name in shapes if name not in read and name != "x"]
    inside = [name for name in shapes if name in read and name != "x"]
    if inside and rng.random() < 0.4:
        outputs.append(rng.choice(inside))
    if not outputs or "x" not in read:
        return None
    path = save(folder, f"random{seed}", nodes, {"x": shapes["x"]}, {n: shapes[n] for n in outputs}, constants)
    return path, sum(4 * int(np.prod(shape)) for shape in shapes.values())


def verdicts(record: dict[str, Any], model: Path) -> set[str]:
    """What is wrong with a plan by its model's file as well as by its model's graph."""
    plan = plan_from_json(json.dumps(record))
    graph = cosma.load_onnx(model).graph
    with_file = {str(v.verdict) for v in cosma.replay(plan, graph, model=model).violations}
    with_graph = {str(v.verdict) for v in cosma.replay(plan, graph).violations}
    return with_file & with_graph


def record_of(plan: cosma.Plan) -> dict[str, Any]:
    """A plan as JSON, without what it claims."""
    record: dict[str, Any] = json.loads(plan_to_json(plan))
    for claim in ("traffic", "peak", "certificate"):
        del record[claim]
    return record
