"""What a replay notes of broken rules, and which of them follow from which."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.validator.verdicts import Verdict, Violation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cosma.graph import Operator


class Notes:
    """Broken rules in the order they were found; ``index`` is the instruction at hand, None outside of them."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self.index: int | None = None
        self._blame: dict[str, int] = {}  # tensor -> the violation that later ones about it follow from
        self._never_made: set[str] = set()

    def note(self, verdict: Verdict, message: str, *about: str) -> None:
        """Note a broken rule and the tensors it concerns; it follows from an earlier one about any of them."""
        root = next((self._blame[name] for name in about if name in self._blame), None)
        for name in about:
            self._blame.setdefault(name, len(self.violations) if root is None else root)
        self.violations.append(Violation(verdict, self.index, message, root))

    def missing(self, operators: Iterable[Operator], executed: set[str]) -> None:
        """Note operators that never execute; these come first, because much follows from each."""
        for operator in operators:
            if operator.name not in executed:
                self.note(Verdict.NOT_EXECUTED, f"operator {operator.name!r} never executes", *operator.outputs)
                self._never_made.update(operator.outputs)

    def settle(self, name: str) -> None:
        """Take note that a tensor is where it should be: what is wrong with it from now on is something new."""
        if name not in self._never_made:
            self._blame.pop(name, None)
