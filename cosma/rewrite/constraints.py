"""Constraints in terms of a graph: names for patterns, and parts and tiles for what was cut."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from math import lcm
from typing import TYPE_CHECKING

from cosma.accelerator import Weights
from cosma.accelerator.constraints import Constraints
from cosma.errors import ConstraintError
from cosma.graph import TensorKind
from cosma.graph.in_place import in_place_operands
from cosma.text import did_you_mean

if TYPE_CHECKING:
    from cosma.accelerator import Accelerator
    from cosma.graph import Graph, Operator, Region, Tensor
    from cosma.rewrite.fuse import Link

_PAIRS = ("in_place_permitted", "in_place_forbidden")


def expand(constraints: Constraints, graph: Graph, accelerator: Accelerator) -> Constraints:
    """Put the names of a network in place of patterns; weights that pass the scratchpad by fit none of them.

    Raises ConstraintError if a name or a pattern is of nothing in the network, two patterns give one name two values, a
    pair is no result and operand of one operator, or a permitted result does not fit over its operand.
    """
    tensors, operators = list(graph.tensors), [operator.name for operator in graph.operators]
    if accelerator.weights == Weights.STREAM:
        passing = {tensor.name for tensor in graph.of_kind(TensorKind.WEIGHT)}
        named = {name for name, _ in (*constraints.addresses, *constraints.alignments)}
        named |= {*constraints.resident, *constraints.never_on_chip}
        tensors = [name for name in tensors if name not in passing or name in named]
    found = Constraints(
        addresses=_values(constraints.addresses, tensors, "addresses", "tensor"),
        alignments=_values(constraints.alignments, tensors, "alignments", "tensor"),
        workspaces=_values(constraints.workspaces, operators, "workspaces", "operator"),
        resident=_names(constraints.resident, tensors, "resident", "tensor"),
        never_on_chip=_names(constraints.never_on_chip, tensors, "never_on_chip", "tensor"),
        in_place_permitted=_overwrites(constraints.in_place_permitted, graph, "in_place_permitted"),
        in_place_forbidden=_overwrites(constraints.in_place_forbidden, graph, "in_place_forbidden"),
        in_place_permitted_types=_types(constraints.in_place_permitted_types, graph, "in_place_permitted_types"),
        in_place_forbidden_types=_types(constraints.in_place_forbidden_types, graph, "in_place_forbidden_types"),
        before=[
            (first, second)
            for a, b in constraints.before
            for first in _matching(a, operators, "before", "operator")
            for second in _matching(b, operators, "before", "operator")
            if first != second or a == b
        ],
        excluded=constraints.excluded,
    )
    for result, operand in found.in_place_permitted:
        _check_permitted(graph, result, operand)
    return found


def resolve(constraints: Constraints, graph: Graph) -> Constraints:
    """Write constraints by exact names in terms of a graph that was made from their network.

    A tensor that was cut stands for its parts, one that consists of others for these, an operator that was cut for its
    tiles. Parts of a tensor with an address lie where they lie in it. What a rewrite took away carries no constraint.
    Raises ConstraintError if a part of a tensor with an address is not one range of it, or is to lie in two places.
    """
    if not constraints:
        return constraints
    regions: dict[str, list[tuple[str, Region | None]]] = {name: [(name, None)] for name in graph.tensors}
    for tensor in graph.tensors.values():
        if tensor.region is not None:
            regions.setdefault(tensor.region.root, []).append((tensor.name, tensor.region))
    for name, join in graph.joins.items():
        regions[name] = [(piece.tensor, piece.region) for piece in join.pieces]
    parts = {name: [part for part, _ in row] for name, row in regions.items()}
    tiles: dict[str, list[str]] = {operator.name: [operator.name] for operator in graph.operators}
    for operator in graph.operators:
        if operator.tile is not None:
            tiles.setdefault(operator.tile.root, []).append(operator.name)

    def pairs(given: Iterable[tuple[str, str]], of: Mapping[str, list[str]]) -> list[tuple[str, str]]:
        return [(a, b) for left, right in given for a in of.get(left, ()) for b in of.get(right, ())]

    def touching(given: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        return [(r, u) for r, u in pairs(given, parts) if _operator_of(graph, r, u) is not None]

    return Constraints(
        addresses=_addresses(constraints, graph, regions),
        alignments=_alignments(constraints, parts),
        workspaces=[(tile, n) for name, n in constraints.workspaces for tile in tiles.get(name, ())],
        resident=[part for name in constraints.resident for part in parts.get(name, ())],
        never_on_chip=[part for name in constraints.never_on_chip for part in parts.get(name, ())],
        in_place_permitted=touching(constraints.in_place_permitted),
        in_place_forbidden=touching(constraints.in_place_forbidden),
        in_place_permitted_types=constraints.in_place_permitted_types,
        in_place_forbidden_types=constraints.in_place_forbidden_types,
        before=pairs(constraints.before, tiles),
        excluded=constraints.excluded,
    )


def _addresses(
    constraints: Constraints, graph: Graph, regions: Mapping[str, list[tuple[str, Region | None]]]
) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, address in constraints.addresses:
        for part, region in regions.get(name, ()):
            at = address + _offset(graph, part, region)
            if found.setdefault(part, at) != at:
                raise ConstraintError(f"{part!r} is to lie at {found[part]}, and as a part of {name!r} at {at}")
    return found


def _alignments(constraints: Constraints, parts: Mapping[str, list[str]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, step in constraints.alignments:
        for part in parts.get(name, ()):
            found[part] = lcm(found.get(part, 1), step)
    return found


def copying(graph: Graph, constraints: Constraints) -> set[str]:
    """Operators that go on copying, whether they need to or not: what they write or cut is to lie somewhere.

    So do those that are to run somewhen or to have scratch space, and those of which a takeover is forced. Other
    constraints on what copies nothing are on the tensors it consists of.
    """
    forced = constraints
    placed = {name for name, _ in forced.addresses}
    placed |= {name for pair in (*forced.in_place_permitted, *forced.in_place_forbidden) for name in pair}
    operators = {name for name, _ in forced.workspaces} | {name for pair in forced.before for name in pair}
    return {
        operator.name
        for operator in graph.operators
        if operator.name in operators
        or placed.intersection(operator.outputs)
        or (operator.type != "Concat" and placed.intersection(operator.inputs))
    }


def fusable(links: Iterable[Link], accelerator: Accelerator) -> tuple[Link, ...]:
    """Links that no constraint names: what is forced to lie somewhere, or to run somewhen, stays what it is."""
    forced = accelerator.constraints
    tensors = {name for name, _ in (*forced.addresses, *forced.alignments)} | {*forced.resident, *forced.never_on_chip}
    tensors |= {name for pair in (*forced.in_place_permitted, *forced.in_place_forbidden) for name in pair}
    operators = {name for name, _ in forced.workspaces} | {name for pair in forced.before for name in pair}
    return tuple(
        link
        for link in links
        if link.tensor not in tensors and link.producer not in operators and link.follower not in operators
    )


def overwritable(
    operator: Operator, result: Tensor, operands: list[Tensor], constraints: Constraints, *, by_table: bool
) -> list[Tensor]:
    """Operands that a result may take over: by pair, then by type, then by the table of operators where that counts."""
    table = in_place_operands(operator, result, operands) if by_table else []
    if not constraints or result.size_bytes == 0:
        return table
    types = {operator.type, *(part.type for part in operator.parts)}
    forbidden = bool(types.intersection(constraints.in_place_forbidden_types))
    permitted = bool(types.intersection(constraints.in_place_permitted_types)) and len(operator.outputs) == 1
    found = []
    for operand in operands:
        pair = (result.name, operand.name)
        fits = permitted and result.size_bytes <= operand.size_bytes
        allowed = pair in constraints.in_place_permitted or (not forbidden and (fits or operand in table))
        if pair not in constraints.in_place_forbidden and allowed:
            found.append(operand)
    return found


def keeps_apart(constraints: Constraints, result: str, operand: str) -> bool:
    """Whether where two tensors lie, if they do, keeps one from taking over the other."""
    if result in constraints.never_on_chip or operand in constraints.never_on_chip:
        return True
    addresses, alignments = dict(constraints.addresses), dict(constraints.alignments)
    one, other = addresses.get(result), addresses.get(operand)
    if one is not None and other is not None:
        return one != other
    at, step = (one, alignments.get(operand, 1)) if one is not None else (other, alignments.get(result, 1))
    return at is not None and at % step != 0


# -- names ------------------------------------------------------------------------------------------------------------


def _matching(wanted: str, known: list[str], where: str, what: str) -> list[str]:
    if wanted in known:
        return [wanted]
    found = [name for name in known if _pattern(wanted)(name)] if {"*", "?"} & set(wanted) else []
    if not found:
        raise ConstraintError(f"constraints: {where}: the model has no {what} {wanted!r}{did_you_mean(wanted, known)}")
    return found


def _pattern(text: str) -> Callable[[str], object]:
    escaped = "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in text)
    return re.compile(escaped, re.DOTALL).fullmatch


def _names(given: Iterable[str], known: list[str], where: str, what: str) -> list[str]:
    return list(dict.fromkeys(name for one in given for name in _matching(one, known, where, what)))


def _values(given: Iterable[tuple[str, int]], known: list[str], where: str, what: str) -> dict[str, int]:
    """Values by name; one that is given by its exact name goes before those of patterns."""
    exact: dict[str, int] = {}
    by_pattern: dict[str, tuple[int, str]] = {}
    for wanted, value in given:
        for name in _matching(wanted, known, where, what):
            if name == wanted:
                exact[name] = value
            elif by_pattern.setdefault(name, (value, wanted))[0] != value:
                other, pattern = by_pattern[name]
                raise ConstraintError(
                    f"constraints: {where}: {name!r} has {other} by {pattern!r} and {value} by {wanted!r}"
                )
    values = {name: value for name, (value, _) in by_pattern.items()} | exact
    return {name: values[name] for name in known if name in values}


def _types(given: Iterable[str], graph: Graph, where: str) -> list[str]:
    known = list(dict.fromkeys(t for o in graph.operators for t in (o.type, *(part.type for part in o.parts))))
    return _names(given, known, where, "operator of type")


# -- overwriting ------------------------------------------------------------------------------------------------------


def _overwrites(given: Iterable[tuple[str, str]], graph: Graph, where: str) -> list[tuple[str, str]]:
    known = list(graph.tensors)
    found = []
    for left, right in given:
        matching = [
            (result, operand)
            for result in _matching(left, known, where, "tensor")
            for operand in _matching(right, known, where, "tensor")
            if _operator_of(graph, result, operand) is not None
        ]
        if not matching:
            raise ConstraintError(f"constraints: {where}: no operator reads {right!r} and writes {left!r}")
        found += matching
    return found


def _operator_of(graph: Graph, result: str, operand: str) -> Operator | None:
    producer = graph.producer(result)
    operator = None if producer is None else graph.operator(producer)
    return operator if operator is not None and operand in operator.operands else None


def _check_permitted(graph: Graph, result: str, operand: str) -> None:
    where = f"constraints: in_place_permitted: {result!r} in place of {operand!r}"
    operator = _operator_of(graph, result, operand)
    assert operator is not None
    if len(operator.outputs) > 1:
        raise ConstraintError(f"{where}: operator {operator.name!r} has {len(operator.outputs)} results, not one")
    needed, available = graph.tensors[result].size_bytes, graph.tensors[operand].size_bytes
    if needed > available:
        raise ConstraintError(f"{where}: the result has {needed} bytes, the operand {available}")


def _offset(graph: Graph, name: str, region: Region | None) -> int:
    """Bytes from the beginning of a root to a part of it, by its region there; 0 for what is no part."""
    if region is None:
        return 0
    element, count = region.offset(graph.roots[region.root].shape or ()), region.count
    if element is None or not count:
        raise ConstraintError(
            f"part {name!r} of {region.root!r} is not one address range of it; leave {region.root!r} whole, or cut it "
            "along its outermost axis"
        )
    return element * (graph.tensors[name].size_bytes // count)
