"""Mutated plan files: whatever cosma accepts as valid, the judge must find valid too."""

from __future__ import annotations

import copy
import json
import random
from functools import cache
from typing import Any

import numpy as np

from cosma import replay
from cosma.compiler import run_compile
from cosma.errors import CosmaError, PlanInvalidError
from cosma.export import PlanVisitor, c_header, instructions_csv, stays_csv, visit
from cosma.plan.file import plan_from_json, plan_to_json
from tests.fuzz.judge import judge
from tests.fuzz.runner import WrongError
from tests.random_graphs import Shape, random_instance

BASES = 40
TYPES = ("Relu", "Conv", "Add", "Equal", "Where", "Cast", "Softmax", "")
ODD: tuple[Any, ...] = (
    0, 1, -1, 2**31, 2**53, 2**63, 2**64, 10**30, 1e308, 1.5, True, None, "", "x", "\u202e", [], {}, [[]], "1e9999",
)  # fmt: skip


@cache
def bases() -> tuple[str, ...]:
    """Valid plans of small random instances in all modes."""
    found = []
    for number in range(BASES):
        graph, accelerator = random_instance(np.random.default_rng(number), Shape(operators=6))
        accelerator = accelerator.replace(fusion="none")
        try:
            plan = run_compile(graph, accelerator, strategy=("e1", "e2", "e3")[number % 3]).plan
        except CosmaError:
            continue
        found.append(plan_to_json(plan))
    return tuple(found)


def case(seed: int) -> str:
    """Mutate one plan and read, replay and export it."""
    draw = random.Random(seed)
    text = make(draw)
    plan = plan_from_json(text)
    verdict = judge(json.loads(text))
    valid = replay(plan).valid
    if valid and verdict != "valid":
        raise WrongError(f"accepted, although: {verdict}")
    if not valid and verdict == "valid":
        raise WrongError(f"refused, although valid: {replay(plan).violations[0]}")
    for export in (c_header, instructions_csv, stays_csv, plan_to_json, lambda p: visit(p, PlanVisitor())):
        try:
            export(plan)
        except PlanInvalidError:
            if valid:
                raise
    return "valid" if valid else "invalid"


def make(draw: random.Random) -> str:
    """Make the text of a mutated plan."""
    text = draw.choice(bases())
    if draw.random() < 0.1:
        return _bytes(draw, text)
    plan = json.loads(text)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        draw.choice(MUTATIONS)(draw, plan)
    return json.dumps(plan)


def _bytes(draw: random.Random, text: str) -> str:
    at = draw.randrange(len(text))
    return draw.choice(
        (
            text[:at],
            text[:at] + text[at + 1 :],
            text[:at] + chr(draw.randrange(0xD000)) + text[at + 1 :],
            text[:at] + text[max(0, at - 40) :],
            "[" * 5000 + text,
            text.replace("0", "9" * 400, 1),
        )
    )


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        found += [p for key, entry in value.items() for p in _paths(entry, (*path, key))]
    elif isinstance(value, list):
        found += [p for i, entry in enumerate(value) for p in _paths(entry, (*path, i))]
    return found


def _value(draw: random.Random, plan: dict[str, Any]) -> None:
    *way, last = draw.choice([path for path in _paths(plan) if path])
    place: Any = plan
    for key in way:
        place = place[key]
    old = place[last]
    if isinstance(old, int) and not isinstance(old, bool) and draw.random() < 0.7:
        place[last] = draw.choice((old + 1, old - 1, old + 16, old - 16, old + 64, 2 * old, old // 2, -old))
    elif draw.random() < 0.2:
        del place[last]
    else:
        place[last] = copy.deepcopy(draw.choice(ODD))


def _order(draw: random.Random, plan: dict[str, Any]) -> None:
    rows = plan[draw.choice(("instructions", "instructions", "instructions", "operators", "tensors"))]
    if not isinstance(rows, list) or not rows:
        return
    i, j = draw.randrange(len(rows)), draw.randrange(len(rows))
    match draw.randrange(4):
        case 0:
            rows[i], rows[j] = rows[j], rows[i]
        case 1:
            del rows[i]
        case 2:
            rows.insert(j, copy.deepcopy(rows[i]))
        case _:
            rows.insert(j, rows.pop(i))


def _names(plan: dict[str, Any]) -> list[Any]:
    tensors = plan.get("tensors")
    found = [t.get("name", "x") for t in tensors if isinstance(t, dict)] if isinstance(tensors, list) else []
    return found or ["x"]


def _instruction(draw: random.Random, plan: dict[str, Any]) -> None:
    rows = plan.get("instructions")
    if not isinstance(rows, list) or not rows or not isinstance(one := draw.choice(rows), dict):
        return
    others = [row for row in rows if isinstance(row, dict)]
    names = _names(plan)
    match draw.randrange(7):
        case 0:
            one["address"] = draw.choice([row.get("address", 0) for row in others])
        case 1:
            one["tensor"] = draw.choice(names)
        case 2:
            one["in_place_of"] = draw.choice([*names, None])
        case 3:
            one["streamed"] = draw.sample(names, draw.randrange(len(names) + 1))
        case 4:
            one["do"] = draw.choice(("load", "allocate", "execute", "store", "free"))
        case 5:
            one.pop(draw.choice(("address", "tensor", "in_place_of", "streamed")), None)
        case _:
            old = one.get("streamed")
            one["streamed"] = old[:-1] if isinstance(old, list) else []


def _graph(draw: random.Random, plan: dict[str, Any]) -> None:
    rows = plan.get(draw.choice(("tensors", "operators")))
    if not isinstance(rows, list) or not rows or not isinstance(one := draw.choice(rows), dict):
        return
    names = _names(plan)
    match draw.randrange(5):
        case 0:
            one["kind"] = draw.choice(("input", "weight", "intermediate", "output"))
        case 1:
            one["bytes"] = draw.choice((0, 1, 15, 16, 17, 64, 4096))
        case 2:
            one["type"] = draw.choice(TYPES)
        case 3:
            key = draw.choice(("inputs", "outputs", "weights"))
            one[key] = draw.sample(names, draw.randrange(min(4, len(names)) + 1))
        case _:
            machine = plan.get("accelerator")
            if isinstance(machine, dict):
                key = draw.choice(("scratchpad", "alignment", "operands", "weights", "in_place", "reserved"))
                machine[key] = draw.choice(
                    {"operands": ("resident", "streamable"), "weights": ("stream", "scratchpad"),
                     "in_place": (True, False)}.get(key, (1, 8, 16, 64, 100, 256))  # type: ignore[call-overload]
                )  # fmt: skip


MUTATIONS = (_value, _order, _instruction, _instruction, _graph)
