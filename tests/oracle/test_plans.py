"""Plans stay the same, instruction for instruction, until someone means to change them.

``--update-oracle`` writes what is planned now. Review the difference of ``plans.json`` like any other: a change that
should not change plans has none.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from cosma.accelerator import Accelerator
from cosma.compiler import Limits, run_compile
from cosma.errors import InfeasibleError
from cosma.graph import Graph
from cosma.plan import Allocate, Execute, Free, Instruction, Load, Store
from tests.oracle.cases import Case, cases

PLANS = Path(__file__).with_name("plans.json")
KINDS = ("small", "middle", "large", "long", "symmetric", "stationary", "zoo")


def fingerprint(text: str) -> str:
    """A short hash: enough to tell plans apart."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def spelled(instruction: Instruction) -> str:
    """An instruction in words that do not depend on how the library writes it."""
    match instruction:
        case Load():
            return f"load {instruction.tensor} {instruction.address}"
        case Allocate():
            return f"allocate {instruction.tensor} {instruction.address} {instruction.in_place_of}"
        case Execute():
            scratch = "" if instruction.workspace is None else f" {instruction.workspace}"
            return f"execute {instruction.operator} {','.join(instruction.streamed)}{scratch}"
        case Store():
            return f"store {instruction.tensor}"
        case Free():
            return f"free {instruction.tensor}"
    raise AssertionError(f"unknown instruction {instruction}")


def spelled_graph(graph: Graph) -> str:
    """What a plan can depend on of a graph."""
    tensors = [f"{t.name} {t.size_bytes} {t.kind.value}" for t in graph.tensors.values()]
    operators = [f"{o.name} {o.type} {o.inputs} {o.outputs} {o.weights}" for o in graph.operators]
    operators += [f"{o.name} in {m.name} {m.may_stream} {m.workspace_bytes}" for o in graph.operators for m in o.modes]
    return "\n".join([*tensors, *operators])


def spelled_accelerator(accelerator: Accelerator) -> str:
    """What a plan can depend on of an accelerator."""
    names = ("scratchpad", "alignment", "operands", "weights", "reserved", "in_place", "fusion")
    return " ".join(f"{name}={getattr(accelerator, name)}" for name in names)


def outcome(case: Case) -> dict[str, Any]:
    """What one case comes to: the hash of its instance, and of its plan with figures that tell what changed."""
    graph, accelerator = case.instance()
    found: dict[str, Any] = {"instance": fingerprint(f"{spelled_graph(graph)}\n{spelled_accelerator(accelerator)}")}
    try:
        plan = run_compile(
            graph, accelerator, strategy=case.strategy, limits=Limits(effort=case.effort), seed=case.seed
        ).plan
    except InfeasibleError:
        return found | {"plan": "infeasible"}
    return found | {
        "plan": fingerprint("\n".join(spelled(i) for i in plan.instructions)),
        "noncompulsory": plan.traffic.noncompulsory,
        "peak": plan.peak_bytes,
        "bound": plan.certificate.lower_bound,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_plans_are_the_pinned_ones(request: pytest.FixtureRequest, kind: str) -> None:
    found = {case.name: outcome(case) for case in cases() if case.kind == kind}
    pinned = json.loads(PLANS.read_text(encoding="utf-8"))
    if request.config.getoption("--update-oracle"):
        pinned = {case.name: (pinned | found).get(case.name) for case in cases()}
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in pinned.items())
        PLANS.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    changed = [
        f"{name}: {'instance' if row['instance'] != pinned[name]['instance'] else 'plan'} changed\n"
        f"  pinned {pinned[name]}\n  now    {row}"
        for name, row in found.items()
        if row != pinned[name]
    ]
    assert not changed, f"{len(changed)} of {len(found)} changed\n" + "\n".join(changed)


def test_every_case_is_pinned() -> None:
    assert [case.name for case in cases()] == list(json.loads(PLANS.read_text(encoding="utf-8")))
