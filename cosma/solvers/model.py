"""An integer program as arrays: formulations build it and back ends read it.

All variables are integers within finite bounds, all coefficients are integers, and the objective is minimised.
Rows are stored by row (CSR). Rows that hold only where a 0/1 variable is one, and groups of intervals that may
not overlap, are for constraint solvers; a model without them is a plain integer linear program.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from math import gcd
from typing import TYPE_CHECKING

import numpy as np

from cosma.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cosma.arrays import Ints

#: Stands for no bound on a row.
INFINITE = 1 << 62


@dataclass(frozen=True, slots=True)
class Family:
    """Variables or rows ``[begin, end)`` that were made for one reason, under the name the docs explain."""

    name: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class NoOverlap:
    """Half-open intervals ``[start, start + size)`` of which those present may not overlap."""

    #: Variables.
    start: tuple[int, ...]
    #: Constants, at least one.
    size: tuple[int, ...]
    #: 0/1 variables.
    present: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """An integer program."""

    #: For logs and exports.
    name: str
    #: Inclusive bounds of each variable. ``int64[variables]``.
    lower: Ints
    upper: Ints
    #: Coefficients to minimise, and a constant added to them.
    objective: Ints
    offset: int
    #: Rows, CSR.
    row_start: Ints
    row_column: Ints
    row_value: Ints
    #: Inclusive bounds of each row; ``-INFINITE`` and ``INFINITE`` for none.
    row_lower: Ints
    row_upper: Ints
    #: 0/1 variable under which the row holds, or -1: always.
    row_enforced_by: Ints
    #: Groups of intervals.
    no_overlap: tuple[NoOverlap, ...]
    #: Families, in order.
    variables: tuple[Family, ...]
    rows: tuple[Family, ...]

    @property
    def variable_count(self) -> int:
        """Number of variables."""
        return len(self.lower)

    @property
    def row_count(self) -> int:
        """Number of rows."""
        return len(self.row_lower)

    @property
    def linear(self) -> bool:
        """Whether this is a plain integer linear program."""
        return not self.no_overlap and bool((self.row_enforced_by < 0).all())

    @property
    def objective_granule(self) -> int:
        """Greatest common divisor of the objective's coefficients; its value less the offset is a multiple."""
        return int(np.gcd.reduce(self.objective)) or 1 if len(self.objective) else 1

    def value(self, values: Ints) -> int:
        """Objective of an assignment, offset included."""
        return int(self.objective @ values) + self.offset

    def coordinates(self) -> tuple[Ints, Ints, Ints]:
        """Nonzeros of the rows as (row, column, value), ordered, repeated entries added up."""
        width = max(1, self.variable_count)
        row = np.repeat(np.arange(self.row_count), np.diff(self.row_start))
        unique, where = np.unique(row * width + self.row_column, return_inverse=True)
        value = np.zeros(len(unique), dtype=np.int64)
        np.add.at(value, where, self.row_value)
        kept = value != 0
        unique, value = unique[kept], value[kept]
        return unique // width, unique % width, value

    def violations(self, values: Ints) -> list[str]:
        """Name the families of bounds, rows and overlaps that an assignment violates, each once; empty if valid."""
        found: dict[str, None] = {}
        for j in np.flatnonzero((values < self.lower) | (values > self.upper)).tolist():
            found[f"bounds of {_family_of(self.variables, j)}"] = None
        products = np.concatenate([[0], np.cumsum(self.row_value * values[self.row_column])])
        activity = products[self.row_start[1:]] - products[self.row_start[:-1]]
        holds = (self.row_enforced_by < 0) | (values[self.row_enforced_by] == 1)
        for i in np.flatnonzero(holds & ((activity < self.row_lower) | (activity > self.row_upper))).tolist():
            found[_family_of(self.rows, i)] = None
        for group in self.no_overlap:
            here = sorted(
                (int(values[s]), int(values[s]) + size)
                for s, size, p in zip(group.start, group.size, group.present, strict=True)
                if values[p] == 1
            )
            if any(end > begin for (_, end), (begin, _) in pairwise(here)):
                found["no overlap"] = None
        return list(found)


def _family_of(families: Iterable[Family], index: int) -> str:
    return next((f.name for f in families if f.begin <= index < f.end), "?")


