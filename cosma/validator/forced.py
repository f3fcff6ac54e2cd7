"""What a plan's constraints say, as the judge reads them: by exact names of the plan, nothing resolved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.graph import Operator
from cosma.graph.in_place import may_overwrite
from cosma.validator.verdicts import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cosma.accelerator import Accelerator
    from cosma.graph import Graph, Tensor


class Rules:
    """Constraints of a plan, by name.

    Parameters
    ----------
    accelerator
        What it is executed on, with its constraints.
    """

    def __init__(self, graph: Graph, accelerator: Accelerator) -> None:
        self.graph, self.accelerator = graph, accelerator
        forced = accelerator.constraints
        self.address = dict(forced.addresses)
        self.alignment = dict(forced.alignments)
        self.workspace = dict(forced.workspaces)
        self.resident = frozenset(forced.resident)
        self.never = frozenset(forced.never_on_chip)
        self.after: dict[str, list[str]] = {}
        for first, second in forced.before:
            self.after.setdefault(second, []).append(first)
        self._ranges = (*accelerator.reserved_ranges, *forced.excluded)
        self._permitted, self._forbidden = set(forced.in_place_permitted), set(forced.in_place_forbidden)
        self._permitted_types = frozenset(forced.in_place_permitted_types)
        self._forbidden_types = frozenset(forced.in_place_forbidden_types)

    def unknown(self) -> Iterator[str]:
        """What constraints name and the plan does not have."""
        forced, operators = self.accelerator.constraints, {operator.name for operator in self.graph.operators}
        pairs = [name for pair in (*forced.in_place_permitted, *forced.in_place_forbidden) for name in pair]
        for name in dict.fromkeys((*self.address, *self.alignment, *forced.resident, *forced.never_on_chip, *pairs)):
            if name not in self.graph.tensors:
                yield f"a constraint is on tensor {name!r}, which is not in the plan"
        for name in dict.fromkeys((*self.workspace, *(name for pair in forced.before for name in pair))):
            if name not in operators:
                yield f"a constraint is on operator {name!r}, which is not in the plan"

    def taken(self, start: int, stop: int) -> tuple[int, int] | None:
        """An excluded range that ``[start, stop)`` touches, if any."""
        return next(((low, high) for low, high in self._ranges if start < high and low < stop), None)

    def may_overwrite(self, operator: Operator, result: Tensor, operand: Tensor) -> bool:
        """Whether an operator may write a result over an operand, by pair, then by type, then by the table."""
        pair = (result.name, operand.name)
        if pair in self._forbidden:
            return False
        belongs = result.name in operator.outputs and operand.name in operator.operands
        fits = belongs and len(operator.outputs) == 1 and result.size_bytes <= operand.size_bytes
        if pair in self._permitted:
            return fits
        types = {operator.type, *(part.type for part in operator.parts)}
        if types & self._forbidden_types:
            return False
        if fits and types & self._permitted_types:
            return True
        return self.accelerator.in_place and may_overwrite(operator, result, operand)

    def misplaced(self, name: str, address: int, end: int) -> Iterator[tuple[Verdict, str]]:
        """Whether constraints let a tensor lie at an address, or in the scratchpad at all: which they break."""
        where = f"{name!r} at [{address}, {end})"
        taken = self.taken(address, end) if end > address else None
        if taken is not None:
            yield Verdict.EXCLUDED_RANGE, f"{where} touches [{taken[0]}, {taken[1]}), which is not to be used"
        if name in self.never and end > address:
            yield Verdict.NEVER_ON_CHIP, f"{where} is in the scratchpad, and is never to be"
        if self.address.get(name, address) != address:
            yield Verdict.ADDRESS_BROKEN, f"{where} is to lie at {self.address[name]}"
        if address % self.alignment.get(name, 1):
            message = f"{where} is not at a multiple of its own alignment, {self.alignment[name]}"
            yield Verdict.ALIGNMENT_BROKEN, message
