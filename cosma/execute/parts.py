"""Tensors that a plan cut into parts: roots put together from parts, and taken apart into them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from cosma.errors import PlanInvalidError
from cosma.execute.elements import bits_of, size_bytes, to_array, to_bytes
from cosma.execute.memory import POISON

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cosma.arrays import Array, Bytes
    from cosma.frontend.values import Value
    from cosma.graph import Graph, Region


class Cuts:
    """The roots of a plan and their parts, with the model's values behind them.

    Parameters
    ----------
    values
        The model's values by name of the tensor that holds them.
    """

    def __init__(self, graph: Graph, values: Mapping[str, Value]) -> None:
        self._regions = {t.name: t.region for t in graph.tensors.values() if t.region is not None}
        self._boxes: dict[str, dict[str, Region]] = {name: {} for name in graph.roots}
        for name, region in self._regions.items():
            self._boxes[region.root][name] = region
        for joined, join in graph.joins.items():
            self._boxes[joined] = {piece.tensor: piece.region for piece in join.pieces}
        self._parts = {root: list(boxes) for root, boxes in self._boxes.items()}
        #: Each part as a value of its own shape.
        self.values: dict[str, Value] = {}
        self._roots: dict[str, Value] = {}
        for name, parts in self._parts.items():
            if name not in values:
                raise PlanInvalidError(f"root {name!r} is not in the model")
            root = values[name]
            if root.shape != graph.roots[name].shape or bits_of(root.element) < 8:
                raise PlanInvalidError(
                    f"root {name!r} is {root.type} in the model; the plan cuts a tensor of shape "
                    f"{list(graph.roots[name].shape or ())} into whole bytes"
                )
            self._roots[name] = root
            for part in parts:
                region = self._boxes[name][part]
                if not region.is_within(root.shape):
                    raise PlanInvalidError(f"part {part!r} does not lie within {name!r}")
                if part in self._regions and name == self._regions[part].root:
                    self.values[part] = replace(root, name=part, root=part, shape=region.shape)

    def region(self, name: str) -> Region | None:
        """Which box of its root a tensor is; None for a tensor that is no part."""
        return self._regions.get(name)

    def is_root(self, name: str) -> bool:
        """Whether a tensor was cut."""
        return name in self._parts

    def parts(self, root: str) -> list[str]:
        """Names of the parts of a root."""
        return self._parts[root]

    def roots(self, names: Iterable[str]) -> list[str]:
        """Roots of the parts among some tensors, each once."""
        found = (self._regions.get(name) for name in names)
        return list(dict.fromkeys(region.root for region in found if region is not None))

    def split(self, root: str, data: Bytes, targets: Mapping[str, Bytes]) -> None:
        """Copy a root's bytes to those of its parts that are asked for."""
        value = self._roots[root]
        whole = to_array(data, value.element, value.shape, root)
        for name, region in self._boxes[root].items():
            if name in targets:
                targets[name][:] = to_bytes(np.ascontiguousarray(whole[region.slices]), value.element)

    def join_region(self, root: str, box: Sequence[tuple[int, int]], held: Mapping[str, Bytes]) -> Array:
        """A region of a root from the parts at hand, poison where none of them lies."""
        value = self._roots[root]
        shape = tuple(stop - start for start, stop in box)
        found = to_array(np.full(size_bytes(value.element, shape), POISON, np.uint8), value.element, shape, root)
        for name in self._parts[root]:
            if name not in held:
                continue
            region = self._boxes[root][name]
            both = [
                (max(a, start), min(b, stop))
                for a, b, (start, stop) in zip(region.start, region.stop, box, strict=True)
            ]
            if any(a >= b for a, b in both):
                continue
            part = to_array(held[name], value.element, region.shape, name)
            into = tuple(slice(a - start, b - start) for (a, b), (start, _) in zip(both, box, strict=True))
            found[into] = part[tuple(slice(a - s, b - s) for (a, b), s in zip(both, region.start, strict=True))]
        return found

    def join(self, root: str, held: Mapping[str, Bytes]) -> Bytes:
        """A root's bytes from the parts at hand, poison where none of them lies."""
        value = self._roots[root]
        data = np.full(size_bytes(value.element, value.shape), POISON, np.uint8)
        whole = to_array(data, value.element, value.shape, root)
        for name in self._parts[root]:
            if name in held:
                region = self._boxes[root][name]
                whole[region.slices] = to_array(held[name], value.element, region.shape, name)
        return data