@dataclass(slots=True)
class ModelBuilder:
    """Collects variables and rows, family by family; a family may come in several pieces."""

    name: str
    _lower: list[int] = field(default_factory=list)
    _upper: list[int] = field(default_factory=list)
    _cost: dict[int, int] = field(default_factory=dict)
    _offset: int = 0
    _start: list[int] = field(default_factory=lambda: [0])
    _column: list[int] = field(default_factory=list)
    _value: list[int] = field(default_factory=list)
    _row_lower: list[int] = field(default_factory=list)
    _row_upper: list[int] = field(default_factory=list)
    _enforced_by: list[int] = field(default_factory=list)
    _no_overlap: list[NoOverlap] = field(default_factory=list)
    _variables: list[Family] = field(default_factory=list)
    _rows: list[Family] = field(default_factory=list)

    def variable(self, family: str, lower: int = 0, upper: int = 1) -> int:
        """Add one variable and return its number."""
        number = len(self._lower)
        self._lower.append(lower)
        self._upper.append(upper)
        _extend(self._variables, family, number)
        return number

    def cost(self, variable: int, coefficient: int) -> None:
        """Add to a variable's objective coefficient."""
        self._cost[variable] = self._cost.get(variable, 0) + coefficient

    def constant(self, value: int) -> None:
        """Add to the objective's constant."""
        self._offset += value

    def row(
        self,
        family: str,
        columns: Sequence[int],
        values: Sequence[int],
        *,
        lower: int = -INFINITE,
        upper: int = INFINITE,
        enforced_by: int = -1,
    ) -> int:
        """Add ``lower <= sum(values * columns) <= upper`` and return its number."""
        number = len(self._row_lower)
        self._column.extend(columns)
        self._value.extend(values)
        self._start.append(len(self._column))
        self._row_lower.append(lower)
        self._row_upper.append(upper)
        self._enforced_by.append(enforced_by)
        _extend(self._rows, family, number)
        return number

    def implies(self, family: str, variable: int, by: int) -> None:
        """Add ``variable <= by``."""
        self.row(family, (variable, by), (1, -1), upper=0)

    def limit_cost(self, family: str, most: int) -> None:
        """Add a row: the objective as it is so far, constant included, is at most so much."""
        self.row(family, list(self._cost), list(self._cost.values()), upper=most - self._offset)

    def forbid_overlap(self, intervals: NoOverlap) -> None:
        """Add a group of intervals of which those present may not overlap."""
        self._no_overlap.append(intervals)

    def build(self) -> Model:
        """Freeze into arrays; raises InputError if a sum of objective terms could leave 62 bits."""
        count = len(self._lower)
        objective = np.zeros(count, dtype=np.int64)
        for j, coefficient in self._cost.items():
            objective[j] = coefficient
        if sum(abs(c) * max(abs(self._lower[j]), abs(self._upper[j])) for j, c in self._cost.items()) >= INFINITE:
            raise InputError(f"model {self.name!r}: traffic beyond 2^62 bytes cannot be counted; use larger units")
        return Model(
            name=self.name,
            lower=np.array(self._lower, dtype=np.int64),
            upper=np.array(self._upper, dtype=np.int64),
            objective=objective,
            offset=self._offset,
            row_start=np.array(self._start, dtype=np.int64),
            row_column=np.array(self._column, dtype=np.int64),
            row_value=np.array(self._value, dtype=np.int64),
            row_lower=np.array(self._row_lower, dtype=np.int64),
            row_upper=np.array(self._row_upper, dtype=np.int64),
            row_enforced_by=np.array(self._enforced_by, dtype=np.int64),
            no_overlap=tuple(self._no_overlap),
            variables=tuple(self._variables),
            rows=tuple(self._rows),
        )


def _extend(families: list[Family], name: str, index: int) -> None:
    if families and families[-1].name == name:
        families[-1] = Family(name, families[-1].begin, index + 1)
    else:
        families.append(Family(name, index, index + 1))


def common_unit(values: Iterable[int]) -> int:
    """Greatest common divisor, at least 1: dividing by it keeps coefficients small."""
    return gcd(*values, 0) or 1
