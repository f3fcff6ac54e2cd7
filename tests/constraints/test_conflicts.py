"""Constraints that cannot hold are named, and those that make no sense are refused with where and what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cosma import Accelerator, ConstraintError, Constraints, InfeasibleError, Mode, compile, read_constraints, replay
from cosma.graph import Graph, Operator, Tensor
from tests.planning import diamond

RESIDENT = Accelerator(scratchpad=1024, alignment=32, operands="resident")


def conflict(forced: Constraints, accelerator: Accelerator = RESIDENT, graph: Graph | None = None) -> tuple[str, ...]:
    with pytest.raises(InfeasibleError) as caught:
        compile(graph or diamond(), accelerator, effort=0.2, constraints=forced)
    assert all(name in str(caught.value) for name in caught.value.conflict)
    return caught.value.conflict


BYSTANDERS: dict[str, Any] = {"alignments": {"b": 64}, "workspaces": {"left": 32}, "in_place_forbidden_types": ["Add"]}


@pytest.mark.parametrize(
    ("forced", "names"),
    [
        ({"before": [("right", "left"), ("left", "stem")]}, {"'left' before 'stem'"}),
        ({"before": [("left", "right"), ("right", "left")]}, {"'left' before 'right'", "'right' before 'left'"}),
        ({"never_on_chip": ["a"]}, {"'a' is never on chip"}),
        ({"addresses": {"a": 40, "x": 0}}, {"address 40 of 'a'"}),
        ({"addresses": {"a": 992}}, {"address 992 of 'a'"}),
        ({"addresses": {"a": 0}, "excluded": [(64, 65)]}, {"address 0 of 'a'", "excluded range [64, 65)"}),
        ({"addresses": {"a": 32}, "alignments": {"a": 64}}, {"address 32 of 'a'", "alignment 64 of 'a'"}),
        ({"addresses": {"x": 0, "a": 32, "c": 512}}, {"address 0 of 'x'", "address 32 of 'a'"}),
        ({"workspaces": {"stem": 2000}}, {"workspace of 2000 bytes for 'stem'"}),
        ({"excluded": [(0, 300), (400, 700), (800, 1024)]}, {"excluded range [0, 300)", "excluded range [400, 700)",
         "excluded range [800, 1024)"}),
    ],
)  # fmt: skip
def test_the_smallest_set_that_conflicts_is_named(forced: dict[str, Any], names: set[str]) -> None:
    if "excluded" in forced and len(forced["excluded"]) > 1:
        found = set(conflict(Constraints(**forced)))
        assert found
        assert found <= names
        return
    assert set(conflict(Constraints(**{**BYSTANDERS, **forced}))) == names


def test_what_is_left_without_one_of_a_conflict_has_a_plan() -> None:
    forced = Constraints(addresses={"x": 0, "a": 32, "c": 512}, before=[("right", "left")])
    names = conflict(forced)
    for name in names:
        rest = Constraints.of(entry for entry in forced.entries if str(entry) != name)
        assert replay(compile(diamond(), RESIDENT, strategy="e1", constraints=rest)).valid


def test_what_must_stay_can_be_too_much_together() -> None:
    graph = Graph(
        [
            Tensor("x", 64, "input"), Tensor("a", 64), Tensor("b", 64), Tensor("c", 128), Tensor("d", 128),
            Tensor("y", 64, "output"),
        ],
        [
            Operator("one", "Conv", ["x"], ["a"]),
            Operator("two", "Conv", ["x"], ["b"]),
            Operator("three", "Conv", ["a"], ["c"]),
            Operator("four", "Conv", ["c"], ["d"]),
            Operator("five", "Conv", ["d", "b", "a"], ["y"]),
        ],
    )  # fmt: skip
    tight = Accelerator(scratchpad=320, alignment=64, operands="resident", in_place=False)
    forced = Constraints(resident=["a", "b", "x"], alignments={"y": 64})
    assert set(conflict(forced, tight, graph)) <= {"'a' stays resident", "'b' stays resident", "'x' stays resident"}
    assert replay(compile(graph, tight, constraints=Constraints(resident=["b"]))).valid


def test_a_mode_that_does_not_stream_what_is_never_on_chip_is_a_conflict() -> None:
    graph = Graph(
        [Tensor("x", 64, "input"), Tensor("y", 64, "output")],
        [Operator("conv", "Conv", ["x"], ["y"], modes=[Mode("a", ["x"]), Mode("b", ["y"], 32)])],
    )
    stationary = Accelerator(scratchpad=256, alignment=32, operands="stationary")
    plan = compile(graph, stationary, constraints=Constraints(never_on_chip=["y"]))
    assert replay(plan).valid
    assert plan.graph.operators[0].modes[0].name == "b"
    assert "'x' is never on chip" in conflict(Constraints(never_on_chip=["x", "y"]), stationary, graph)


@pytest.mark.parametrize(
    ("forced", "words"),
    [
        (Constraints(addresses={"aa": 0}), ("addresses", "no tensor 'aa'", "did you mean 'a'")),
        (Constraints(workspaces={"stam": 16}), ("workspaces", "no operator 'stam'", "'stem'")),
        (Constraints(before=[("stem", "z*")]), ("before", "no operator 'z*'")),
        (Constraints(resident=["q?"]), ("resident", "no tensor 'q?'")),
        (Constraints(in_place_permitted=[("y", "x")]), ("in_place_permitted", "no operator reads 'x' and writes 'y'")),
        (Constraints(in_place_permitted=[("d", "c")]), ("'d' in place of 'c'", "128 bytes", "64")),
        (Constraints(in_place_forbidden_types=["Softmax"]), ("operator of type 'Softmax'",)),
        (Constraints(addresses={"*": 0, "?": 32}), ("'x' has 0 by '*' and 32 by '?'",)),
    ],
)
def test_names_and_pairs_that_make_no_sense_are_refused(forced: Constraints, words: tuple[str, ...]) -> None:
    with pytest.raises(ConstraintError) as caught:
        compile(diamond(), RESIDENT, constraints=forced)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_an_exact_name_goes_before_a_pattern() -> None:
    plan = compile(diamond(), RESIDENT, strategy="e1", constraints=Constraints(alignments={"*": 64, "a": 128}))
    assert dict(plan.accelerator.constraints.alignments)["a"] == 128
    assert dict(plan.accelerator.constraints.alignments)["y"] == 64


def test_a_pattern_is_not_of_weights_that_pass_by() -> None:
    every = Constraints(resident=["*"], alignments={"*": 64})
    plan = compile(diamond(), RESIDENT, strategy="e1", constraints=every)
    assert set(plan.accelerator.constraints.resident) == {"x", "a", "b", "c", "d", "y"}
    assert replay(plan).valid
    kept = compile(diamond(), RESIDENT.replace(weights="scratchpad"), strategy="e1", constraints=every)
    assert "w" in kept.accelerator.constraints.resident
    assert replay(kept).valid
    assert conflict(Constraints(resident=["w"])) == ("'w' stays resident",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("adresses = {}", ("unknown key 'adresses'", "did you mean 'addresses'")),
        ("addresses = [", ("not a TOML file",)),
        ("addresses = {a = -1}", ("'a'", "negative")),
        ("addresses = {a = 'much'}", ("'a'", "much")),
        ("excluded = [[64, 64]]", ("holds no byte",)),
        ("excluded = [[64]]", ("two addresses",)),
        ("before = [['a']]", ("two names",)),
        ("resident = 'a'", ("sequence of names",)),
        ("alignments = {a = 0}", ("at least 1",)),
    ],
)
def test_files_that_are_wrong_say_where(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    path = tmp_path / "forced.toml"
    path.write_text(text)
    with pytest.raises(ConstraintError) as caught:
        read_constraints(path)
    assert "forced.toml" in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_file_says_what_the_library_says(tmp_path: Path) -> None:
    path = tmp_path / "forced.toml"
    path.write_text(
        """
        excluded = [["0", "1KiB"], [4096, 5000]]
        resident = ["state*"]
        before = [["a", "b"]]
        [addresses]
        x = "2KiB"
        [workspaces]
        "conv*" = 128
        """
    )
    assert read_constraints(path) == Constraints(
        excluded=[(4096, 5000), (0, 1024)], resident=["state*"], before=[("a", "b")], addresses={"x": 2048},
        workspaces={"conv*": 128},
    )  # fmt: skip
    assert Constraints.of(read_constraints(path).entries) == read_constraints(path)


def test_what_fits_without_constraints_neither_is_not_blamed_on_them() -> None:
    with pytest.raises(InfeasibleError, match="that is so without any constraint") as caught:
        compile(diamond(), RESIDENT.replace(scratchpad=64), constraints=Constraints(excluded=[(0, 32)]))
    assert caught.value.conflict == ()
    assert caught.value.available_bytes == 64
    assert caught.value.remedies
