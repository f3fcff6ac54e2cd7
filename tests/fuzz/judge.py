"""A second judge of plan files: it reads JSON alone and shares no code with cosma's validator.

It says whether a plan keeps every rule of docs/problem.md and docs/plan_format.md and claims the traffic and the peak
that it has. It is written from those pages, plainly and slowly.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

#: Operators that work element by element, and what of theirs a result may overwrite.
FIRST = {"Relu", "Cast", "Sigmoid", "Clip"}
ANY = {"Add", "Mul", "Where"}
SAME = {"Equal", "Less"}
UPDATE = {"ScatterElements", "ScatterND", "TensorScatter"}


class Broken(Exception):
    """A rule is broken."""


def need(condition: bool, rule: str) -> None:
    """Raise where a rule is broken."""
    if not condition:
        raise Broken(rule)


def judge(plan: Any) -> str:
    """Return ``valid``, or the first rule that a plan breaks."""
    try:
        _judge(plan)
    except Broken as broken:
        return str(broken)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        return f"no plan: {error!r}"
    return "valid"


def _judge(plan: dict[str, Any]) -> None:
    need(plan["format"] == "cosma-plan" and plan["version"] in (1, 2), "format")
    machine = plan["accelerator"]
    step, capacity = machine["alignment"], machine["scratchpad"] - machine.get("reserved", 0)
    streams_weights = machine["weights"] == "stream"
    size = {t["name"]: t["bytes"] for t in plan["tensors"]}
    kind = {t["name"]: t["kind"] for t in plan["tensors"]}
    need(len(size) == len(plan["tensors"]), "tensor twice")
    need(all(type(n) is int and n >= 0 for n in size.values()), "size")
    operators = {o["name"]: o for o in plan["operators"]}
    need(len(operators) == len(plan["operators"]), "operator twice")
    producer: dict[str, str] = {}
    for o in plan["operators"]:
        for result in o["outputs"]:
            need(result in size and result not in producer and kind[result] in ("intermediate", "output"), "result")
            producer[result] = o["name"]
        need(all(kind[n] != "weight" for n in o["inputs"]), "weight among inputs")
        need(all(kind[n] == "weight" for n in o.get("weights", [])), "input among weights")
    need(all(n in producer for n in size if kind[n] in ("intermediate", "output")), "nothing produces it")
    reads = {name: [*o["inputs"], *o.get("weights", [])] for name, o in operators.items()}

    at: dict[str, int] = {}
    pending: dict[str, str | None] = {}
    outside = {n for n in size if kind[n] in ("input", "weight")}
    done: list[str] = []
    loaded = stored = streamed = peak = 0

    def space(name: str) -> int:
        return (size[name] + step - 1) // step * step

    def lost(name: str) -> bool:
        later = any(name in reads[o] for o in operators if o not in done)
        return name not in outside and (later or kind[name] == "output")

    def occupied() -> list[tuple[int, int]]:
        # What is allocated in place of an operand has no space of its own yet.
        return [(at[n], at[n] + space(n)) for n in at if pending.get(n) is None and space(n)]

    def check_space() -> None:
        nonlocal peak
        spans = sorted(occupied())
        need(all(a[1] <= b[0] for a, b in pairwise(spans)), "overlap")
        peak = max(peak, sum(high - low for low, high in spans))

    def place(name: str, address: int) -> None:
        need(name not in at, "there already")
        need(type(address) is int and address % step == 0, "alignment")
        need(address >= 0 and address + space(name) <= capacity, "bounds")
        at[name] = address

    for instruction in plan["instructions"]:
        what = instruction["do"]
        if what == "load":
            name = instruction["tensor"]
            need(name in outside, "loaded, never stored")
            place(name, instruction["address"])
            loaded += size[name]
        elif what == "allocate":
            name, operand = instruction["tensor"], instruction.get("in_place_of")
            need(name in size, "unknown")
            if operand is None:
                place(name, instruction["address"])
            else:
                need(name not in at and operand in at and operand not in pending, "takes over what is not there")
                need(at[operand] == instruction["address"], "takes over elsewhere")
                at[name] = at[operand]
            pending[name] = operand
        elif what == "execute":
            o = operators[instruction["operator"]]
            through = set(instruction.get("streamed") or [])
            need(o["name"] not in done, "executed twice")
            need(through <= {*reads[o["name"]], *o["outputs"]}, "streams what is not its own")
            if machine["operands"] == "resident":
                need(through <= (set(o.get("weights", [])) if streams_weights else set()), "streaming forbidden")
            read = [*o["inputs"], *([] if streams_weights else o.get("weights", []))]
            for name in read:
                need(name not in producer or producer[name] in done, "order")
                if name in through:
                    need(name in outside, "streamed, never stored")
                    streamed += size[name]
                else:
                    need(name in at and name not in pending, "operand absent")
            if streams_weights:
                streamed += sum(size[name] for name in o.get("weights", []))
            done.append(o["name"])
            for name in o["outputs"]:
                if name in through:
                    streamed += size[name]
                    outside.add(name)
                    continue
                need(name in pending, "not allocated")
                operand = pending.pop(name)
                if operand is not None:
                    need(machine.get("in_place", True), "in-place is off")
                    need(_may_overwrite(o, reads[o["name"]], size, name, operand), "in-place forbidden")
                    need(operand in at and not lost(operand), "overwritten and lost")
                    del at[operand]
            need(not pending, "allocation unused")
        elif what == "store":
            name = instruction["tensor"]
            need(name in at and name not in pending, "stored, not there")
            stored += size[name]
            outside.add(name)
        elif what == "free":
            name = instruction["tensor"]
            need(name in at and name not in pending and not lost(name), "freed and lost")
            del at[name]
        else:
            need(False, "unknown instruction")
        check_space()
    need(not pending and set(done) == set(operators), "not executed")
    need(all(n in outside for n in size if kind[n] == "output"), "output not stored")
    used = {n for names in reads.values() for n in names}
    compulsory = sum(size[n] for n in size if kind[n] == "output" or (kind[n] in ("input", "weight") and n in used))
    # What a reader can count may be left out; what is claimed must be so.
    total = loaded + stored + streamed
    claimed = plan.get("traffic")
    if claimed is not None:
        need((claimed["loaded"], claimed["stored"], claimed["streamed"]) == (loaded, stored, streamed), "traffic")
        need(claimed["compulsory"] == compulsory and claimed.get("total") in (None, total), "traffic")
        need(claimed.get("noncompulsory") in (None, total - compulsory), "traffic")
    need(plan.get("peak") in (None, peak), "peak")
    certificate = plan.get("certificate")
    if certificate is not None:
        bound = certificate["lower_bound"]
        need(0 <= bound <= total - compulsory, "bound")
        proven = "optimal" if bound == total - compulsory else "feasible"
        need(certificate.get("status") in (None, proven), "status")


def _may_overwrite(o: dict[str, Any], read: list[str], size: dict[str, int], result: str, operand: str) -> bool:
    if len(o["outputs"]) != 1 or result != o["outputs"][0] or operand not in read or size[result] > size[operand]:
        return False
    if o["type"] in FIRST:
        return operand == read[0]
    if o["type"] in UPDATE:
        return operand in o["inputs"][:1] and size[result] == size[operand]
    return o["type"] in ANY or (o["type"] in SAME and size[result] == size[operand])
