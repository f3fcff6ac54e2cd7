"""Explanations name the right step, the right holders and the right price."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cosma import (
    Accelerator,
    Constraints,
    Graph,
    InfeasibleError,
    InputError,
    Operator,
    Plan,
    Tensor,
    TensorKind,
    compile,
    replay,
    save_plan,
)
from cosma.graph import Region
from cosma.plan.timeline import timeline_of
from cosma.report.explain import explain_operator, explain_tensor, explain_tiled, kept_out
from cosma.studies.levers import levers
from cosma.studies.next_capacity import next_capacity
from tests.random_graphs import random_instance

KIB = 1024


def bow() -> Graph:
    """A skip connection over a wide middle: 4 KiB skip, 8 KiB in the middle."""
    return Graph(
        [
            Tensor("x", 4 * KIB, TensorKind.INPUT),
            Tensor("skip", 4 * KIB),
            Tensor("wide", 8 * KIB),
            Tensor("narrow", 2 * KIB),
            Tensor("y", 4 * KIB, TensorKind.OUTPUT),
        ],
        [
            Operator("stem", "Conv", ("x",), ("skip",)),
            Operator("up", "Conv", ("skip",), ("wide",)),
            Operator("down", "Conv", ("wide",), ("narrow",)),
            Operator("join", "Concat", ("narrow", "skip"), ("y",)),
        ],
        "bow",
    )


@pytest.fixture(scope="module")
def plan() -> Plan:
    return compile(bow(), Accelerator(scratchpad="12KiB", operands="resident"), strategy="auto", effort=1)


def test_tensor_story(plan: Plan) -> None:
    assert plan.traffic.noncompulsory == 8 * KIB
    story = explain_tensor(plan, "skip")
    assert story.touches == (0, 1, 3)
    assert story.cost_bytes == story.moved_bytes == 8 * KIB
    (absence,) = story.absences
    assert (absence.begin, absence.end, absence.tightest) == (1, 3, 2)
    assert absence.cost_bytes == 8 * KIB
    assert absence.short_bytes == 2 * KIB  # 8 + 2 + 4 against 12
    assert [(h.tensor, h.reason) for h in absence.holders] == [("wide", "operand"), ("narrow", "result")]
    assert not explain_tensor(plan, "wide").absences


def test_next_capacity_is_where_traffic_drops(plan: Plan) -> None:
    found = next_capacity(plan)
    assert found is not None
    assert (found.capacity_bytes, found.tensor, found.noncompulsory_bytes) == (14 * KIB, "skip", 0)
    for capacity, expected in ((14 * KIB - 64, 8 * KIB), (14 * KIB, 0)):
        other = compile(bow(), Accelerator(scratchpad=capacity, operands="resident"), strategy="auto")
        assert other.traffic.noncompulsory == expected
    assert next_capacity(compile(bow(), Accelerator(scratchpad="64KiB"), strategy="e2")) is None


def test_next_capacity_is_never_refuted() -> None:
    """At the capacity named there is a plan that moves no more than is said of it, and less than the plan explained."""
    told = silent = 0
    for seed in range(70):
        graph, accelerator = random_instance(seed)
        try:
            plan = compile(graph, accelerator, strategy="e1")
        except InfeasibleError:
            continue
        found = next_capacity(plan)
        if found is None:
            silent += bool(kept_out(plan, timeline_of(plan)))
            continue
        told += 1
        assert accelerator.capacity_bytes < found.capacity_bytes
        larger = accelerator.replace(scratchpad=found.capacity_bytes + accelerator.reserved)
        best = compile(graph, larger, strategy="exact").traffic.noncompulsory
        assert best <= found.noncompulsory_bytes < plan.traffic.noncompulsory
    assert told > 15 > 5 * silent


def test_operator_story(plan: Plan) -> None:
    story = explain_operator(plan, "down")
    assert (story.step, story.occupied_bytes) == (2, 10 * KIB)
    assert [(name, space) for name, space, _ in story.touched] == [("wide", 8 * KIB), ("narrow", 2 * KIB)]
    assert all("scratchpad @" in where for *_, where in story.touched)
    assert not story.kept
    assert explain_operator(plan, "join").moved == (("load", "skip", 4 * KIB, False), ("store", "y", 4 * KIB, True))


def test_levers_go_on_from_the_plan(plan: Plan) -> None:
    """One story: each begins at the plan's own traffic, and what leaves the plan valid costs no more."""
    found = {lever.change: lever for lever in levers(plan, next_capacity(plan))}
    assert {lever.before for lever in found.values()} == {plan.traffic.noncompulsory}
    lever = found["keep one more tensor, all else as it is"]
    assert (lever.setting, lever.value, lever.after) == ("scratchpad", 14 * KIB, 0)
    relaxed = ("a longer search", "stream operands", "keep one more", "twice the scratchpad")
    tried = [lever for change, lever in found.items() if change.startswith(relaxed)]
    assert len(tried) == 4
    assert all(lever.after is not None and lever.after <= lever.before for lever in tried)


