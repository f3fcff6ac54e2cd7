"""If, Loop and Scan are opaque, except where what they do is known; local functions are inlined."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import onnx.parser
import pytest

from cosma.errors import ModelLoadError
from cosma.frontend import LoadedModel

Load = Callable[..., LoadedModel]

BRANCHES = """
    then_branch = t () => (float[4] p) { h = Relu(a)
 p = Mul(h, w) },
    else_branch = e () => (float[4] q) { h = Neg(a)
 g = Abs(h)
 q = Add(g, w) }"""


def test_an_if_reads_what_its_branches_capture(load_text: Load) -> None:
    loaded = load_text(f"""
        g (float[4] x, bool c) => (float[4] y) <float[4] w = {{1,2,3,4}}> {{
            a = Exp(x)
            y = If(c) <{BRANCHES}>
        }}""")
    operator = loaded.graph.operators[1]
    assert (operator.type, operator.inputs, operator.weights) == ("If", ("c", "a"), ("w",))
    assert operator.macs is None


@pytest.mark.parametrize(("condition", "types"), [(1, ["Exp", "Relu", "Mul"]), (0, ["Exp", "Neg", "Abs", "Add"])])
def test_an_if_whose_condition_is_known_is_the_branch_it_takes(
    condition: int, types: list[str], load_text: Load
) -> None:
    loaded = load_text(f"""
        g (float[4] x) => (float[4] z) <float[4] w = {{1,2,3,4}}, bool c = {{{condition}}}> {{
            a = Exp(x)
            y = If(c) <{BRANCHES}>
            z = Reshape(y, s)
            s = Shape(x)
        }}""")
    assert [operator.type for operator in loaded.graph.operators] == types
    assert loaded.graph.operators[-1].covers == (("p" if condition else "q"), "y", "z")
    assert any("known condition" in note for note in loaded.notes)


def test_two_branches_that_share_names_inside_are_told_apart(load_text: Load) -> None:
    loaded = load_text(f"""
        g (float[4] a) => (float[4] z) <float[4] w = {{1,2,3,4}}, bool c = {{1}}> {{
            y = If(c) <{BRANCHES}>
            u = If(c) <{BRANCHES}>
            z = Add(y, u)
        }}""")
    assert [operator.outputs for operator in loaded.graph.operators] == [("h",), ("p",), ("u/h",), ("u/p",), ("z",)]


def test_nested_ifs_of_known_condition_unfold(load_text: Load) -> None:
    loaded = load_text("""
        g (float[4] x) => (float[4] y) <bool c = {1}> {
            y = If(c) <
                then_branch = t () => (float[4] p) {
                    h = Relu(x)
                    p = If(c) <
                        then_branch = tt () => (float[4] r) { r = Neg(h) },
                        else_branch = ee () => (float[4] r2) { r2 = Abs(h) }>
                },
                else_branch = e () => (float[4] q) { q = Abs(x) }>
        }""")
    assert [operator.type for operator in loaded.graph.operators] == ["Relu", "Neg"]
    assert loaded.graph.operators[1].covers == ("r", "p", "y")


def test_an_if_whose_branches_differ_in_shape_is_an_error(load_text: Load) -> None:
    with pytest.raises(ModelLoadError, match=r"node 'z' \(If\)"):
        load_text("""
            g (float[4] x, bool c) => (float[n] y) {
                z = If(c) <
                    then_branch = t () => (float[4] p) { p = Relu(x) },
                    else_branch = e () => (float[8] q) { q = Concat<axis = 0>(x, x) }>
                y = Relu(z)
            }""")


LOOP = """
    g (float[3] x, bool go) => (float[3] last, float[N,3] all) <int64 rounds = {{5}}, bool yes = {{1}}> {{
        last, all = Loop(rounds, {start}, x) <
            body = b (int64 i, bool c, float[3] s) => (bool c2, float[3] s2, float[3] out) {{
                {condition}
                s2 = Add(s, x)
                out = Identity(s2)
            }}>
    }}"""


@pytest.mark.parametrize(
    ("start", "condition"),
    [("yes", "c2 = Identity(c)"), ("", "c2 = Identity(c)"), ("yes", "c2 = Constant<value = bool {1}>()")],
)
def test_a_loop_that_nothing_ends_early_runs_its_trip_count(start: str, condition: str, load_text: Load) -> None:
    loaded = load_text(LOOP.format(start=start, condition=condition))
    assert loaded.graph.tensors["all"].shape == (5, 3)
    assert loaded.graph.operators[0].inputs == ("x",)
    assert loaded.graph.operators[0].weights == ()


@pytest.mark.parametrize(
    ("start", "condition"),
    [("go", "c2 = Identity(c)"), ("yes", "c2 = Not(c)"), ("yes", "c2 = Constant<value = bool {0}>()")],
)
def test_a_loop_that_may_end_early_is_an_error_unless_its_length_is_stated(
    start: str, condition: str, load_text: Load
) -> None:
    with pytest.raises(ModelLoadError, match=r"\(Loop\).*'all'.*float32\[\?,3\]"):
        load_text(LOOP.format(start=start, condition=condition))
    loaded = load_text(LOOP.format(start=start, condition=condition), {"N": 2})
    assert loaded.graph.tensors["all"].shape == (2, 3)


def test_local_functions_are_inlined(load_proto: Load) -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 20, "my" : 1]>
        g (float[4] x) => (float[4] y) { a = my.twice(x)
 y = my.twice(a) }
        <domain: "my", opset_import: ["" : 20, "my" : 1]>
        twice (p) => (q) { h = my.once(p)
 q = my.once(h) }
        <domain: "my", opset_import: ["" : 20]>
        once (p) => (q) { t = Relu(p)
 q = Neg(t) }""")
    loaded = load_proto(model)
    assert [operator.type for operator in loaded.graph.operators] == ["Relu", "Neg"] * 4
    assert loaded.graph.operators[-1].outputs == ("y",)
    assert "inlined 2 calls of local functions" in loaded.notes


