from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given, settings

from cosma.accelerator import Accelerator, Operands
from cosma.errors import CosmaError, FormatError, InfeasibleError
from cosma.graph import Graph
from cosma.plan.file import load_plan, plan_from_json, plan_to_json, save_plan
from cosma.validator import replay
from tests.planning import diamond, plan_for
from tests.random_graphs import instances

if TYPE_CHECKING:
    from pathlib import Path

GOLDEN = """{"format": "cosma-plan",
"version": 1,
"model": {"name":"diamond","sha256":null},
"accelerator": {"scratchpad":384,"alignment":64,"operands":"resident","weights":"stream","reserved":0,"in_place":true,\
"fusion":"none"},
"tensors": [
 {"name":"x","bytes":64,"kind":"input"},
 {"name":"w","bytes":32,"kind":"weight"},
 {"name":"a","bytes":128,"kind":"intermediate"},
 {"name":"b","bytes":128,"kind":"intermediate"},
 {"name":"c","bytes":64,"kind":"intermediate"},
 {"name":"d","bytes":128,"kind":"intermediate"},
 {"name":"y","bytes":128,"kind":"output"}
],
"operators": [
 {"name":"stem","type":"Conv","inputs":["x"],"outputs":["a"],"weights":["w"],"covers":["a"]},
 {"name":"left","type":"Relu","inputs":["a"],"outputs":["b"],"weights":[],"covers":["b"]},
 {"name":"right","type":"Pool","inputs":["a"],"outputs":["c"],"weights":[],"covers":["c"]},
 {"name":"widen","type":"Conv","inputs":["c"],"outputs":["d"],"weights":["w"],"covers":["d"]},
 {"name":"join","type":"Add","inputs":["b","d"],"outputs":["y"],"weights":[],"covers":["y"]}
],
"instructions": [
 {"do":"load","tensor":"x","address":0},
 {"do":"allocate","tensor":"a","address":64},
 {"do":"execute","operator":"stem","streamed":[]},
 {"do":"free","tensor":"x"},
 {"do":"allocate","tensor":"b","address":192},
 {"do":"execute","operator":"left","streamed":[]},
 {"do":"allocate","tensor":"c","address":0},
 {"do":"execute","operator":"right","streamed":[]},
 {"do":"free","tensor":"a"},
 {"do":"allocate","tensor":"d","address":64},
 {"do":"execute","operator":"widen","streamed":[]},
 {"do":"free","tensor":"c"},
 {"do":"allocate","tensor":"y","address":192,"in_place_of":"b"},
 {"do":"execute","operator":"join","streamed":[]},
 {"do":"store","tensor":"y"},
 {"do":"free","tensor":"d"},
 {"do":"free","tensor":"y"}
],
"traffic": {"total":256,"compulsory":224,"noncompulsory":32,"loaded":64,"stored":128,"streamed":64},
"peak": 320,
"certificate": {"status":"optimal","lower_bound":32,"gap":0.0,"method":"nothing is moved twice; assumes alignment 64, \
no on-chip moves, no recomputation, no tiling"},
"solver": {"found_by":"e1","seed":0,"strategy":"e1"}}
"""


def test_golden() -> None:
    plan = plan_for(diamond(), Accelerator(scratchpad=384, operands=Operands.RESIDENT))
    assert plan_to_json(plan) == GOLDEN
    assert json.loads(GOLDEN)["format"] == "cosma-plan"


@settings(max_examples=80, deadline=None, derandomize=True)
@given(instances())
def test_a_plan_survives_the_trip(instance: tuple[Graph, Accelerator]) -> None:
    try:
        plan = plan_for(*instance, strategy="existing")
    except InfeasibleError:
        assume(False)
    text = plan_to_json(plan)
    again = plan_from_json(text)
    assert plan_to_json(again) == text
    assert again.instructions == plan.instructions
    assert replay(again).valid


def test_unknown_keys_are_ignored_and_files_are_whole(tmp_path: Path) -> None:
    foreign = json.loads(GOLDEN) | {"comment": "by hand"}
    foreign["instructions"][0]["remark"] = "first"
    plan = plan_from_json(json.dumps(foreign))
    save_plan(plan, tmp_path / "plan.json")
    assert (tmp_path / "plan.json").read_text() == GOLDEN
    assert replay(load_plan(tmp_path / "plan.json"), diamond()).valid


def _set(path: str, value: Any) -> str:
    tree = json.loads(GOLDEN)
    node = tree
    *parents, last = path.split(".")
    for key in parents:
        node = node[int(key) if key.isdigit() else key]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return json.dumps(tree)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format", "onnx", "format 'onnx'"),
        ("version", 3, "version 3"),
        ("tensors", None, "tensors"),
        ("tensors.0.bytes", "many", r"bytes"),
        ("tensors.0.bytes", -1, "negative"),
        ("tensors.2.kind", "scratch", "kind"),
        ("instructions.0.do", "teleport", "teleport"),
        ("instructions.0.address", None, r"instructions\[0\] \(load\) has no 'address'"),
        ("instructions.2.operator", None, r"instructions\[2\] \(execute\) has no 'operator'"),
        ("instructions.2.streamed", ["stem_w", "stem_w"], r"instructions\[2\] \(execute\) streams 'stem_w' twice"),
        ("operators.1.inputs", ["nothing"], "'left' reads 'nothing'"),
        ("accelerator.operands", "floating", "operands"),
        ("accelerator.scratchpad", 0, "no bytes"),
        ("traffic.total", 1, "traffic.total"),
        ("traffic.noncompulsory", 1, "traffic.noncompulsory"),
        ("certificate.status", "feasible", "certificate status"),
        ("certificate.gap", 0.5, "gap 0.5"),
        ("model", "diamond", "model"),
    ],
)
def test_a_broken_file_names_the_place(path: str, value: Any, message: str) -> None:
    with pytest.raises(CosmaError, match=message) as caught:
        plan_from_json(_set(path, value), "plan.json")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", ["", "[]", "{", "\xff", "null"])
def test_what_is_no_plan(text: str) -> None:
    with pytest.raises(FormatError, match=r"plan\.json"):
        plan_from_json(text.encode("latin-1"), "plan.json")