def test_a_worse_plan_is_told_so() -> None:
    """Where the plan itself is poor, the first row says that a search finds more, and every row counts from it."""
    graph = bow()
    poor = compile(graph, Accelerator(scratchpad="12KiB", operands="resident", in_place=False), strategy="e1")
    found = list(levers(poor))
    best = compile(graph, poor.accelerator).traffic.noncompulsory
    assert found[0].change.startswith("a longer search")
    assert (found[0].before, found[0].after) == (poor.traffic.noncompulsory, best)


def test_unknown_names_are_answered_with_close_ones(plan: Plan) -> None:
    with pytest.raises(InputError, match="did you mean 'narrow'"):
        explain_tensor(plan, "narow")
    with pytest.raises(InputError, match="no operator 'skip'"):
        explain_operator(plan, "skip")


def test_command_line(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cosma.cli.explain import explain

    monkeypatch.setenv("COLUMNS", "160")
    path = tmp_path / "plan.json"
    save_plan(plan, path)
    explain(path, None)
    said = capsys.readouterr().out
    assert "skip stays from step 1 to 3 and saves 8192 B" in said
    assert "step 2: down (Conv)" in said
    explain(path, "skip")
    assert "2048 B short" in capsys.readouterr().out
    explain(path, "down")
    assert "10 KiB of 12 KiB taken" in capsys.readouterr().out
    explain(path, None, json=True)
    assert json.loads(capsys.readouterr().out)["next_capacity"] == {"bytes": 14336, "tensor": "skip", "saves": 8192}
    with pytest.raises(InputError, match="neither a tensor nor an operator"):
        explain(path, "nothing like it")


def test_explained_plan_is_the_replayed_one(plan: Plan) -> None:
    total = sum(explain_tensor(plan, name).cost_bytes for name in plan.graph.tensors)
    assert total == replay(plan).traffic.noncompulsory


@pytest.mark.parametrize("workspace", [0, 3 * KIB])
def test_prices_and_spaces_add_up(workspace: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a story's lines say sums to what its head says, and who had the space to what was taken."""
    from cosma.cli.explain import explain

    sizes = {"skip": 4 * KIB, "a": 10 * KIB, "b": 2 * KIB, "c": 8 * KIB, "d": 2 * KIB if workspace else 6 * KIB}
    graph = Graph(
        [
            Tensor("x", 4 * KIB, TensorKind.INPUT),
            *(Tensor(name, size) for name, size in sizes.items()),
            Tensor("y", 4 * KIB, TensorKind.OUTPUT),
        ],
        [
            Operator("stem", "Conv", ("x",), ("skip",)),
            Operator("up", "Conv", ("skip",), ("a",)),
            Operator("down", "Conv", ("a",), ("b",)),
            Operator("mix", "Conv", ("b", "skip"), ("c",)),
            Operator("low", "Conv", ("c",), ("d",)),
            Operator("join", "Concat", ("d", "skip"), ("y",)),
        ],
        "twice away",
    )
    forced = Constraints(workspaces={"low": workspace} if workspace else {})
    machine = Accelerator(scratchpad="14KiB", operands="resident", in_place=False)
    plan = compile(graph, machine, constraints=forced, effort=0.5)
    timeline = timeline_of(plan)
    stories = [explain_tensor(plan, name, timeline) for name in timeline.cost]
    assert sum(story.cost_bytes for story in stories) == plan.traffic.noncompulsory > 0
    (story,) = (story for story in stories if story.tensor == "skip")
    assert [absence.cost_bytes for absence in story.absences] == [4 * KIB, 4 * KIB]
    assert story.cost_bytes == 12 * KIB
    assert story.beside() == "Writing it costs the other 4096 B, unless it stays from its first use to its last."
    for absence in story.absences:
        taken = timeline.steps[absence.tightest].occupied_bytes
        assert sum(holder.space_bytes for holder in absence.holders) == taken
        assert absence.short_bytes == taken + sizes["skip"] - plan.accelerator.capacity_bytes
    assert any(holder.tensor == "(workspace)" for holder in story.absences[-1].holders) == bool(workspace)
    step = explain_operator(plan, "low", timeline)
    assert sum(space for *_, space, _ in step.touched) + sum(h.space_bytes for h in step.kept) == step.occupied_bytes
    save_plan(plan, tmp_path / "plan.json")
    explain(tmp_path / "plan.json", "skip")
    assert story.absences[0].sentence(plan, timeline) in " ".join(capsys.readouterr().out.split())


def test_what_was_cut_is_explained_by_its_own_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cosma.cli.explain import explain

    def part(root: str, rows: tuple[int, int]) -> Tensor:
        box = Region(root, (rows[0], 0), (rows[1], 64))
        return Tensor(f"{root}{rows[0]}", 64 * (rows[1] - rows[0]), shape=box.shape, region=box)

    cuts = ((0, 8), (8, 16))
    roots = [Tensor(name, 1024, shape=(16, 64)) for name in ("a", "b")]
    ends = [Tensor("x", 1024, TensorKind.INPUT), Tensor("y", 1024, TensorKind.OUTPUT)]
    operators = []
    for rows in cuts:
        box = {name: Region(name, (rows[0], 0), (rows[1], 64)) for name in ("one", "two")}
        operators.append(Operator(f"one{rows[0]}", "Conv", ("x",), (f"a{rows[0]}",), tile=box["one"]))
        operators.append(Operator(f"two{rows[0]}", "Conv", (f"a{rows[0]}",), (f"b{rows[0]}",), tile=box["two"]))
    operators.append(Operator("end", "Concat", ("b0", "b8"), ("y",)))
    graph = Graph([*ends, *(part(root, rows) for root in "ab" for rows in cuts)], operators, "tiled", roots)
    plan = compile(graph, Accelerator(scratchpad=2048), strategy="e1")
    story = explain_tiled(plan, "one")
    assert story is not None
    assert [tile for tile, _ in story.tiles] == ["one0", "one8"]
    assert story.group is not None
    assert story.group.operators == ("one", "two")
    root = explain_tiled(plan, "b")
    assert root is not None
    assert [(name, size) for name, size, _ in root.parts] == [("b0", 512), ("b8", 512)]
    assert explain_tiled(plan, "end") is None
    save_plan(plan, tmp_path / "tiled.json")
    explain(tmp_path / "tiled.json", "one")
    said = capsys.readouterr().out
    assert "operator one: 2 tiles, at steps 0, 2" in said
    assert "take turns in steps [0, 4) with those of 1 other operator: two" in said
    explain(tmp_path / "tiled.json", "a", json=True)
    assert len(json.loads(capsys.readouterr().out)["tiled"]["parts"]) == 2


def test_what_exists_within_a_fused_operator_alone_leads_to_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cosma.cli.explain import explain

    ends = [Tensor("x", 1024, TensorKind.INPUT), Tensor("y", 1024, TensorKind.OUTPUT)]
    graph = Graph(ends, [Operator("conv", "Conv+Relu", ("x",), ("y",), covers=("c", "y"))], "fused")
    save_plan(compile(graph, Accelerator(scratchpad=2048), strategy="e1"), tmp_path / "fused.json")
    explain(tmp_path / "fused.json", "c")
    said = capsys.readouterr()
    assert "'c' never leaves operator 'conv', which is explained instead" in said.err
    assert "conv" in said.out
    explain(tmp_path / "fused.json", "y")  # what leaves is explained by its own name
    assert "never leaves" not in capsys.readouterr().err


def test_parts_that_were_not_kept_are_short_together() -> None:
    """Two tensors wait while a third passes: room for one of them would not do for both."""
    from cosma.plan.timeline import timeline_of
    from cosma.report.explain import short_together

    tensors = [Tensor("x", 64, "input"), Tensor("a", 1024), Tensor("b", 1024), Tensor("c", 2048), Tensor("d", 64)]
    operators = [
        Operator("left", "Conv", ["x"], ["a"]),
        Operator("right", "Conv", ["x"], ["b"]),
        Operator("wide", "Conv", ["x"], ["c"]),
        Operator("narrow", "Conv", ["c"], ["d"]),
        Operator("join", "Concat", ["a", "b", "d"], ["y"]),
    ]
    graph = Graph([*tensors, Tensor("y", 64, "output")], operators)
    plan = compile(graph, Accelerator(scratchpad="2240", operands="resident"), strategy="e1")
    timeline = timeline_of(plan)
    assert short_together(plan, timeline, ["a"]) == ([range(2, 4)], 2, 64 + 2048 + 1024 - 2240)
    assert short_together(plan, timeline, ["a", "b"]) == ([range(2, 4)], 2, 64 + 2048 + 2 * 1024 - 2240)
    assert short_together(plan, timeline, ["c"]) is None


def test_weights_that_pass_the_scratchpad_by_are_not_said_to_lack_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing left for lack of room, and neither addresses nor a longer search would help."""
    from cosma.cli.explain import explain

    tensors = [Tensor("x", 64, TensorKind.INPUT), Tensor("w", 4096, TensorKind.WEIGHT)]
    tensors += [Tensor("a", 64), Tensor("y", 64, TensorKind.OUTPUT)]
    operators = [Operator("one", "MatMul", ("x",), ("a",), ("w",)), Operator("two", "MatMul", ("a",), ("y",), ("w",))]
    plan = compile(Graph(tensors, operators, "shared"), Accelerator(scratchpad="1KiB", weights="stream"))
    assert plan.traffic.noncompulsory == 4096
    save_plan(plan, tmp_path / "plan.json")
    explain(tmp_path / "plan.json", None)
    said = capsys.readouterr().out
    assert "All of that is weights" in said
    assert "there was room" not in said