def test_functions_that_call_each_other_are_refused(load_proto: Load) -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 20, "my" : 1]>
        g (float[4] x) => (float[4] y) { y = my.one(x) }
        <domain: "my", opset_import: ["my" : 1]>
        one (p) => (q) { q = my.two(p) }
        <domain: "my", opset_import: ["my" : 1]>
        two (p) => (q) { q = my.one(p) }""")
    with pytest.raises(ModelLoadError, match=r"my\.one -> my\.two -> my\.one"):
        load_proto(model)


@pytest.mark.parametrize(("call", "shape"), [("", (2, 4)), ("<keepdims: int = 1>", (2, 1, 4))])
@pytest.mark.parametrize("where", ["plain", "handed_on", "branch"])
def test_an_attribute_that_a_call_leaves_out_has_the_default_of_its_function(
    where: str, call: str, shape: tuple[int, ...], load_proto: Load
) -> None:
    calls = {
        "plain": f"y = my.inner{call}(x)",
        # A function that hands on an attribute it was not given gives none.
        "handed_on": f"y = my.outer{call}(x)",
        "branch": f"""y = If(c) <then_branch = t () => (float[] p) {{ p = my.inner{call}(x) }},
                                 else_branch = e () => (float[] q) {{ q = my.outer{call}(x) }}>""",
    }
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : 17, "my" : 1]>
        g (float[2,3,4] x, bool c) => (float[a,b] y) {{ {calls[where]} }}
        <domain: "my", opset_import: ["" : 17, "my" : 1]>
        outer <keepdims>(p) => (q) {{ q = my.inner<keepdims: int = @keepdims>(p) }}
        <domain: "my", opset_import: ["" : 17]>
        inner <keepdims: int = 0, axes: ints = [1]>(p) => (q) {{
            q = ReduceMax<keepdims: int = @keepdims, axes: ints = @axes>(p) }}""")
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for graph in (a.g for node in model.graph.node for a in node.attribute if a.HasField("g")):
        graph.output[0].type.tensor_type.ClearField("shape")
    assert load_proto(model).graph.tensors["y"].shape == shape


