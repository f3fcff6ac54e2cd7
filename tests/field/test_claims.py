"""Nothing is called proven that was not replayed, and a bound in a file is a claim."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from cosma.accelerator import Accelerator
from cosma.compiler import Limits, compile, run_compile
from cosma.errors import FormatError, PlanInvalidError
from cosma.graph import Graph, Operator, Tensor
from cosma.graph.json_format import save_graph
from cosma.plan.file import load_plan, plan_from_json, plan_to_json, save_plan
from cosma.report.text import render_text
from cosma.validator import Verdict, replay
from tests.field.commands import cosma
from tests.planning import diamond

Record = dict[str, Any]
#: Where the simplest method spills much more than the best plan.
TIGHT = Accelerator(scratchpad=384, operands="resident", in_place=False)
#: Commands that read one plan; each must replay it first.
READERS = {
    "check": ("check", "plan.json"),
    "report": ("report", "plan.json", "--text"),
    "explain": ("explain", "plan.json"),
    "trace": ("trace", "plan.json", "--bandwidth", "1GB", "--clock", "1e9", "--macs-per-cycle", "8"),
    "export": ("export", "plan.json", "-o", "-"),
    "diff": ("diff", "plan.json", "good.json"),
    "diff, other way": ("diff", "good.json", "plan.json"),
    "run": ("run", "plan.json", "model.onnx"),
}


def false_traffic(plan: Record) -> None:
    plan["traffic"] |= {"loaded": 0, "stored": 0}
    plan["traffic"]["total"] = plan["traffic"]["streamed"]
    plan["traffic"]["noncompulsory"] = plan["traffic"]["total"] - plan["traffic"]["compulsory"]
    plan["certificate"] |= {"lower_bound": plan["traffic"]["noncompulsory"], "gap": 0.0, "status": "optimal"}


def overlap(plan: Record) -> None:
    for instruction in plan["instructions"]:
        if "address" in instruction:
            instruction["address"] = 0


def unknown_tensor(plan: Record) -> None:
    plan["instructions"][0]["tensor"] = "nope"


def unknown_operator(plan: Record) -> None:
    next(i for i in plan["instructions"] if i["do"] == "execute")["operator"] = "nope"


def unknown_stream(plan: Record) -> None:
    next(i for i in plan["instructions"] if i["do"] == "execute")["streamed"] = ["nope"]


def missing_load(plan: Record) -> None:
    del plan["instructions"][0]


def high_bound(plan: Record) -> None:
    plan["certificate"] |= {"lower_bound": 10**6, "gap": 0.0, "status": "optimal"}


def far_address(plan: Record) -> None:
    plan["instructions"][0]["address"] = 2**61


BROKEN = (
    false_traffic, overlap, unknown_tensor, unknown_operator, unknown_stream, missing_load, high_bound, far_address,
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_graph(diamond(), "diamond.json")
    accelerator = Accelerator(scratchpad=384, operands="resident")
    save_plan(compile(diamond(), accelerator, strategy="e2"), "good.json")
    return tmp_path


def changed(change: Callable[[Record], None], source: str = "good.json") -> Path:
    plan = json.loads(Path(source).read_text())
    change(plan)
    Path("plan.json").write_text(json.dumps(plan))
    return Path("plan.json")


@pytest.mark.parametrize("command", READERS.values(), ids=READERS)
@pytest.mark.parametrize("change", BROKEN, ids=lambda change: change.__name__)
def test_an_invalid_plan_is_shown_as_nothing_else(
    folder: Path, change: Callable[[Record], None], command: tuple[str, ...]
) -> None:
    changed(change)
    done = cosma(*command)
    assert done.code == 4, done.out + done.err
    assert "plan.json: " in done.err
    assert "invalid, " in done.err
    assert "internal error" not in done.err
    for claim in ("roven optimal", "laimed optimal"):
        assert claim not in done.out
    if done.out and command[0] == "report":
        assert "INVALID PLAN" in done.out


@pytest.mark.parametrize("change", BROKEN, ids=lambda change: change.__name__)
def test_a_drawn_plan_carries_the_warning(folder: Path, change: Callable[[Record], None]) -> None:
    pytest.importorskip("bokeh")
    pytest.importorskip("matplotlib")
    changed(change)
    done = cosma("report", "plan.json", "-o", "page.html", "--figure", "figure.svg")
    assert done.code == 4
    if change in (unknown_tensor, unknown_operator, unknown_stream):
        assert not Path("page.html").exists()
        return
    page = Path("page.html").read_text()
    assert "INVALID PLAN" in page
    assert 'class="certificate invalid"' in page
    assert "INVALID PLAN" in Path("figure.svg").read_text()


def test_the_library_draws_no_plan_that_speaks_of_unknown_tensors(folder: Path) -> None:
    plan = load_plan(changed(unknown_tensor))
    with pytest.raises(PlanInvalidError, match="diamond: invalid, "):
        render_text(plan)


def test_an_invalid_plan_is_exported_by_force_alone(folder: Path) -> None:
    changed(overlap)
    assert cosma("export", "plan.json", "-o", "p.csv", "--stays", "s.csv", "-o", "p.h", "--force").code == 0
    changed(unknown_tensor)
    assert cosma("export", "plan.json", "-o", "-", "--force").code == 4


def test_a_start_that_is_invalid_lends_its_order_and_is_named(folder: Path) -> None:
    for change in (overlap, unknown_tensor, missing_load):
        changed(change)
        done = cosma("compile", "diamond.json", "--scratchpad", "448", "--operands", "resident", "--start", "plan.json")
        assert done.code == 0, done.err
        assert "is not valid here, so only its order is used: instruction" in done.err
    changed(unknown_operator)
    done = cosma("compile", "diamond.json", "--scratchpad", "448", "--start", "plan.json")
    assert done.code == 2
    assert "'nope' executes, but is not in the network" in done.err


# -- claims -----------------------------------------------------------------------------------------------


def claim(bound: int) -> Callable[[Record], None]:
    def change(plan: Record) -> None:
        moved = plan["traffic"]["noncompulsory"]
        plan["certificate"] |= {
            "lower_bound": bound, "gap": (moved - bound) / moved, "method": "trust me",
            "status": "optimal" if bound == moved else "feasible",
        }  # fmt: skip

    return change


@pytest.fixture
def poor(folder: Path) -> int:
    """A valid plan, poor.json, that spills what it need not; returns what it moves beyond the compulsory."""
    plan = compile(diamond(), TIGHT, strategy="e1")
    best = compile(diamond(), TIGHT)
    assert best.certificate.status == "optimal"
    save_plan(plan, "poor.json")
    save_plan(best, "best.json")
    assert plan.traffic.noncompulsory > best.traffic.noncompulsory > 0
    return plan.traffic.noncompulsory


def test_a_bound_in_a_file_is_a_claim(poor: int) -> None:
    changed(claim(poor), "poor.json")
    assert "file's claim" in cosma("check", "plan.json").out
    answer = json.loads(cosma("check", "plan.json", "--json").out)
    assert answer["claimed"] == {"status": "optimal", "lower_bound": poor, "method": "trust me"}
    for command in (("report", "plan.json"), ("explain", "plan.json")):
        done = cosma(*command)
        assert done.code == 0
        assert "Claimed optimal, not verified here" in done.out
        assert "roven optimal" not in done.out
    assert "(claimed by the file): trust me" in cosma("report", "plan.json").out
    assert cosma("export", "plan.json", "-o", "plan.h").code == 0
    assert "claimed lower bound" in Path("plan.h").read_text()
    assert "laimed lower bound" in cosma("diff", "plan.json", "best.json").out


def test_a_bound_computed_here_is_no_claim(poor: int) -> None:
    plan = compile(diamond(), TIGHT)
    assert not plan.certificate.claimed
    assert "Proven optimal" in render_text(plan)
    assert load_plan("best.json").certificate.claimed
    assert load_plan("best.json") == plan


def test_prove_computes_a_bound(poor: int) -> None:
    done = cosma("check", "best.json", "--prove")
    assert done.code == 0
    assert "\nproven optimal: the lower bound computed here is " in done.out
    done = cosma("check", "poor.json", "diamond.json", "--prove")
    assert done.code == 0
    assert "\nnot proven optimal: " in done.out
    assert "so this one is not optimal" in done.out
    changed(claim(poor), "poor.json")
    done = cosma("check", "plan.json", "--prove", "--json")
    assert done.code == 4
    assert "its certificate is false" in done.err
    answer = json.loads(done.out)
    assert answer["valid"]
    assert answer["proof"]["claim_refuted"]
    assert answer["proof"]["best_known"] < poor


def test_diff_notices_a_bound_that_the_other_plan_goes_below(poor: int) -> None:
    changed(claim(poor), "poor.json")
    done = cosma("diff", "plan.json", "best.json")
    assert done.code == 0
    assert "before: its lower bound of " in done.out
    assert "is false: the plan after is valid there" in done.out
    assert "after: its lower bound of " in cosma("diff", "best.json", "plan.json").out
    assert json.loads(cosma("diff", "plan.json", "best.json", "--json").out)["remarks"]
    assert "is false" not in cosma("diff", "poor.json", "best.json").out


def test_what_a_checker_can_compute_may_be_left_out(folder: Path) -> None:
    def strip(plan: Record) -> None:
        for key in ("model", "traffic", "peak", "certificate", "solver"):
            del plan[key]
        del plan["accelerator"]["in_place"]

    changed(strip)
    done = cosma("check", "plan.json", "diamond.json")
    assert done.code == 0, done.err
    assert "not claimed by the file: traffic, peak, certificate" in done.out
    answer = json.loads(cosma("check", "plan.json", "--json").out)
    good = json.loads(Path("good.json").read_text())
    assert answer["traffic"] == good["traffic"]
    assert answer["peak"] == good["peak"]
    assert answer["claimed"] is None
    assert answer["not_claimed"] == ["certificate", "peak", "traffic"]
    for command in READERS.values():
        if command[0] != "run":
            done = cosma(*command)
            assert done.code == 0, done.err
            assert "laimed optimal" not in done.out
    assert "certificate" not in json.loads(plan_to_json(load_plan("plan.json")))
    assert cosma("check", "plan.json", "--prove").code == 0


# -- one mistake, one line --------------------------------------------------------------------------------


def fan(readers: int) -> Graph:
    """One tensor that many operators read."""
    tensors = [Tensor("x", 64, "input"), *(Tensor(f"y{i}", 64, "output") for i in range(readers))]
    return Graph(tensors, [Operator(f"v{i}", "Relu", ("x",), (f"y{i}",)) for i in range(readers)], "fan")


def test_what_follows_from_one_mistake_is_a_count(tmp_path: Path) -> None:
    accelerator = Accelerator(scratchpad=1024, operands="resident", in_place=False)
    plan = compile(fan(40), accelerator, strategy="e1")
    record = json.loads(plan_to_json(plan))
    record["instructions"] = [i for i in record["instructions"] if i["do"] != "load"]
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(record))
    report = replay(load_plan(path))
    assert len(report.roots) == 1
    assert report.roots[0][0].verdict is Verdict.OPERAND_ABSENT
    assert report.roots[0][1] >= 40
    done = cosma("check", path)
    assert done.code == 4
    assert done.err.count("\n") == 2
    assert f"(and {report.roots[0][1]} that follow from it)" in done.err


def test_two_mistakes_are_two_lines() -> None:
    plan = compile(fan(3), Accelerator(scratchpad=1024, operands="resident", in_place=False), strategy="e1")
    record = json.loads(plan_to_json(plan))
    executes = [i for i in record["instructions"] if i["do"] == "execute"]
    record["instructions"].remove(executes[1])
    record["instructions"][-1:-1] = [{"do": "free", "tensor": "y9"}]
    report = replay(plan_from_json(json.dumps(record)))
    assert {root.verdict for root, _ in report.roots} == {Verdict.NOT_EXECUTED, Verdict.UNKNOWN_NAME}


def test_a_plan_for_another_model_is_one_line(folder: Path) -> None:
    save_graph(fan(40), "fan.json")
    done = cosma("check", "good.json", "fan.json")
    assert done.code == 4
    assert done.err.count("\n") == 2
    assert "made for another model: 0 of 40 operators match; no hash to compare" in done.err


def test_a_plan_for_another_file_says_that_the_hash_differs(folder: Path) -> None:
    report = replay(
        load_plan(changed(lambda plan: plan["model"].update(sha256="a" * 64))), fan(4), model_sha256="b" * 64
    )
    assert str(report.roots[0][0]).startswith(
        "plan: model-mismatch: made for another model: 0 of 5 operators match; hash differs"
    )


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ('"do":"execute"', '"do":"execute","do":"execute"', "instructions[2] has the key 'do' twice"),
        ('"scratchpad":', '"scratchpad":1,"scratchpad":', "accelerator has the key 'scratchpad' twice"),
        ('"format":', '"format": "x","format":', "the plan has the key 'format' twice"),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_its_place(folder: Path, old: str, new: str, place: str) -> None:
    text = Path("good.json").read_text()
    assert old in text
    with pytest.raises(FormatError) as caught:
        plan_from_json(text.replace(old, new, 1))
    assert place in str(caught.value)


# -- plans cut short --------------------------------------------------------------------------------------


def test_a_plan_cut_short_says_so_everywhere(folder: Path) -> None:
    result = run_compile(diamond(), TIGHT, limits=Limits(effort=100.0), interrupted=lambda: True)
    assert result.stopped_by == "interrupt"
    plan = result.plan
    assert plan.stopped_by == "interrupt"
    assert not plan.reproducible
    assert not result.reproducible
    save_plan(plan, "cut.json")
    record = json.loads(Path("cut.json").read_text())
    assert (record["stopped_by"], record["reproducible"]) == ("interrupt", False)
    assert load_plan("cut.json").stopped_by == "interrupt"
    for command in (("check",), ("report",), ("explain",), ("diff", "good.json")):
        done = cosma(command[0], "cut.json", *command[1:])
        assert "not reproducible" in done.out + done.err, command
    assert "stopped_by" not in json.loads(Path("good.json").read_text())


def test_run_says_what_the_model_forbids_before_it_runs(folder: Path) -> None:
    """A power takes over its operand in as many bytes, which is broadcast: only the model's shapes tell."""
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        net (float16[4,8] x, int64[8] e) => (float16[4,8] z) { a = Abs (x)
 b = Neg (e)
 z = Pow (a, b) }""")
    Path("model.onnx").write_bytes(model.SerializeToString())
    roomy = Accelerator(scratchpad=1024, operands="resident")
    save_plan(compile(Path("model.onnx"), roomy, strategy="e1"), "good.json")

    def take_over(plan: Record) -> None:
        taken = next(i for i in plan["instructions"] if i["do"] == "allocate" and i["tensor"] == "b")
        made = next(i for i in plan["instructions"] if i["do"] == "allocate" and i["tensor"] == "z")
        made |= {"address": taken["address"], "in_place_of": "b"}
        plan["instructions"] = [i for i in plan["instructions"] if (i["do"], i.get("tensor")) != ("free", "b")]
        plan.pop("peak")

    changed(take_over)
    for command in ("check", "run"):
        done = cosma(command, "plan.json", "model.onnx")
        assert done.code == 4
        assert "in-place-forbidden: Pow may not write 'z'" in done.err
        assert "executed" not in done.err + done.out
