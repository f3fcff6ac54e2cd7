"""Plans to start from: a given plan is never lost, and where it does not fit, its order still helps.

A plan for a smaller scratchpad is a plan for a larger one, so a compile that starts from it is never worse. A plan that
is not valid on the accelerator asked for lends its order alone. The network must be the same.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cosma.door as door
from cosma.errors import InputError
from cosma.lowering import lift_order, lift_realised
from cosma.plan.file import load_plan, plan_to_json
from cosma.plan.plan import Plan
from cosma.topological import nearest_order
from cosma.validator import replay_instructions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cosma.graph import Graph, Operator
    from cosma.lowering import Realised
    from cosma.problem import Decisions, Instance


@dataclass(frozen=True, slots=True)
class Start:
    """A given plan as the accelerator asked for sees it."""

    #: ``start 1``, ``start 2`` ... in the order given.
    name: str
    #: The file, or the model's name where a plan was given itself: for messages only.
    source: str
    #: Of the plan in canonical JSON (as :func:`cosma.save_plan` writes it).
    sha256: str
    #: Its operators by number, in the order they execute.
    order: tuple[int, ...]
    #: Its decisions and addresses, without useless transfers; None where it is not valid here.
    realised: Realised | None
    #: Where it is not valid here: the first rule it breaks. Empty otherwise.
    why_not: str

    @property
    def hint(self) -> Decisions | Sequence[int]:
        """A start for a search: the decisions where they are valid here, else the order."""
        return self.order if self.realised is None else self.realised.decisions


@dataclass(frozen=True, slots=True)
class GivenPlan:
    """A plan to start from as it was given."""

    #: ``start 1``, ``start 2`` ... in the order given.
    name: str
    #: The file, or the model's name where a plan was given itself.
    source: str
    #: The plan.
    plan: Plan


def load_starts(given: Sequence[Plan | Path | str]) -> tuple[GivenPlan, ...]:
    """Read plans, or the files of plans; their accelerators do not matter.

    Raises InputError if a file cannot be read or is no plan.
    """
    found = []
    for i, one in enumerate(given, 1):
        name = f"start {i}"
        plan = one if isinstance(one, Plan) else load_plan(door.path(one, f"{name} (or a Plan)"))
        found.append(GivenPlan(name, plan.model_name if isinstance(one, Plan) else str(one), plan))
    return tuple(found)


def fit_starts(
    problems: Sequence[Instance], given: Sequence[GivenPlan], *, dtype: str | None = None
) -> tuple[tuple[int, Start], ...]:
    """Match plans with the instances they are of, and replay each there.

    The instances are one network with some choices of operators to fuse; ``dtype`` is the element type it is counted
    in, for messages. Returns the number of the instance and the start, in the order given. Raises InputError if a plan
    is for another network (the message says what differs first), or its order is no order of the operators.
    """
    found = []
    for one in given:
        graph = one.plan.graph
        same = [i for i, problem in enumerate(problems) if same_network(graph, problem.graph)]
        index = next((i for i in same if same_modes(graph, problems[i].graph)), same[0] if same else 0)
        found.append((index, _read_start(problems[index], one, dtype)))
    return tuple(found)


def same_network(one: Graph, other: Graph) -> bool:
    """Whether two graphs have the same operators and tensors, as far as plans see them."""
    return next(_differences(one, other), None) is None


def same_modes(one: Graph, other: Graph) -> bool:
    """Whether two graphs are the same network with the same modes of each operator."""
    modes = {operator.name: operator.modes for operator in one.operators}
    return same_network(one, other) and all(modes[o.name] == o.modes for o in other.operators)


def _read_start(problem: Instance, given: GivenPlan, dtype: str | None) -> Start:
    name, source, plan = given.name, given.source, given.plan
    different = next(_differences(plan.graph, problem.graph), None)
    if different is not None:
        raise InputError(
            f"{name} ({source}) is a plan of another network: {different}"
            + _settings_that_differ(plan, problem, dtype)
            + "; a plan to start from must have the same operators and tensors"
        )
    text = plan_to_json(plan)
    report = replay_instructions(problem.graph, problem.accelerator, plan.instructions)
    try:
        order = lift_order(problem, plan.instructions)
    except ValueError as error:
        raise InputError(f"{name} ({source}) is no plan: {error}") from error
    _check_topological(problem, order, f"{name} ({source})")
    order = in_precedence(problem, order)
    return Start(
        name,
        source,
        hashlib.sha256(text.encode()).hexdigest(),
        order,
        lift_realised(problem, plan.instructions) if report.valid else None,
        "" if report.valid else str(report.violations[0]),
    )


def _differences(theirs: Graph, ours: Graph) -> Iterator[str]:
    """Differences between a plan's graph and the network that matter to plans: operators first, then tensors."""
    planned = {operator.name: operator for operator in theirs.operators}
    for operator in ours.operators:
        match = planned.pop(operator.name, None)
        if match is None:
            yield f"it has no operator {operator.name!r} ({operator.type})"
        elif _signature(match) != _signature(operator):
            yield f"operator {operator.name!r} is {_describe(match)} there, {_describe(operator)} here"
    for operator in planned.values():
        yield f"its operator {operator.name!r} ({operator.type}) is not here"
    for name in dict.fromkeys(name for operator in ours.operators for name in (*operator.operands, *operator.outputs)):
        there, here = theirs.tensors[name], ours.tensors[name]
        if (there.size_bytes, there.kind) != (here.size_bytes, here.kind):
            yield (
                f"tensor {name!r} ({there.kind}) has {there.size_bytes} bytes there, "
                f"{here.size_bytes} ({here.kind}) here"
            )


def _signature(operator: Operator) -> tuple[object, ...]:
    return operator.type, set(operator.inputs), set(operator.weights), set(operator.outputs)


def _describe(operator: Operator) -> str:
    return f"{operator.type}({', '.join(operator.operands)}) -> {', '.join(operator.outputs)}"


def _settings_that_differ(plan: Plan, problem: Instance, dtype: str | None) -> str:
    """Options that may explain why two networks differ."""
    options = []
    if plan.dtype != dtype:
        options.append(f"it counts elements as {plan.dtype or 'the model does'}, this compile as {dtype or 'it does'}")
    if plan.accelerator.fusion != problem.accelerator.fusion:
        options.append(f"its fusion is {plan.accelerator.fusion}, here {problem.accelerator.fusion}")
    return f" ({'; '.join(options)})" if options else ""


def in_precedence(problem: Instance, order: Sequence[int]) -> tuple[int, ...]:
    """The order itself, or the nearest order that obeys the precedence constraints."""
    rank = {v: i for i, v in enumerate(order)}
    followers = [[rank[w] for w in problem.successors_of(v).tolist()] for v in order]
    return tuple(order[i] for i in nearest_order(followers))


def _check_topological(problem: Instance, order: Sequence[int], where: str) -> None:
    position = {v: i for i, v in enumerate(order)}
    for v in order:
        made = {int(problem.producer[t]) for t in problem.operands_of(v).tolist()} - {-1}
        for u in sorted(made):
            if position[u] > position[v]:
                later, earlier = problem.operator_names[v], problem.operator_names[u]
                raise InputError(f"{where} is no plan: {later!r} executes before {earlier!r}, whose result it reads")
