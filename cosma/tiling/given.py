"""Tilings given by the user: a rule for every operator, or a file with cuts by operator."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import Any

from cosma.access import NodeSite
from cosma.access.operator import operator_access
from cosma.errors import FormatError, InputError
from cosma.files import read_toml
from cosma.graph import Graph
from cosma.rewrite.tiling import REDUCED, Cuts, Tiling, even_cuts, step_cuts
from cosma.text import did_you_mean
from cosma.tiling.axes import row_axes
from cosma.tiling.rows import channel_axis
from cosma.units import parse_size

#: Rules: rows of each tile; tiles along the rows; tiles along the channels that weights belong to; most bytes of the
#: weights of a tile.
RULES = ("rows", "stripes", "channels", "weights")


def rule_tiling(graph: Graph, sites: Mapping[str, NodeSite], rule: Mapping[str, int]) -> Tiling:
    """Cut every operator that can be cut by one rule; the others stay whole.

    Parameters
    ----------
    rule
        Of :data:`RULES`: ``rows`` in each tile, or ``stripes`` along the rows, and ``channels``: tiles along the axis
        that weights belong to, or ``weights``: bytes that the weights of a tile take at most, along that axis. Rows
        stay rows through transposes and reshapes, see :func:`row_axes`.
    """
    cuts = {}
    every = [operator_access(graph, sites, operator) for operator in graph.operators]
    rows = row_axes(graph, every) if rule.keys() & {"rows", "stripes"} else {}
    for operator, access in zip(graph.operators, every, strict=True):
        shape, allowed = access.shapes.get(access.result, ()), access.cuts()
        found: list[Cuts] = [()] * len(shape)
        axis = rows.get(access.result)
        if axis is not None and len(shape) > 1 and allowed[axis]:
            if "rows" in rule:
                found[axis] = step_cuts(shape[axis], rule["rows"])
            elif "stripes" in rule:
                found[axis] = even_cuts(shape[axis], rule["stripes"])
        channel = channel_axis(access)
        if channel is not None and channel != axis:
            if "channels" in rule:
                found[channel] = even_cuts(shape[channel], rule["channels"])
            elif "weights" in rule:
                held = sum(graph.tensors[name].size_bytes for name in operator.weights)
                found[channel] = even_cuts(shape[channel], -(-held // rule["weights"]))
        if any(found):
            cuts[operator.name] = tuple(found)
    return Tiling(cuts)


def parse_rule(text: str) -> dict[str, int] | None:
    """Read ``rows=8``, ``stripes=4,channels=2`` or ``rows=8,weights=32KiB``; None where the text is no rule.

    Raises InputError if it looks like a rule and is none.
    """
    if "=" not in text:
        return None
    rule: dict[str, int] = {}
    for entry in text.split(","):
        name, _, value = entry.partition("=")
        name = name.strip()
        if name in rule:
            raise InputError(f"tiling {text!r}: {name} is given twice")
        if name == "weights":
            rule[name] = parse_size(value.strip())
        elif name in RULES and value.strip().isascii() and value.strip().isdigit():
            rule[name] = int(value)
        if rule.get(name, 0) < 1:
            raise InputError(
                f"tiling {text!r}: write rows=N or stripes=N, channels=N or weights=SIZE, with whole numbers above 0"
            )
    if "rows" in rule and "stripes" in rule:
        raise InputError(f"tiling {text!r}: rows and stripes both cut rows; give one")
    if "channels" in rule and "weights" in rule:
        raise InputError(f"tiling {text!r}: channels and weights both cut channels; give one")
    return rule


def read_tiling(path: Path, graph: Graph, sites: Mapping[str, NodeSite]) -> Tiling:
    """Read cuts by operator from a TOML file.

    ``[[cut]]`` tables: ``operator`` (a name, or a pattern with ``*``), ``axis`` (a number, or ``"sum"`` for the axis
    summed over), and ``at`` (positions), ``tiles`` (how many) or ``step`` (elements in each). ``[[order]]`` tables:
    ``operator`` and ``loops``, the axes in the order that tiles are gone through, the outermost first. ``segments`` may
    list lists of operators whose tiles are interleaved. Raises FormatError if the file is no such file; the message
    says where. Raises InputError if an operator is unknown, an axis does not exist or has too few elements, or if two
    tables say the same.
    """
    record = read_toml(path, "tiling", FormatError)
    unknown = sorted(set(record) - {"cut", "order", "segments"})
    if unknown:
        raise FormatError(f"tiling {path}: unknown key {unknown[0]!r}; it holds [[cut]] and [[order]] tables, segments")
    cuts: dict[str, list[Cuts]] = {}
    sums: dict[str, Cuts] = {}
    loops: dict[str, tuple[int, ...]] = {}
    seen: set[tuple[str, int]] = set()
    for i, entry in enumerate(_list(record.get("cut", []), f"tiling {path}: cut")):
        where = f"tiling {path}: cut {i + 1}"
        for name in _named(graph, entry, where):
            shape = graph.tensors[graph.operator(name).outputs[0]].shape or ()
            axis = _axis(entry.get("axis"), name, len(shape), where)
            if (name, axis) in seen:
                raise InputError(f"{where}: operator {name!r} is cut along {_axis_name(axis)} by two tables")
            seen.add((name, axis))
            if axis == REDUCED:
                reduced = operator_access(graph, sites, graph.operator(name)).reduced()
                if not reduced:
                    raise InputError(f"{where}: operator {name!r} cannot run as a chain of partial sums")
                sums[name] = _positions(entry, reduced, name, axis, where)
            else:
                at = _positions(entry, shape[axis], name, axis, where)
                cuts.setdefault(name, [()] * len(shape))[axis] = at
    for i, entry in enumerate(_list(record.get("order", []), f"tiling {path}: order")):
        where = f"tiling {path}: order {i + 1}"
        for name in _named(graph, entry, where):
            rank = len(graph.tensors[graph.operator(name).outputs[0]].shape or ())
            if set(entry) - {"operator", "loops"}:
                raise FormatError(f"{where}: give operator and loops")
            if name in loops:
                raise InputError(f"{where}: operator {name!r} is given an order by two tables")
            loops[name] = tuple(_axis(axis, name, rank, where) for axis in _list(entry.get("loops"), f"{where}: loops"))
    return Tiling(
        {name: tuple(axes) for name, axes in cuts.items()}, _segments(record.get("segments", []), graph, path),
        sums, loops,
    )  # fmt: skip


def _segments(value: object, graph: Graph, path: Path) -> tuple[tuple[str, ...], ...]:
    """Lists of operators, each of which is in the graph and in one list."""
    where = f"tiling {path}: segments"
    segments = tuple(tuple(_list(names, f"{where}: each")) for names in _list(value, where))
    known, seen = {operator.name for operator in graph.operators}, set()
    for name in chain(*segments):
        if not isinstance(name, str):
            raise FormatError(f"{where}: each holds names of operators, not {name!r}")
        if name not in known:
            raise InputError(f"{where}: no operator is named {name!r}{did_you_mean(name, known)}")
        if name in seen:
            raise InputError(f"{where}: operator {name!r} is named twice")
        seen.add(name)
    return segments


def _named(graph: Graph, entry: object, where: str) -> list[str]:
    """Operators that an entry names: the one of that name, whatever characters it has, or those of the pattern."""
    pattern = _text(entry, "operator", where)
    known = [operator.name for operator in graph.operators]
    names = [pattern] if pattern in known else [name for name in known if fnmatchcase(name, pattern)]
    if not names:
        raise InputError(f"{where}: no operator is named {pattern!r}{did_you_mean(pattern, known)}")
    return names


def _axis(value: object, operator: str, rank: int, where: str) -> int:
    """An axis of a result, or the axis summed over."""
    if value == "sum":
        return REDUCED
    if not isinstance(value, int) or isinstance(value, bool):
        raise FormatError(f"{where}: an axis is a whole number, or \"sum\"")
    if not -rank <= value < rank:
        raise InputError(f"{where}: operator {operator!r} has {rank} axes, not axis {value}")
    return value % rank


def _axis_name(axis: int) -> str:
    return "the axis summed over" if axis == REDUCED else f"axis {axis}"


def _positions(entry: Mapping[str, Any], size: int, operator: str, axis: int, where: str) -> Cuts:
    given = [key for key in ("at", "tiles", "step") if key in entry]
    if len(given) != 1 or set(entry) - {"operator", "axis", *given}:
        raise FormatError(f"{where}: give operator, axis, and one of at, tiles or step")
    if given == ["at"]:
        return tuple(_whole(position, f"{where}: each of at") for position in _list(entry["at"], f"{where}: at"))
    number = _whole(entry[given[0]], f"{where}: {given[0]}")
    if number < 1:
        raise FormatError(f"{where}: {given[0]} must be above 0, not {number}")
    if given == ["tiles"] and number > size:
        raise InputError(
            f"{where}: operator {operator!r} cannot be cut into {number} tiles along {_axis_name(axis)}, which has "
            f"{size} elements"
        )
    return even_cuts(size, number) if given == ["tiles"] else step_cuts(size, number)


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise FormatError(f"{where} must be a list")
    return value


def _text(entry: object, key: str, where: str) -> str:
    if not isinstance(entry, dict) or not isinstance(entry.get(key), str):
        raise FormatError(f"{where}: {key} must be a text")
    return str(entry[key])


def _whole(value: object, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise FormatError(f"{what} must be a whole number, not {value!r}")
    return value
