"""Modes under ``operands = stationary``: which operands and results of an operator may be streamed together.

One table says the class of an operator by its type; the class says the modes:

- *elementwise*: operands of full shape and the result, in lockstep;
- *window*: the map and the result row by row, with the rows of one window as workspace;
- *row-wise*: the same where one row of the result depends on one row of the operand;
- *contraction*: all but one of activation, second operand or weight, and result; the one that stays is whole in the
  scratchpad. A streamed map takes the rows of its window; a result that stays while both others are streamed takes
  accumulators;
- *movement*: what is moved and where to;
- all else: nothing.

Elementwise operators that were fused behind another one run in lockstep with its result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Final

from cosma.access.boxes import Box, element_count, whole
from cosma.access.elementwise import Elementwise
from cosma.access.operator import operator_access
from cosma.access.site import Argument, Barrier, NodeSite, Site
from cosma.access.table import access_of
from cosma.graph import Graph, Operator
from cosma.graph.mode import RESIDENT, Mode

#: Bytes of an accumulator for results whose elements have one byte, as integer kernels keep them.
ACCUMULATOR_BYTES = 4
#: The mode of a contraction whose workspace holds sums, beside the rows of a window.
OUTPUT_STATIONARY = "output-stationary"
#: Rows of the result at the least that are looked at for the rows of a window: most scales repeat within so many.
_ROWS_LOOKED_AT = 8


@dataclass(frozen=True, slots=True)
class Contraction:
    """Positions of the operands that a contraction multiplies; all others are parameters and stay."""

    #: The first factor, and the second: another activation, or weights.
    activation: tuple[int, ...] = (0,)
    second: tuple[int, ...] = (1,)
    #: Whether the first has to stay: it is gone through twice.
    first_stays: bool = False


@dataclass(frozen=True, slots=True)
class Movement:
    """Positions of the operands that are moved; None: all."""

    moved: tuple[int, ...] | None = (0,)


class Window:
    """Rows of a map, a window of them for each row of the result; the map is the first operand."""


class Rows:
    """Rows of the first operand, one for each row of the result."""


Class = Contraction | Movement | Window | Rows

_PRODUCT = Contraction()
_QUANTISED = Contraction(second=(3,))

#: Class of an operator by its type. Elementwise operators are those of the in-place table; all else stays resident.
CLASSES: Final[dict[str, Class]] = {
    **dict.fromkeys(("Conv", "FusedConv", "ConvInteger", "ConvTranspose"), _PRODUCT),
    **dict.fromkeys(("MatMul", "MatMulInteger", "FusedMatMul", "Gemm", "FusedGemm", "MatMulNBits"), _PRODUCT),
    "MatMulIntegerToFloat": _PRODUCT,
    "DynamicQuantizeMatMul": Contraction(first_stays=True),
    **dict.fromkeys(("QLinearConv", "QLinearMatMul", "QGemm"), _QUANTISED),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), Contraction(second=(1, 2))),
    **dict.fromkeys(("MultiHeadAttention", "GroupQueryAttention"), Contraction(second=(1, 2))),
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool", "QLinearAveragePool", "Resize", "Upsample"), Window()),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "QLinearGlobalAveragePool"), Rows()),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "QLinearSoftmax"), Rows()),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), Rows()),
    **dict.fromkeys(("SimplifiedLayerNormalization", "SkipLayerNormalization"), Rows()),
    **dict.fromkeys(("SkipSimplifiedLayerNormalization", "LpNormalization", "InstanceNormalization"), Rows()),
    **dict.fromkeys(("GroupNormalization", "CumSum", "ArgMax", "ArgMin"), Rows()),
    **{
        f"Reduce{kind}": Rows()
        for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
    },
    **dict.fromkeys(("Transpose", "Split", "Slice", "Gather", "GatherND", "Pad", "Tile", "Expand"), Movement()),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), Movement()),
    "Concat": Movement(None),
    "QLinearConcat": Movement(None),
}


def with_modes(graph: Graph, sites: Mapping[str, NodeSite], *, keep_weights: bool) -> Graph:
    """Give every operator of a graph of the model, fused or not, its modes; one that has modes of its own keeps them.

    Sites are the nodes of the model by first result, as :class:`cosma.frontend.LoadedModel` has them; an operator whose
    nodes are not among them, or whose shapes are not known, stays resident. ``keep_weights`` says whether weights are
    tensors of the scratchpad. Otherwise each passes by itself whenever its operator runs, and cannot be what stays.
    """
    operators = [o if o.modes else replace(o, modes=modes_of(graph, sites, o, keep_weights)) for o in graph.operators]
    return graph.replace(operators=operators)


def modes_of(
    graph: Graph, sites: Mapping[str, NodeSite], operator: Operator, keep_weights: bool
) -> tuple[Mode, ...]:
    """Modes of one operator, the resident one first; none that allows nothing another does not for less room."""
    access = operator_access(graph, sites, operator)
    if not access.chain:
        return (RESIDENT,)
    nodes = [n for n in access.chain if not isinstance(access_of(n.site), Elementwise) or _class_of(n.site) is not None]
    if len(nodes) > 1 or any(_class_of(node.site) is None for node in nodes):
        return (RESIDENT,)
    view = _View(graph, operator, access.chain, nodes[0] if nodes else None, keep_weights)
    return undominated([RESIDENT, *view.modes()])


def undominated(modes: Iterable[Mode]) -> tuple[Mode, ...]:
    """Leave out modes that another covers: at least as much may stream, and no more workspace is needed."""
    given = tuple(modes)
    return tuple(
        mode for i, mode in enumerate(given)
        if not any(
            other.allows(mode.may_stream) and other.workspace_bytes <= mode.workspace_bytes
            and (j < i or not (mode.allows(other.may_stream) and mode.workspace_bytes <= other.workspace_bytes))
            for j, other in enumerate(given) if j != i
        )
    )  # fmt: skip


def _class_of(site: Site) -> Class | None:
    part = site.part
    if part.domain not in ("", "com.microsoft") or site.integer("channels_last", 0):
        return None  # windows are counted in rows behind channels
    if part.type == "Attention":
        return _PRODUCT if part.domain else Contraction(second=(1, 2))
    found = CLASSES.get(part.type)
    first = site.shape(0)
    if "Conv" in part.type and found is not None and first is not None and site.integer("group", 1) == first[1] > 1:
        return Window()  # depthwise
    return found


@dataclass(slots=True)
class _View:
    """An operator as its class sees it: one node that is not elementwise, or none, and elementwise ones around it."""

    graph: Graph
    operator: Operator
    chain: tuple[NodeSite, ...]
    anchor: NodeSite | None
    keep_weights: bool

    def modes(self) -> list[Mode]:
        """Modes beside the resident one; some may allow nothing."""
        lockstep = self._lockstep()
        if self.anchor is None:
            return [self._mode("lockstep", [*lockstep, *self.operator.outputs], 0, frozenset())]
        kind = _class_of(self.anchor.site)
        if isinstance(kind, Contraction):
            return self._contraction(kind, lockstep)
        results = self.operator.outputs
        if isinstance(kind, Movement):
            moved = self._group(range(len(self.anchor.operands)) if kind.moved is None else kind.moved)
            return [self._mode("movement", [*moved, *lockstep, *results], 0, self._parameters(moved))]
        full = self._row_operands() if isinstance(kind, Rows) else self._group((0,))
        rows = self._rows_bytes(one_row=isinstance(kind, Rows))
        if rows is None:
            return []
        own = self._parameters(full)
        return [
            self._mode("rows", [*full, *lockstep, *results], rows, own),
            self._mode("rows-out", [*lockstep, *results], 0, own | full.keys()),
        ]

    def _contraction(self, kind: Contraction, lockstep: list[str]) -> list[Mode]:
        first, second = self._group(kind.activation), self._group(kind.second)
        own = self._parameters({**first, **second})
        rows = self._rows_bytes(one_row=False) if self._has_windows() else 0
        if not first or not second or rows is None:
            return []
        streamed = set() if self.keep_weights else set(self.operator.weights)
        results = self.operator.outputs
        found = []
        if not streamed & first.keys():
            found.append(self._mode("input-stationary", [*second, *lockstep, *results], 0, own | first.keys()))
        if kind.first_stays:
            return found
        if not streamed & second.keys():
            found.append(self._mode("weight-stationary", [*first, *lockstep, *results], rows, own | second.keys()))
        room = rows + self._accumulator_bytes()
        # A tensor that is both factors would have to pass in two orders at once.
        both = first.keys() & second.keys()
        found.append(self._mode(OUTPUT_STATIONARY, [*first, *second, *lockstep], room, own | set(results) | both))
        return found

    def _mode(self, name: str, streamed: Iterable[str], workspace_bytes: int, staying: Iterable[str]) -> Mode:
        kept = set(staying) | (set() if self.keep_weights else set(self.operator.weights))
        return Mode(name, [t for t in dict.fromkeys(streamed) if t not in kept], workspace_bytes)

    def _has_windows(self) -> bool:
        assert self.anchor is not None
        return "Conv" in self.anchor.site.part.type

    # -- tensors behind operands --------------------------------------------------------------------------

    def _tensors(self, argument: Argument | None) -> dict[str, None]:
        """Tensors of the graph that an operand is read from, through nodes that dequantise it."""
        if argument is None:
            return {}
        if argument.constant:
            return dict.fromkeys(name for name in argument.stored if name in self.operator.weights)
        if argument.value in self.operator.inputs:
            return {argument.value: None}
        inner = next((n for n in self.chain if argument.value in n.results), None)
        return {} if inner is None or inner is self.anchor or not inner.operands else self._tensors(inner.operands[0])

    def _group(self, positions: Iterable[int]) -> dict[str, None]:
        assert self.anchor is not None
        operands = self.anchor.operands
        return {t: None for i in positions if i < len(operands) for t in self._tensors(operands[i])}

    def _row_operands(self) -> dict[str, None]:
        """Operands of a row-wise operator of the first one's shape, as a skip connection is."""
        assert self.anchor is not None
        first = self.anchor.site.shape(0)
        return self._group(i for i, a in enumerate(self.anchor.operands) if a is not None and a.shape == first)

    def _parameters(self, group: Mapping[str, None]) -> set[str]:
        """Operands that the anchor reads in any other way than as one of a group; they stay."""
        assert self.anchor is not None
        count = len(self.anchor.operands)
        return {t for i in range(count) for t in self._group((i,)) if t not in group}

    def _lockstep(self) -> list[str]:
        """Operands that elementwise nodes read element by element, and in no other way."""
        shape = self.chain[-1].site.results[0]
        found: dict[str, None] = {}
        other: set[str] = set()
        inside = {name for node in self.chain for name in node.results}
        for node in self.chain:
            if node is self.anchor:
                other.update(t for a in node.operands for t in self._tensors(a))
                continue
            if node.site.results[0] != shape and self.anchor is not None:
                continue  # it dequantises an operand of the anchor
            for argument in node.operands:
                if argument is None or (not argument.constant and argument.value in inside):
                    continue
                full = argument.shape == shape and all(
                    self.graph.tensors[t].shape is not None and prod(self.graph.tensors[t].shape or ()) == prod(shape)
                    for t in self._tensors(argument)
                )
                (found.update if full else other.update)(self._tensors(argument))
        return [t for t in found if t not in other]

    # -- room ---------------------------------------------------------------------------------------------

    def _element_bytes(self, position: int) -> int | None:
        """Bytes of one element of an operand of the anchor, rounded up; None where it is not known."""
        assert self.anchor is not None
        shape = self.anchor.site.shape(position)
        sizes = [self.graph.tensors[t].size_bytes for t in self._group((position,))]
        if shape is None or not sizes or not prod(shape):
            return None
        return -(-sum(sizes) // prod(shape))

    def _rows_bytes(self, *, one_row: bool) -> int | None:
        """Most bytes of the first operand that one row of the result depends on; None where it is not known."""
        assert self.anchor is not None
        site = self.anchor.site
        rule, width, operand = access_of(site), self._element_bytes(0), site.shape(0)
        if isinstance(rule, Barrier) or width is None or operand is None or not site.results:
            return None
        shape = site.result
        cuts = rule.cuts(site)
        along = 0 if one_row else min(2, len(shape) - 1)
        most = 0
        for row in _rows_looked_at(site, shape[along]) if shape and not one_row else (0,):
            read = rule.reads(site, _row_box(shape, cuts, along, row, one_row=one_row))[0]
            if read is None:
                return None
            if one_row and not _is_row(read, operand):
                return None
            # Of a map, whole rows are held, with what lies beside the windows.
            wide = read if one_row else tuple(
                span if axis in (0, along) else (0, size)
                for axis, (span, size) in enumerate(zip(read, operand, strict=True))
            )
            most = max(most, element_count(wide))
        # Where all axes reduced have one index, elements pass in rows of the last axis.
        return (operand[-1] if one_row and most == 1 and operand else most) * width

    def _accumulator_bytes(self) -> int:
        """Room for sums where a result is summed up over operands that pass by in turn."""
        assert self.anchor is not None
        name = self.operator.outputs[0]
        elements = prod(self.anchor.site.result)
        return ACCUMULATOR_BYTES * elements if self.graph.tensors[name].size_bytes <= elements else 0


def _row_box(shape: tuple[int, ...], cuts: tuple[bool, ...], along: int, row: int, *, one_row: bool) -> Box:
    """One row of a result: a single index along every axis that can be cut, or, of a map, along one axis and batch."""
    if one_row:
        return tuple((0, 1) if cut else (0, size) for size, cut in zip(shape, cuts, strict=True))
    box = list(whole(shape))
    if along and box:
        box[0] = (0, 1)
    if box:
        box[along] = (row, row + 1)
    return tuple(box)


def _is_row(box: Box, shape: tuple[int, ...]) -> bool:
    """Whether a box is one stretch of inner axes: single indices of outer axes, all of the inner ones."""
    inner = False
    for (start, stop), size in zip(box, shape, strict=True):
        if inner and stop - start != size:
            return False
        inner = inner or stop - start > 1
        if inner and stop - start != size:
            return False
    return True


def _rows_looked_at(site: Site, extent: int) -> list[int]:
    """Rows of the result of which one reads most: some in the middle, and some whose windows begin where the data does.

    Of the latter one reads most where padding cuts off all windows, or lies on one side alone.
    """
    stride, before = next(iter(site.integers("strides", ())), 1), next(iter(site.integers("pads", ())), 0)
    # The rows of a transposed convolution that a row reads repeat with the stride.
    count = max(_ROWS_LOOKED_AT, stride)
    centres = (extent // 2, min(before // stride, extent - 1))
    begins = (centre - count // 2 for centre in centres)
    return sorted({row for begin in begins for row in range(begin, begin + count) if 0 <= row < extent})
