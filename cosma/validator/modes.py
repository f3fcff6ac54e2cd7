"""Whether the modes that a plan claims are ways in which its operators can run: the judge's own rules.

Written from what each kind of operator computes, on types, attributes and shapes of the model. What is required is
necessary: a factor or the result stays whole, a streamed map has the rows of its window, sums have room. Of a tile all
this is asked for what it touches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod

from cosma.accelerator import Accelerator, Weights
from cosma.graph import Graph, Mode, Operator, Part, Tensor
from cosma.graph.semantics import is_elementwise_part
from cosma.validator.verdicts import Verdict, Violation

_PRODUCTS = frozenset(
    {
        "Attention", "Conv", "ConvInteger", "ConvTranspose", "DynamicQuantizeMatMul", "FusedConv", "FusedGemm",
        "FusedMatMul", "GRU", "Gemm", "GroupQueryAttention", "LSTM", "MatMul", "MatMulInteger", "MatMulIntegerToFloat",
        "MatMulNBits", "MultiHeadAttention", "QGemm", "QLinearConv", "QLinearMatMul", "RNN",
    }
)  # fmt: skip
_POOLING = frozenset({"AveragePool", "LpPool", "MaxPool", "QLinearAveragePool"})
_ROWS = frozenset(
    {
        "ArgMax", "ArgMin", "CumSum", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "GroupNormalization",
        "Hardmax", "InstanceNormalization", "LayerNormalization", "LogSoftmax", "LpNormalization",
        "QLinearGlobalAveragePool", "QLinearSoftmax", "RMSNormalization",
        "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
        "ReduceSum", "ReduceSumSquare", "Resize", "SimplifiedLayerNormalization", "SkipLayerNormalization",
        "SkipSimplifiedLayerNormalization", "Softmax", "Upsample",
    }
)  # fmt: skip
_MOVES = frozenset(
    {
        "Concat", "DepthToSpace", "Expand", "Gather", "GatherND", "Pad", "QLinearConcat", "Slice", "SpaceToDepth",
        "Split", "Tile", "Transpose",
    }
)  # fmt: skip


def check_modes(graph: Graph, accelerator: Accelerator) -> list[Violation]:
    """Violations of modes that operators cannot run in; the graph is the plan's with the model's shapes."""
    passing = accelerator.weights == Weights.STREAM
    return [
        Violation(Verdict.MODE_FORBIDDEN, None, f"mode {mode.name!r} of operator {operator.name!r}: {why}")
        for operator in graph.operators
        for mode in operator.modes
        for why in _wrong(graph, operator, mode, passing)
    ]


def no_such_way(operator: Operator, streamed: set[str]) -> str | None:
    """Why an operator cannot stream some tensors together: in none of its modes it may; None where it can."""
    if not streamed or any(streamed <= set(mode.may_stream) for mode in operator.modes):
        return None
    ways = "; ".join(
        f"{mode.name} may stream {', '.join(map(repr, mode.may_stream)) or 'nothing'}" for mode in operator.modes
    )
    names = ", ".join(repr(name) for name in sorted(streamed))
    return f"{operator.name!r} streams {names}, but {ways or 'has no mode that streams anything'}"


def least_workspace(operator: Operator, streamed: set[str]) -> int:
    """Least workspace of the operator's modes that allow what is streamed; of all modes where none does."""
    sizes = [mode.workspace_bytes for mode in operator.modes if streamed <= set(mode.may_stream)]
    return min(sizes or [mode.workspace_bytes for mode in operator.modes], default=0)


