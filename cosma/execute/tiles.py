"""Tiles computed: the nodes of an operator on regions of their operands, with the kernels of the whole operator."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cosma.access.boxes import Box, box_shape, element_count, moved, region_of_result, slices, through_reshape, whole
from cosma.access.operator import NodeRegion, OperatorAccess, SumStep, operator_access
from cosma.access.table import access_of
from cosma.errors import InputError, PlanInvalidError
from cosma.execute.elements import numpy_dtype, size_bytes, to_array
from cosma.execute.kernels import KernelError, describe
from cosma.execute.memory import POISON
from cosma.execute.model import parts_of
from cosma.execute.plain import Operands
from cosma.execute.rows import table_of_rows
from cosma.frontend.nodes import Node
from cosma.frontend.parameters import type_only_positions
from cosma.frontend.values import Value
from cosma.graph import Region
from cosma.plan.tiles import untiled_operators

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cosma.access.site import TileNode
    from cosma.arrays import Array, Bytes
    from cosma.execute.constants import Constants
    from cosma.execute.kernels import Kernels, TakenOver
    from cosma.execute.model import Model
    from cosma.execute.parts import Cuts
    from cosma.frontend.records import Step
    from cosma.graph import Operator
    from cosma.plan import Plan
    #: Region of a tensor, and its content.
    Held = tuple[Box, Array]


@dataclass(frozen=True, slots=True)
class _Variant:
    """A node as it computes regions of one shape, its name in the model, and the results it then has."""

    name: str
    node: Node
    results: tuple[Value, ...]


class Tiles:
    """Computes tiles of a plan's operators.

    Tiles that differ in place alone share a kernel. What no kernel computes from slices is computed by the whole node,
    on operands that are poison wherever the tile does not read them.

    Parameters
    ----------
    make_kernels
        Makes the kernels for the variants of nodes.
    """

    def __init__(
        self, plan: Plan, constants: Constants, cuts: Cuts, make_kernels: Callable[[Model], Kernels]
    ) -> None:
        model = constants.model
        self._constants, self._cuts = constants, cuts
        self._step_of = {step.node.first_output: step for step in model.steps}
        self._name_of = {id(node): name for name, node in model.loaded.sites.items()}
        self._operators = untiled_operators(plan.graph)
        self._access: dict[str, OperatorAccess] = {}
        self._variants: dict[tuple[object, ...], _Variant] = {}
        # Operands of variants have names of their own, and results whatever shape the kernel gives them.
        self._own_values: dict[str, Value] = {}
        self.kernels = make_kernels(replace(model, values=self._own_values, is_bounded=True, actual={}))

    @property
    def taken_over(self) -> tuple[TakenOver, ...]:
        """Nodes that other kernels than the preferred ones have run for tiles, by their names in the model."""
        name_of = {variant.node.first_output: variant.name for variant in self._variants.values()}
        return tuple(replace(one, node=name_of[one.node]) for one in self.kernels.taken_over)

    def compute(
        self,
        operator: Operator,
        steps: Sequence[Step],
        held: Mapping[str, Bytes],
        indices: Callable[[Value], Array],
        before: Array | None = None,
    ) -> dict[str, Array] | None:
        """Region of each result that a tile computes; None for a tile of an operator that no rule covers.

        A step of a sum adds to the partial sum ``before``, None for the first; one that is not the last yields the
        partial sum under the name of its result. ``indices`` yields indices of rows.
        """
        assert operator.tile is not None
        access = self._access_of(operator.tile.root)
        box = operator.tile.box
        shape = access.shapes.get(access.result)
        if not access.chain:
            return None
        if shape is None or not operator.tile.is_within(shape):
            raise PlanInvalidError(f"tile {operator.name!r} does not lie within the result of {access.operator.name!r}")
        model = self._constants.model
        if any(value.name in model.actual for step in steps for value in (*step.reads, *step.results)):
            raise InputError(
                f"tile {operator.name!r}: a tensor is smaller with these inputs than planned; tiles are regions of the "
                "planned size"
            )
        run = _TileRun(self, access, held, indices)
        step = self._step(operator, access)
        summing = None if step is None else access.contraction()
        for part in access.walk(box, step):
            run.node(part)
            if part.node is summing and before is not None:
                run.add(part.node.results[0], box, before)
        if summing is not None and step is not None and not step.last:
            return {access.result: run.region(summing.results[0], box)}
        return {name: run.region(name, access.region_of(name, box)) for name in access.operator.outputs}

    def _step(self, operator: Operator, access: OperatorAccess) -> SumStep | None:
        """Which step of a sum a tile is."""
        step = operator.accumulation
        if step is None:
            return None
        if step.stop > access.reduced():
            raise PlanInvalidError(
                f"tile {operator.name!r} sums over {step.start} to {step.stop} of an axis of {access.reduced()}"
            )
        last = any(self._cuts.region(name) is not None or name == access.result for name in operator.outputs)
        return SumStep((step.start, step.stop), not step.sums, last)

    def region_of(self, tile: Region, result: str) -> Region:
        """Region of a result that a tile writes."""
        return Region.of_box(tile.root, self._access_of(tile.root).region_of(result, tile.box))

    def sum_value(self, root: str) -> Value:
        """What the model says of the sum that an operator's tiles compute by steps: the type of partial sums.

        Raises PlanInvalidError if the operator computes no sum by steps.
        """
        node = self._access_of(root).contraction()
        if node is None:
            raise PlanInvalidError(f"tiles of {root!r} add to partial sums, which that operator has none of")
        return self._constants.model.values[node.results[0]]

    def _access_of(self, root: str) -> OperatorAccess:
        if root not in self._access:
            loaded = self._constants.model.loaded
            self._access[root] = operator_access(loaded.finest_graph, loaded.sites, self._operators[root])
        return self._access[root]

    def step_of(self, part: NodeRegion) -> Step:
        """The node of the model."""
        return self._step_of[self._name_of[id(part.node)]]

    def evaluate(
        self, step: Step, how: TileNode | None, arrays: Sequence[Array | None], fixed: Sequence[bool]
    ) -> list[Array | None]:
        """Run a node on slices; its results by position. ``how`` says what is different for the region, if anything."""
        variant = self._variant(step, how, arrays, fixed)
        names = variant.node.inputs
        feeds = {name: array for name, array in zip(names, arrays, strict=True) if name and array is not None}
        try:
            found = self.kernels.evaluate(variant.node, variant.results, feeds)
        except KernelError as error:
            raise PlanInvalidError(f"{step.node} fails on the region of a tile: {error.reason}") from error
        return [found.get(name) if name else None for name in variant.node.outputs]

    def _variant(
        self, step: Step, how: TileNode | None, arrays: Sequence[Array | None], fixed: Sequence[bool]
    ) -> _Variant:
        """The node with the attributes of a region; one for all regions that need the same of it."""
        from onnx import helper

        attributes = dict(how.attributes) if how is not None else {}
        shapes = tuple(
            None if a is None else (a.dtype.str, a.shape, a.tobytes() if parameter else b"")
            for a, parameter in zip(arrays, fixed, strict=True)
        )
        key = (step.node.first_output, tuple(sorted(attributes.items())), shapes)
        if key not in self._variants:
            node, number = step.node, len(self._variants)
            inputs = tuple("" if a is None else f"{number}\x01{i}" for i, a in enumerate(arrays))
            outputs = tuple(f"{number}\x02{i}" if name else "" for i, name in enumerate(node.outputs))
            stated = {name: value for name, value in node.attributes.items() if name not in attributes}
            stated |= {
                name: helper.make_attribute(name, value) for name, value in attributes.items() if value is not None
            }
            made = replace(node, inputs=inputs, outputs=outputs, attributes=stated)
            for name, parameter, array in zip(inputs, fixed, arrays, strict=True):
                if parameter and array is not None:
                    element = helper.np_dtype_to_tensor_dtype(array.dtype)
                    self._own_values[name] = Value(name, element, array.shape, name, constant=True)
            held = {value.name: value for value in parts_of(step.results)} | {v.root: v for v in parts_of(step.results)}
            results = tuple(
                replace(held[old], name=new, root=new)
                for old, new in zip(node.outputs, outputs, strict=True) if old in held
            )  # fmt: skip
            self._variants[key] = _Variant(node.first_output, made, results)
        return self._variants[key]

    def stored(self, name: str, box: Box, held: Mapping[str, Bytes]) -> Array:
        """A region of a tensor from the bytes at hand, poison where nothing is."""
        if self._cuts.is_root(name):
            return self._cuts.join_region(name, box, held)
        if name not in held:
            raise PlanInvalidError(f"tensor {name!r} is read, which the operator does not list as an operand")
        value = self._constants.model.values[name]
        return to_array(held[name], value.element, value.shape, name)[slices(box)]

    def is_parameter(self, value: Value) -> bool:
        """Whether a value is part of its operator, not a weight."""
        return self._constants.model.is_parameter(value)

    def constant(self, step: Step, value: Value, held: Mapping[str, Bytes], indices: Callable[[Value], Array]) -> Array:
        """All of a constant that is computed from stored ones, looked up by rows, or a parameter."""
        names = {*held, *self._cuts.roots(held)}
        at_hand = {
            name: self._cuts.join(name, held) if self._cuts.is_root(name) else held[name]
            for name in {value.root, *value.stored} if name in names
        }  # fmt: skip
        for rows in (rows for table in step.tables for rows in table.rows):
            if rows.table.root == value.root:
                at_hand[value.root] = table_of_rows(rows, held[rows.name], indices)
        return Operands(self._constants, at_hand).array(value, step)


class _TileRun:
    """One tile: regions of the values within its operator."""

    def __init__(
        self, tiles: Tiles, access: OperatorAccess, held: Mapping[str, Bytes], indices: Callable[[Value], Array]
    ) -> None:
        self._tiles, self._access, self._held, self._indices = tiles, access, held, indices
        self._made: dict[str, Held] = {}
        self._shapes = {
            name: shape
            for node in access.chain
            for name, shape in zip(node.results, node.site.results, strict=False) if name and shape is not None
        }  # fmt: skip

    def region(self, name: str, box: Box) -> Array:
        """A region of a result."""
        start, array = self._made[name]
        return array[slices(moved(box, [a for a, _ in start]))]

    def add(self, name: str, box: Box, before: Array) -> None:
        """Add a partial sum to a value computed."""
        region, array = self._made[name]
        if region != box or array.shape != before.shape:
            raise PlanInvalidError(f"{name!r} is summed over another region than its tile's")
        self._made[name] = region, array + before

    def node(self, part: NodeRegion) -> None:
        """Compute a node's region."""
        step = self._tiles.step_of(part)
        how = access_of(part.node.site).tile(part.node.site, part.region)
        contents = how.contents if how is not None else {}
        arrays: list[Array | None] = []
        fixed: list[bool] = []
        joins = step.node.type in ("Concat", "QLinearConcat")
        for i in range(max(len(step.node.inputs), *(i + 1 for i in contents), 0)):
            array, parameter = self._operand(part, step, i, how)
            if array is None and joins:
                continue  # Concat of those operands that the region lies in
            arrays.append(array)
            fixed.append(parameter)
        found = self._tiles.evaluate(step, how, arrays, fixed)
        for name, array, shape in zip(part.node.results, found, part.node.site.results, strict=False):
            if name and array is not None and shape is not None:
                region = region_of_result(part.region, part.node.site.result, shape)
                self._made[name] = region, _cropped(step, array, region, shape, how)

    def _operand(self, part: NodeRegion, step: Step, position: int, how: TileNode | None) -> tuple[Array | None, bool]:
        """Operand of a node by position, and whether it is a parameter."""
        value = step.operands[position] if position < len(step.operands) else None
        if how is not None and position in how.contents:
            content = _parameter(step, position, how.contents[position])
            read = part.reads[position] if position < len(part.reads) else None
            if read is not None and element_count(read) == content.size:
                content = content.reshape(box_shape(read))  # an index may be a scalar
            return content, True
        if value is None:
            return None, False
        argument = part.node.operands[position]
        read = part.reads[position] if position < len(part.reads) else None
        if argument is None:
            raise PlanInvalidError(f"{step.node} reads a sequence, which no tile does")
        if how is not None and read is None:
            return None, False
        asked = read if how is not None and read is not None else whole(argument.shape)
        if position in type_only_positions(step.node):
            return np.zeros(box_shape(asked), numpy_dtype(value.element, value.name)), False
        looked_up = any(table.operand.root == value.root for table in step.tables)
        plain = argument.stored == (argument.value,) and argument.value in self._access.shapes and not looked_up
        if argument.constant and not plain:
            array = self._tiles.constant(step, value, self._held, self._indices)
            return np.ascontiguousarray(array.reshape(argument.shape)[slices(asked)]), self._tiles.is_parameter(value)
        array = self._viewed(argument.value, argument.shape, value, asked)
        if how is None and read is not None and step.node.type in ("Resize", "Upsample"):
            # Kernels multiply neighbours that do not count by zero, which poison would survive.
            beside = [(start, size - stop) for (start, stop), size in zip(read, argument.shape, strict=True)]
            array = np.pad(array[slices(read)], beside, mode="edge")
        return array, False

    def _viewed(self, name: str, shape: tuple[int, ...], value: Value, box: Box) -> Array:
        """Region of a value in the shape that a node sees it in."""
        own = self._shapes.get(name) if name in self._made else self._access.shapes.get(name)
        if own is None:
            raise PlanInvalidError(f"{name!r} is read, which the operator does not list as an operand")
        inner = through_reshape(box, shape, own)
        if element_count(inner) == element_count(box):
            # Elements of a box in both shapes stand in the same order.
            return np.ascontiguousarray(self._read(name, own, inner, value)).reshape(box_shape(box))
        return np.ascontiguousarray(self._read(name, own, whole(own), value).reshape(shape)[slices(box)])

    def _read(self, name: str, shape: tuple[int, ...], box: Box, value: Value) -> Array:
        if name not in self._made:
            return self._tiles.stored(name, box, self._held)
        region, array = self._made[name]
        if all(a <= start and stop <= b for (a, b), (start, stop) in zip(region, box, strict=True)):
            return array[slices(moved(box, [a for a, _ in region]))]
        data = np.full(size_bytes(value.element, shape), POISON, np.uint8)
        full = to_array(data, value.element, shape, name)
        full[slices(region)] = array
        return full[slices(box)]


def _cropped(step: Step, array: Array, region: Box, shape: tuple[int, ...], how: TileNode | None) -> Array:
    """The region itself, of what a kernel yields."""
    wanted = box_shape(region)
    if how is None:
        if array.shape == shape:
            return array[slices(region)]
    elif how.crop:
        inside = tuple(slice(start, start + size) for start, size in zip(how.crop, wanted, strict=True))
        if array[inside].shape == wanted:
            return array[inside]
    elif array.shape == wanted:
        return array
    raise PlanInvalidError(f"{step.node} yields {describe(array)} for a region of {list(wanted)}")


def _parameter(step: Step, position: int, content: Sequence[float]) -> Array:
    """Content of a parameter, of the type that it or those before it have."""
    known = [step.operands[i] for i in range(min(position, len(step.operands) - 1), 0, -1)]
    value = next((one for one in known if one is not None and one.constant), None)
    dtype = np.dtype(np.int64) if value is None else numpy_dtype(value.element, value.name)
    if dtype.kind == "i":
        limits = np.iinfo(dtype)
        content = [min(max(int(c), limits.min), limits.max) for c in content]
    return np.array(content, dtype)
