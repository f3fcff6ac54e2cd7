"""A plan's operators as computations on bytes: nodes in turn, whole or for the region of a tile."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cosma.errors import PlanInvalidError
from cosma.execute.elements import is_writable_in_place, numpy_dtype, size_bytes, to_array, to_bytes
from cosma.execute.kernels import KernelError
from cosma.execute.model import parts_of
from cosma.execute.parts import Cuts
from cosma.execute.plain import Operands
from cosma.execute.rows import select_rows, table_of_rows
from cosma.execute.tiles import Tiles

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cosma.arrays import Array, Bytes
    from cosma.execute.constants import Constants
    from cosma.execute.kernels import Kernels, TakenOver
    from cosma.execute.model import Model
    from cosma.frontend.records import Step
    from cosma.frontend.values import Value
    from cosma.graph import Operator, Region
    from cosma.plan import Plan


class Operators:
    """Computes a plan's operators from the bytes of their operands, wherever these lie.

    Parameters
    ----------
    constants
        Content of constants, and the kernels of whole nodes.
    tile_kernels
        Makes the kernels of nodes that are computed for a region.

    Attributes
    ----------
    plan, steps, constants
        As given.
    cuts
        The tensors that were cut.
    """

    def __init__(
        self,
        plan: Plan,
        steps: Mapping[str, tuple[Step, ...]],
        constants: Constants,
        inputs: Mapping[str, Array],
        tile_kernels: Callable[[Model], Kernels],
    ) -> None:
        self.plan, self.steps, self.constants, self._inputs = plan, steps, constants, inputs
        graph, known = plan.graph, constants.model.values
        self._weights = list(dict.fromkeys(weight for operator in graph.operators for weight in operator.weights))
        self._values = {value.root: value for v in steps.values() for s in v for value in parts_of(s.results)}
        given = [name for name in (*inputs, *self._weights) if name in graph.tensors]
        self._values |= {name: known[name] for name in given if graph.tensors[name].region is None}
        self._values |= {name: known[name] for name in graph.roots if name in known}
        self.cuts = Cuts(graph, self._values)
        self._values |= self.cuts.values
        self._rows = {rows.name: rows for v in steps.values() for s in v for table in s.tables for rows in table.rows}
        self.has_tiles = graph.is_tiled
        self._tiles = Tiles(plan, constants, self.cuts, tile_kernels) if self.has_tiles else None
        #: For each partial sum, its region of the result; None where that is not cut.
        self._sums: dict[str, Region | None] = {}
        self._note_sums()

    @property
    def taken_over(self) -> tuple[TakenOver, ...]:
        """Nodes that other kernels than the preferred ones have run, each once."""
        found = self.constants.kernels.taken_over + (() if self._tiles is None else self._tiles.taken_over)
        return tuple({one.node: one for one in reversed(found)}.values())[::-1]

    def _note_sums(self) -> None:
        """Give partial sums the shapes of the results that they lead to, and the type of the sum in the model."""
        for operator in reversed(self.plan.graph.operators):
            step = operator.accumulation
            if step is None:
                continue
            if operator.tile is None or self._tiles is None or len(step.sums) not in (0, len(operator.outputs)):
                raise PlanInvalidError(f"operator {operator.name!r} adds to partial sums that are not of its tile")
            value = self._tiles.sum_value(operator.tile.root) if step.sums else None
            for name, result in zip(step.sums, operator.outputs, strict=False):
                self._sums[name] = self._sums[result] if result in self._sums else self.cuts.region(result)
                shape = self.value(result).shape
                assert value is not None
                self._values[name] = replace(value, name=name, root=name, shape=shape)

    def value(self, name: str) -> Value:
        """What the model says of a tensor; a part has its own shape.

        Raises PlanInvalidError if it is not in the model.
        """
        if name not in self._values:
            raise PlanInvalidError(f"tensor {name!r} is not in the model")
        return self._values[name]

    def is_sum(self, name: str) -> bool:
        """Whether a tensor is a partial sum."""
        return name in self._sums

    def step_of(self, operator: Operator) -> float:
        """Largest step of what an operator quantises and dequantises at its end; 0 where it does not."""
        steps = self.steps[operator.name]
        if len(steps) < 2 or [step.node.type for step in steps[-2:]] != ["QuantizeLinear", "DequantizeLinear"]:
            return 0.0
        scale = steps[-1].operands[1]
        return float(np.max(self.constants.get(scale))) if scale is not None and scale.constant else 0.0

    def true_size(self, name: str) -> int:
        """Bytes that a tensor really has."""
        value = self.value(name)
        return size_bytes(value.element, value.shape)

    # -- contents -----------------------------------------------------------------------------------------

    def contents(self) -> dict[str, Bytes]:
        """Inputs and weights, as parts where they were cut."""
        found: dict[str, Bytes] = {}
        for name, array in self._inputs.items():
            self.put(name, to_bytes(array, self.constants.model.values[name].element), found)
        for weight in self._weights:
            region = self.cuts.region(weight)
            name = weight if region is None else region.root
            if weight not in found and weight not in self._rows:
                value = self.value(name)
                self.put(name, to_bytes(self.constants.get(value), value.element), found)
        return found

    def put(self, name: str, data: Bytes, found: dict[str, Bytes]) -> None:
        """Put a tensor's bytes among those found, as parts where it was cut."""
        if not self.cuts.is_root(name):
            found[name] = data
            return
        parts = {part: np.empty(self.true_size(part), np.uint8) for part in self.cuts.parts(name)}
        self.cuts.split(name, data, parts)
        found.update(parts)

    def selected(self, name: str, at_hand: Callable[[str], Bytes]) -> Bytes | None:
        """Bytes of a row set as the indices are now; None for any other tensor."""
        rows = self._rows.get(name)
        if rows is None:
            return None
        return select_rows(rows, self.constants.get(rows.table), self._indices(at_hand))

    def _indices(self, at_hand: Callable[[str], Bytes]) -> Callable[[Value], Array]:
        """Yield indices, which are in the scratchpad or off-chip."""

        def content(index: Value) -> Array:
            if index.constant:
                return self.constants.get(index)
            names = self.cuts.parts(index.root) if self.cuts.is_root(index.root) else [index.root]
            held = {name: at_hand(name) for name in names}
            data = self.cuts.join(index.root, held) if self.cuts.is_root(index.root) else held[index.root]
            return to_array(data, index.element, index.shape, index.name)

        return content

    # -- computation --------------------------------------------------------------------------------------

    def compute(
        self,
        operator: Operator,
        held: Mapping[str, Bytes],
        targets: Mapping[str, Bytes],
        at_hand: Callable[[str], Bytes],
    ) -> None:
        """Compute an operator, or the region of one that a tile stands for.

        ``at_hand`` yields the bytes of a tensor of indices, which an operator may read that looks up rows.
        """
        indices = self._indices(at_hand)
        if operator.tile is not None:
            assert self._tiles is not None
            region = self._tiles.compute(
                operator, self.steps[operator.name], held, indices, self._before(operator, held)
            )
            if region is not None:
                self._write(operator, region, targets)
                return
        # Parts are put together, with poison for those that the operator does not read.
        joined = dict(held)
        roots = dict.fromkeys((*self.cuts.roots(held), *operator.joined))
        joined.update((root, self.cuts.join(root, held)) for root in roots)
        cut = {root: np.empty(self.true_size(root), np.uint8) for root in self.cuts.roots(targets)}
        self._run_nodes(operator, joined, {**targets, **cut}, indices)
        for root, data in cut.items():
            self.cuts.split(root, data, targets)

    def _write(self, operator: Operator, region: Mapping[str, Array], targets: Mapping[str, Bytes]) -> None:
        """Write the region that a tile computed to the parts of the results."""
        for name, target in targets.items():
            root, inside = self._inside(operator, name)
            source = region[root] if root in region else next(iter(region.values()))
            target[:] = to_bytes(np.ascontiguousarray(source[inside]), self.value(name).element)

    def _inside(self, operator: Operator, name: str) -> tuple[str, tuple[slice, ...]]:
        """Which result a tile writes to a tensor, or to the sum that leads to it, and where in the tile's region."""
        assert operator.tile is not None
        assert self._tiles is not None
        part = self._sums[name] if name in self._sums else self.cuts.region(name)
        if part is None:
            if operator.tile.shape != self.value(name).shape:
                raise PlanInvalidError(f"tile {operator.name!r} writes {name!r}, which does not lie in its region")
            return name, ()
        region = self._tiles.region_of(operator.tile, part.root)
        if part.overlap(region) != part.count:
            raise PlanInvalidError(f"tile {operator.name!r} writes {name!r}, which does not lie in its region")
        start = region.start
        return part.root, tuple(slice(a - s, b - s) for a, b, s in zip(part.start, part.stop, start, strict=True))

    def _before(self, operator: Operator, held: Mapping[str, Bytes]) -> Array | None:
        """The partial sum that a step adds to, put together over its tile's region."""
        assert operator.tile is not None
        if operator.accumulation is None or not operator.accumulation.sums:
            return None
        values = [self.value(name) for name in operator.accumulation.sums]
        found = np.zeros(operator.tile.shape, numpy_dtype(values[0].element, values[0].name))
        for value in values:
            inside = self._inside(operator, value.name)[1]
            found[inside] = to_array(held[value.name], value.element, value.shape, value.name)
        return found

    def _run_nodes(
        self,
        operator: Operator,
        at_hand: dict[str, Bytes],
        targets: Mapping[str, Bytes],
        indices: Callable[[Value], Array],
    ) -> None:
        for step in self.steps[operator.name]:
            for rows in (rows for table in step.tables for rows in table.rows):
                at_hand[rows.table.root] = table_of_rows(rows, at_hand[rows.name], indices)
            results = parts_of(step.results)
            feeds = Operands(self.constants, at_hand).feeds(step)
            out: dict[str, Array] = {}
            packed: list[tuple[Value, Array]] = []
            for value in results:
                data = targets.get(value.root)
                if data is None:  # within a fused operator; it never exists in any memory
                    data = np.empty(self.true_size(value.root), np.uint8)
                at_hand[value.root] = data
                if is_writable_in_place(value.element):
                    array = self.constants.model.read(value, data)
                else:
                    shape = self.constants.model.shape_of(value)
                    array = np.empty(shape, numpy_dtype(value.element, value.name))
                    packed.append((value, array))
                out[value.name if value.name in step.node.outputs else value.root] = array
            try:
                self.constants.kernels.run(step.node, results, feeds, out)
            except KernelError as error:
                # The same node ran without a plan, so it is what the plan hands it that it cannot work on.
                raise PlanInvalidError(f"{step.node} fails on the bytes the plan gives it: {error.reason}") from error
            for value, array in packed:
                data = to_bytes(array, value.element)
                at_hand[value.root][: len(data)] = data
