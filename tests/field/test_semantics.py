"""What an operator is, its attributes decide: training modes, random operators, results that nobody reads."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import parser

import cosma
from cosma import Accelerator, InputError
from cosma.execute import run_plan
from cosma.frontend import LoadedModel, load_onnx
from cosma.graph.semantics import is_elementwise, is_random

NORMALISATION = """
<ir_version: 8, opset_import: ["" : {opset}]>
net (float[1,4,8,8] x) => (float[1,4,8,8] y{stated})
<float[4] g = {{1,2,1,2}}, float[4] b = {{0,1,0,1}}, float[4] m = {{0,0,0,0}}, float[4] v = {{1,1,1,1}}> {{
    a = Abs (x)
    n{results} = BatchNormalization {attributes} (a, g, b, m, v)
    y = Relu (n)
}}
"""
DROPOUT = """
<ir_version: 8, opset_import: ["" : {opset}]>
net (float[16] x{inputs}) => (float[16] y)
<float ratio = {{0.5}}, bool yes = {{1}}, bool no = {{0}}, float[16] c = {{1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}}> {{
    a = Relu (x)
    d{results} = Dropout {attributes} ({operands})
    e = Add (d, a)
    y = Neg (e)
}}
"""
ROOM = Accelerator(scratchpad="64KiB")
FUSING = ROOM.replace(fusion="epilogue")


def load(folder: Path, text: str) -> LoadedModel:
    path = folder / "net.onnx"
    path.write_bytes(parser.parse_model(text).SerializeToString())
    return load_onnx(path)


@pytest.mark.parametrize(
    ("opset", "attributes", "results", "stated", "kept"),
    [
        (15, "<training_mode = 1>", ", rm, rv", "", ("n", "rm", "rv")),
        (15, "<training_mode = 1>", ", rm, rv", ", float[4] rm", ("n", "rm", "rv")),
        (14, "<training_mode = 1>", ", rm, rv", "", ("n", "rm", "rv")),
        (9, "", ", rm, rv, sm, sv", "", ("n", "rm", "rv", "sm", "sv")),
        (9, "", ", rm, rv, sm, sv", ", float[4] sv", ("n", "rm", "rv", "sm", "sv")),
        (7, "", ", rm, rv, sm, sv", "", ("n", "rm", "rv", "sm", "sv")),
        (6, "<is_test = 0>", ", rm, rv, sm, sv", "", ("n", "rm", "rv", "sm", "sv")),
        (6, "<is_test = 0>", "", "", ("n",)),
    ],
)
def test_normalisation_in_training_is_not_elementwise_whatever_is_read(
    tmp_path: Path, opset: int, attributes: str, results: str, stated: str, kept: tuple[str, ...]
) -> None:
    text = NORMALISATION.format(opset=opset, attributes=attributes, results=results, stated=stated)
    loaded = load(tmp_path, text)
    found = next(o for o in loaded.graph.operators if o.type == "BatchNormalization")
    assert found.outputs == kept
    assert not is_elementwise(found)
    fused = cosma.compile(loaded, FUSING, effort=0.5)
    # Neither fused into its producer nor written over its operand.
    assert not [o for o in fused.graph.operators if "BatchNormalization" in [p.type for p in o.parts[1:]]]
    plain = cosma.compile(loaded, ROOM, effort=0.5)
    assert not [i for i in plain.instructions if isinstance(i, cosma.Allocate) and i.tensor == "n" and i.in_place_of]


@pytest.mark.parametrize(
    ("opset", "attributes"), [(15, ""), (15, "<training_mode = 0>"), (9, ""), (7, ""), (6, "<is_test = 1>")]
)
def test_normalisation_in_inference_is_elementwise(tmp_path: Path, opset: int, attributes: str) -> None:
    loaded = load(tmp_path, NORMALISATION.format(opset=opset, attributes=attributes, results="", stated=""))
    assert is_elementwise(next(o for o in loaded.graph.operators if o.type == "BatchNormalization"))


@pytest.mark.parametrize(
    ("opset", "attributes", "operands", "inputs"),
    [
        (15, "", "a, ratio, yes", ""),
        (12, "", "a, ratio, yes", ""),
        (15, "", "a, ratio, mode", ", bool mode"),  # known at run time only, so it may train
        (6, "<is_test = 0>", "a", ""),
    ],
)
@pytest.mark.parametrize("results", ["", ", mask"])
def test_dropout_in_training_draws_random_numbers(
    tmp_path: Path, opset: int, attributes: str, operands: str, inputs: str, results: str
) -> None:
    text = DROPOUT.format(opset=opset, attributes=attributes, operands=operands, inputs=inputs, results=results)
    loaded = load(tmp_path, text)
    found = next(o for o in loaded.graph.operators if o.type == "Dropout")
    assert is_random(found.parts[0])
    assert not is_elementwise(found)
    plan = cosma.compile(loaded, FUSING, effort=0.5)
    cosma.save_plan(plan, tmp_path / "plan.json")
    with pytest.raises(InputError, match="draws random numbers"):
        run_plan(plan, tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("opset", "attributes", "operands"),
    [(15, "", "a"), (15, "", "a, ratio"), (15, "", "a, ratio, no"), (10, "", "a"), (6, "<is_test = 1>", "a")],
)
def test_dropout_in_inference_is_a_view(tmp_path: Path, opset: int, attributes: str, operands: str) -> None:
    text = DROPOUT.format(opset=opset, attributes=attributes, operands=operands, inputs="", results=", mask")
    assert [o.type for o in load(tmp_path, text).graph.operators] == ["Relu", "Add", "Neg"]


@pytest.mark.parametrize("opset", [7, 9, 10])
def test_a_mask_that_is_read_in_inference_has_the_shape_of_the_operand(tmp_path: Path, opset: int) -> None:
    text = DROPOUT.format(opset=opset, attributes="", operands="a", inputs="", results=", mask")
    kind = "bool" if opset >= 10 else "float"
    loaded = load(tmp_path, text.replace("=> (float[16] y)", f"=> (float[16] y, {kind}[m] mask)"))
    assert loaded.graph.tensors["mask"].size_bytes == (16 if opset >= 10 else 64)
    report = run_plan(cosma.compile(loaded, ROOM, effort=0.5), tmp_path / "net.onnx")
    assert report.passed


def test_dropout_of_a_constant_is_not_folded_in_training(tmp_path: Path) -> None:
    text = DROPOUT.format(opset=15, attributes="", operands="c, ratio, yes", inputs="", results="")
    assert "Dropout" in [o.type for o in load(tmp_path, text).graph.operators]
    text = DROPOUT.format(opset=15, attributes="", operands="c, ratio, no", inputs="", results="")
    assert "Dropout" not in [o.type for o in load(tmp_path, text).graph.operators]


@pytest.mark.parametrize(
    "node",
    [
        "r = RandomUniformLike (a)",
        "r = RandomNormalLike (a)",
        "r = RandomUniform <shape = [16]> ()",
        "r = RandomNormal <shape = [16]> ()",
        "r = Bernoulli (a)",
    ],
)
def test_random_operators_are_operators_of_their_own(tmp_path: Path, node: str) -> None:
    text = f"""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[16] x) => (float[16] y) {{
            a = Sigmoid (x)
            {node}
            s = Relu (r)
            y = Add (s, a)
        }}"""
    loaded = load(tmp_path, text)
    plan = cosma.compile(loaded, FUSING, effort=0.5)
    first = next(o for o in plan.graph.operators if "r" in o.covers)
    assert first.parts[0].type in node  # nothing absorbs it
    assert not [i for i in plan.instructions if isinstance(i, cosma.Allocate) and i.tensor == "r" and i.in_place_of]
    with pytest.raises(InputError, match="draws random numbers"):
        run_plan(plan, tmp_path / "net.onnx")


def test_attributes_are_kept(tmp_path: Path) -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        net (float[1,2,8,8] x) => (float[1,2,8,8] y) {
            a = LpPool <kernel_shape = [3,3], pads = [1,1,1,1], p = 1, auto_pad = "NOTSET"> (x)
            y = com.microsoft.QuickGelu <alpha = 1.5> (a)
        }"""
    first, second = load(tmp_path, text).graph.operators
    assert dict(first.attributes) == {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1), "p": 1, "auto_pad": "NOTSET"}
    assert (second.type, second.domain, dict(second.attributes)) == ("QuickGelu", "com.microsoft", {"alpha": 1.5})
    assert hash(first) != hash(second)
    graph = load(tmp_path, text).graph
    from cosma.graph.json_format import graph_from_json, graph_to_json

    assert graph_from_json(graph_to_json(graph)) == graph


def test_training_normalisation_runs_equal_to_the_model(tmp_path: Path) -> None:
    text = NORMALISATION.format(opset=15, attributes="<training_mode = 1>", results=", rm, rv", stated="")
    loaded = load(tmp_path, text)
    plan = cosma.compile(loaded, Accelerator(scratchpad="2KiB", fusion="epilogue"), effort=0.5)
    assert onnx.load(tmp_path / "net.onnx").graph.node[1].op_type == "BatchNormalization"
    assert run_plan(plan, tmp_path / "net.onnx").equal