def test_a_function_that_calls_itself_in_a_branch_is_refused(load_proto: Load) -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 20, "my" : 1]>
        g (float[4] x, bool c) => (float[4] y) { y = my.one(x, c) }
        <domain: "my", opset_import: ["my" : 1, "" : 20]>
        one (p, c) => (q) { q = If(c) <then_branch = t () => (float[4] r) { r = my.one(p, c) },
                                       else_branch = e () => (float[4] s) { s = Relu(p) }> }""")
    with pytest.raises(ModelLoadError, match=r"my\.one -> my\.one"):
        load_proto(model)


STATES = """
    g (float[2,4] x, float[3,4] z, int64 m) => (float[] y, float[] w) <int64 many = {{65}}> {{
        y, w = Loop({rounds}, , x, {second}) <body = b (int64 i, bool c, float[] s, float[] t) =>
                                                        (bool d, float[] u, float[] v) {{
            d = Identity(c)
            u = Identity(t)
            v = {change}
        }}>
    }}"""


@pytest.mark.parametrize(("rounds", "shapes"), [(65, ((3, 4), (2, 4))), (66, ((2, 4), (3, 4))), (3, ((3, 4), (2, 4)))])
def test_states_that_trade_places_are_followed_to_the_last_round(
    rounds: int, shapes: tuple[tuple[int, ...], ...], load_text: Load
) -> None:
    text = STATES.format(rounds="many", second="z", change="Identity(s)").replace("65", str(rounds))
    loaded = load_text(text)
    assert (loaded.graph.tensors["y"].shape, loaded.graph.tensors["w"].shape) == shapes


def test_a_state_that_changes_after_the_first_round_has_no_shape_for_any_number_of_rounds(load_text: Load) -> None:
    text = STATES.format(rounds="m", second="x", change="Concat<axis = 0>(t, x)")
    with pytest.raises(ModelLoadError, match=r"\(Loop\): of its result 'y' only this is known: float32\[\?,4\]"):
        load_text(text)
    loaded = load_text(text, {"y": 20, "w": 22})
    assert loaded.graph.tensors["y"].shape == (20, 4)


def test_what_is_assumed_inside_a_branch_is_told_and_can_be_bounded(load_text: Load) -> None:
    text = """g (float[6] x, bool c) => (float[] y) { y = If(c) <
        then_branch = t () => (float[] o) { n = NonZero(x)
 o = Cast<to = 1>(n) },
        else_branch = e () => (float[] p) { p = Unsqueeze(x, zero) }> }""".replace("{ y", "<int64[1] zero = {0}> { y")
    loaded = load_text(text)
    assert loaded.graph.tensors["y"].shape == (1, 6)
    (note,) = loaded.assumptions
    assert note.startswith("inside node 'y' (If), node 'n' (NonZero): axis 1 of 'n' is planned for at most 6")
    with pytest.raises(ModelLoadError, match=r"float32\[1,\?\]"):
        load_text(text, {"n": 4})


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", ["initializer", "literal", "outside"])
def test_weights_inside_a_body_are_counted_like_those_outside(kind: str, nested: bool, load_proto: Load) -> None:
    product = "t = MatMul(s, w)"
    if nested:
        product = """t = If(c) <then_branch = a () => (float[1,8] p) { p = MatMul(s, w) },
                                else_branch = e () => (float[1,8] q) { q = Relu(s) }>"""
    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[1,8] x) => (float[1,8] y) <int64 m = {{3}}> {{
            y = Loop(m, , x) <body = b (int64 i, bool c, float[1,8] s) => (bool d, float[1,8] t) {{
                d = Identity(c)
                {product}
            }}>
        }}""")
    weight = onnx.helper.make_tensor("w", 1, [8, 8], [1.0] * 64)
    body = model.graph.node[0].attribute[0].g
    if kind == "literal":
        body.node.insert(0, onnx.helper.make_node("Constant", [], ["w"], value=weight))
    else:
        (body if kind == "initializer" else model.graph).initializer.append(weight)
    loaded = load_proto(model)
    assert loaded.graph.compulsory_bytes() == 2 * 32 + 256
    assert any("operator" in note and "bodies" in note for note in loaded.notes)