def _wrong(graph: Graph, operator: Operator, mode: Mode, passing: bool) -> Iterator[str]:
    """What is wrong with a mode, if it streams anything."""
    streamed = set(mode.may_stream)
    foreign = sorted(streamed - {*operator.operands, *operator.outputs})
    if foreign:
        yield f"it streams {foreign[0]!r}, which the operator does not touch"
        return
    if not streamed:
        return
    joined = {tensor: name for name in operator.joined for tensor in graph.joins[name].tensors}
    read, written = _touched(graph, operator.operands, joined), _touched(graph, operator.outputs, {})
    if any(touched.tensor.shape is None for touched in (*read.values(), *written.values())):
        yield "shapes are not known"
        return
    streamed_roots = {_root(graph, name, joined if name in operator.operands else {}).name for name in streamed}
    main = [part for part in operator.parts if not is_elementwise_part(part)]
    result = next(iter(written.values()))
    sums: tuple[str, ...] = ()
    if operator.accumulation is not None:
        # Partial sums have no region, so each part of the result is one by itself; they are added element by element.
        sums = operator.accumulation.sums
        parts = written.values()
        result = _Touched(result.tensor, sum(p.elements for p in parts), sum(p.size_bytes for p in parts))
    full = {*sums, *(name for name, touched in read.items() if touched.elements == result.elements)}
    if not main:
        for name in sorted(streamed_roots - full - written.keys()):
            yield f"{name!r} has not the shape of the result, so it is no operand in lockstep"
        return
    kind = main[0].type
    if len(main) > 1 or not _may_stream(main[0]):
        yield f"{operator.type} streams nothing"
        return
    if kind in _MOVES:
        return
    weights = _touched(graph, operator.weights, {}).keys()
    data = next(iter(read.values()))
    factors = _factors(kind, [touched.tensor for name, touched in read.items() if name not in sums])
    # What is added behind a product is read before weights and may look like a kernel.
    factors.sort(key=lambda factor: factor.name not in weights and factor is not data.tensor)
    windows = kind in _PRODUCTS and not _is_depthwise(main[0], data.tensor)
    # What DynamicQuantizeMatMul quantises is read for its extremes first, and then again: that cannot pass.
    held = data.tensor if kind == "DynamicQuantizeMatMul" else None
    multiplied = {f.name for f in factors if f is not held} if windows else {data.tensor.name}
    if any(f.name in streamed_roots and f.name in weights for f in factors):
        # Scales of a weight that is dequantised pass by with it.
        dequantised = any(part.type == "DequantizeLinear" for part in operator.parts)
        multiplied |= weights if dequantised else set()
    for name in sorted(streamed_roots - full - written.keys() - multiplied):
        yield f"{name!r} is neither multiplied nor read in lockstep"
    passes = data.tensor.name in streamed_roots
    # What a tile reads can be less than the rows of a window.
    need = min(_rows(main[0], data.tensor, factors, result.tensor), data.size_bytes) if passes else 0
    if windows:
        gone = [f for f in factors if f.name in streamed_roots or (passing and f.name in weights)]
        if len(gone) == len(factors):
            if streamed_roots & written.keys():
                yield "neither a factor nor the result stays in the scratchpad"
                return
            need += 4 * result.elements if result.size_bytes <= result.elements and passes else 0
    yield from _in_two_orders(read.keys() - set(sums) if windows else set(), streamed_roots)
    yield from _unlike_its_name(mode, streamed_roots & {*written, *sums} if windows else set())
    if mode.workspace_bytes < need:
        yield f"it needs {need} bytes of workspace and has {mode.workspace_bytes}"


def _in_two_orders(read: set[str], streamed_roots: set[str]) -> Iterator[str]:
    """A product that reads one tensor alone has it for all its factors."""
    if len(read) == 1 and read <= streamed_roots:
        yield f"{min(read)!r} is more than one factor, and would have to pass in two orders at once"


def _unlike_its_name(mode: Mode, streamed_results: set[str]) -> Iterator[str]:
    if mode.name == "output-stationary" and streamed_results:
        yield "by its name the result stays in the scratchpad, which it streams"


@dataclass(frozen=True, slots=True)
class _Touched:
    """A tensor before it was cut, and how much of it an operator touches."""

    tensor: Tensor
    elements: int
    size_bytes: int


def _may_stream(part: Part) -> bool:
    """Whether an operator of a type streams at all; with channels last none does, for rows are counted behind them."""
    return part.type in _PRODUCTS | _POOLING | _ROWS | _MOVES and not part.attribute("channels_last")


def _root(graph: Graph, name: str, joined: Mapping[str, str]) -> Tensor:
    tensor = graph.tensors[name]
    if name in joined:
        return graph.roots[joined[name]]
    return tensor if tensor.region is None else graph.roots[tensor.region.root]


def _touched(graph: Graph, names: Iterable[str], joined: Mapping[str, str]) -> dict[str, _Touched]:
    """Tensors before they were cut, or that pieces make, in the order their first parts are named."""
    found: dict[str, _Touched] = {}
    for name in dict.fromkeys(names):
        part, root = graph.tensors[name], _root(graph, name, joined)
        shape = part.shape or ()
        if part.region is not None:
            shape = part.region.shape
        before = found.get(root.name, _Touched(root, 0, 0))
        found[root.name] = _Touched(root, before.elements + prod(shape), before.size_bytes + part.size_bytes)
    return found


