"""Random operators that reduce or normalise along axes."""

from __future__ import annotations

import numpy as np

from tests.access.case import OPSET, Case, Rng, integer, pick, scalar, values


def softmax(rng: Rng, kind: str) -> Case:
    rank = integer(rng, 2, 4)
    opset = pick(rng, 11, 17)
    axis = {} if rng.random() < 0.2 else {"axis": integer(rng, -rank, rank - 1)}
    return Case(kind, [values(rng, *(3, 4, 5, 2)[:rank])], axis, opset=opset)


def layer_norm(rng: Rng, kind: str) -> Case:
    shape = (3, 4, 5)
    axis = {} if rng.random() < 0.2 else {"axis": integer(rng, -3, 2)}
    inner = shape[axis.get("axis", -1) :] if axis.get("axis", -1) else shape
    offset = [values(rng, *inner)] if kind == "LayerNormalization" and rng.random() < 0.7 else []
    case = Case(kind, [values(rng, *shape), values(rng, *inner), *offset], axis)
    if kind == "RMSNormalization":
        case.opset, case.by_reference = 23, True
    if kind == "LayerNormalization" and rng.random() < 0.4:
        case.results = 3
    return case


def skip_norm(rng: Rng, kind: str) -> Case:
    shape = (2, 4, 8)
    skip = pick(rng, shape, shape, (1, 4, 8), (4, 8))
    more = [values(rng, 8) for _ in range(integer(rng, 0, 2 if kind == "SkipLayerNormalization" else 1))]
    operands = [values(rng, *shape), values(rng, *skip), values(rng, 8), *more]
    if rng.random() < 0.5:  # what was added up is a result, too
        return Case(kind, operands, domain="com.microsoft", results=4, absent=(1, 2))
    return Case(kind, operands, domain="com.microsoft")


def normalisation(rng: Rng, kind: str) -> Case:
    if kind == "LRN":
        return Case(kind, [values(rng, 2, 6, 4, 5)], {"size": 2 * integer(rng, 0, 2) + 1})
    if kind == "LpNormalization":
        return Case(kind, [values(rng, 3, 4, 5)], {"axis": integer(rng, -3, 2), "p": integer(rng, 1, 2)})
    if kind == "InstanceNormalization":
        return Case(kind, [values(rng, 2, 3, 4, pick(rng, 3, 4)), values(rng, 3), values(rng, 3)])
    if kind == "GroupNormalization":
        x = values(rng, 3, 4, 3, pick(rng, 4, 5))
        return Case(kind, [x, values(rng, 4), values(rng, 4)], {"num_groups": 2}, opset=21, by_reference=True)
    attributes = {"exclusive": integer(rng, 0, 1), "reverse": integer(rng, 0, 1)}
    return Case(kind, [values(rng, 3, 4), scalar(integer(rng, -2, 1), np.int64)], attributes, parameters=(1,))


def reduction(rng: Rng, kind: str) -> Case:
    keep = {"keepdims": integer(rng, 0, 1)} if rng.random() < 0.8 else {}
    x = np.abs(values(rng, 3, 4, 5)) + 0.1
    if kind.startswith("Arg"):
        return Case(kind, [x], {"axis": integer(rng, -3, 2), **keep, "select_last_index": integer(rng, 0, 1)})
    axes = [int(a) - 3 * integer(rng, 0, 1) for a in sorted(rng.choice(3, integer(rng, 1, 3), replace=False))]
    how = rng.random()
    by_operand = kind == "ReduceSum" or rng.random() < 0.5
    opset = 18 if by_operand and kind != "ReduceSum" else OPSET
    if how < 0.15:
        return Case(kind, [x], keep, opset=opset)
    if by_operand:
        if how < 0.3:
            noop = {"noop_with_empty_axes": 1} if rng.random() < 0.5 and kind in ("ReduceSum", "ReduceMax") else {}
            return Case(kind, [x, np.zeros(0, np.int64)], {**keep, **noop}, parameters=(1,), opset=opset)
        return Case(kind, [x, np.array(axes, np.int64)], keep, parameters=(1,), opset=opset)
    return Case(kind, [x], {"axes": axes, **keep})