def _factors(kind: str, read: list[Tensor]) -> list[Tensor]:
    """What a product multiplies: activations, then weights of more than one axis; parameters have fewer.

    A matrix product multiplies vectors too, as long as an axis of the other factor.
    """
    found = [t for t in read if len(t.shape or ()) > 1]
    if found and "MatMul" in kind:
        extents = set(found[0].shape or ())
        vectors = [t for t in read if len(t.shape or ()) == 1 and extents.issuperset(t.shape or ())]
        found += vectors[: max(0, 2 - len(found))]
    # A vector may be read as a matrix of one row.
    return found if read[0] in found else [read[0], *found]


def _is_depthwise(part: Part, data: Tensor) -> bool:
    shape, groups = data.shape or (), part.attribute("group")
    return "Conv" in part.type and len(shape) > 1 and isinstance(groups, int) and groups == shape[1] > 1


def _rows(part: Part, data: Tensor, factors: list[Tensor], result: Tensor) -> int:
    """Least bytes of the data that a row of the result depends on.

    Data that is read as a view has another shape here than where it is read; then the least of what it may be.
    """
    shape, made = data.shape or (), result.shape or ()
    if not shape or not prod(shape):
        return 0
    width = data.size_bytes // prod(shape)
    if "Conv" in part.type or part.type in _POOLING:
        if len(shape) < 3 or len(shape) != len(made) or shape[0] != made[0]:
            return width if len(shape) > 2 else 0
        if part.type in _POOLING and shape[1] != made[1]:
            return width
        row = width * prod(shape[1:]) // shape[2]
        kernel = part.attribute("kernel_shape")
        if not isinstance(kernel, tuple):
            shapes = (f.shape for f in factors if f is not data and f.shape is not None)
            kernel = next((found[2:] for found in shapes if len(found) == len(shape)), ())
        if not kernel:
            return row if part.type == "ConvTranspose" else 0
        gaps = part.attribute("dilations")
        gap = int(gaps[0]) if isinstance(gaps, tuple) else 1
        if part.type == "ConvTranspose":
            return row * _transposed_rows(part, int(kernel[0]), gap, shape[2], made[2])
        return row * _window_rows(part, int(kernel[0]), gap, shape[2], made[2])
    if part.type in _PRODUCTS:
        return 0
    if part.type in ("Resize", "Upsample"):
        return width
    if prod(shape) == prod(made) and not part.type.startswith("Reduce"):
        return width * min(shape[-1], made[-1])
    # Each element of the result is reduced from so many; a reduction may be along no axis.
    return width * max(1, prod(shape) // max(1, prod(made)))


def _window_rows(part: Part, kernel: int, gap: int, read: int, made: int) -> int:
    """Most rows of the data from the first to the last that the windows of one row of the result touch."""
    strides, pads, auto = part.attribute("strides"), part.attribute("pads"), part.attribute("auto_pad")
    stride = int(strides[0]) if isinstance(strides, tuple) else 1
    before = int(pads[0]) if isinstance(pads, tuple) else 0
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        lacking = max(0, (made - 1) * stride + (kernel - 1) * gap + 1 - read)
        before = lacking // 2 if auto == "SAME_UPPER" else -(-lacking // 2)
    # Windows that begin at the edge of the data, or one row of the result from it, touch most.
    edge = min(before // stride, made - 1)
    most = 0
    for row in range(max(0, edge - 1), min(made, edge + 3)):
        taps = [at for tap in range(kernel) if 0 <= (at := row * stride - before + tap * gap) < read]
        most = max(most, taps[-1] - taps[0] + 1 if taps else 0)
    return most


def _transposed_rows(part: Part, kernel: int, gap: int, read: int, made: int) -> int:
    """Most rows of the data that one in the middle of a transposed convolution's result is summed up over."""
    strides, pads = part.attribute("strides"), part.attribute("pads")
    if part.attribute("auto_pad") not in (None, "", "NOTSET") or part.attribute("output_shape") is not None:
        return 1  # where the result begins depends on more
    stride = int(strides[0]) if isinstance(strides, tuple) else 1
    first = int(pads[0]) if isinstance(pads, tuple) else 0
    middle = range(max(0, made // 2 - stride), min(made, made // 2 + stride))
    places = ([first + row - tap * gap for tap in range(kernel)] for row in middle)
    return max((sum(at % stride == 0 and 0 <= at // stride < read for at in row) for row in places), default=1)
