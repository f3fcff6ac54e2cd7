"""Constraints and reserved ranges on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cosma.graph.json_format import save_graph
from tests.field.commands import cosma
from tests.planning import diamond


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_graph(diamond(), tmp_path / "diamond.json")
    return tmp_path / "diamond.json"


def forced(folder: Path, text: str) -> Path:
    path = folder / "forced.toml"
    path.write_text(text)
    return path


def test_a_plan_keeps_to_a_file_and_check_says_so(model: Path) -> None:
    file = forced(model.parent, 'resident = ["a"]\nbefore = [["right", "left"]]\n[addresses]\na = 128\n')
    plan = model.parent / "plan.json"
    done = cosma(
        "compile", model, "--scratchpad", "640", "--operands", "resident", "--reserved", "0:64,576:640",
        "--constraints", file, "-o", plan,
    )  # fmt: skip
    assert done.code == 0, done.err
    record = json.loads(plan.read_text())
    assert record["version"] == 2
    assert record["constraints"] == {"addresses": {"a": 128}, "resident": ["a"], "before": [["right", "left"]]}
    assert record["accelerator"]["reserved_ranges"] == [[0, 64], [576, 640]]
    checked = cosma("check", plan, model)
    assert checked.code == 0, checked.out + checked.err
    record["constraints"]["addresses"]["a"] = 192
    plan.write_text(json.dumps(record))
    checked = cosma("check", plan)
    assert checked.code == 4
    assert "address-broken" in checked.out + checked.err
    for command in ("report", "explain"):
        assert cosma(command, plan, *(["--text"] if command == "report" else [])).code in (0, 4)


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ('before = [["left", "stem"]]', 3, "'left' before 'stem'"),
        ('resident = ["none"]', 2, "no tensor 'none'"),
        ("residents = []", 2, "did you mean 'resident'"),
        ("excluded = [[0, 2]", 2, "not a TOML file"),
    ],
)
def test_what_cannot_be_is_one_line_that_says_why(model: Path, text: str, code: int, words: str) -> None:
    done = cosma("compile", model, "--scratchpad", "640", "--constraints", forced(model.parent, text))
    assert done.code == code
    assert words in done.err
    assert "Traceback" not in done.err


def test_a_plan_made_without_a_file_is_judged_by_it(model: Path) -> None:
    plan = model.parent / "plan.json"
    assert cosma("compile", model, "--scratchpad", "640", "--operands", "resident", "-o", plan).code == 0
    kept = forced(model.parent, "[alignments]\n'*' = 64\n")
    assert cosma("check", plan, model, "--constraints", kept).code == 0
    broken = forced(model.parent, "never_on_chip = ['a']\n")
    done = cosma("check", plan, model, "--constraints", broken)
    assert done.code == 4
    assert "never-on-chip" in done.out + done.err
    unknown = forced(model.parent, "never_on_chip = ['aa']\n")
    assert cosma("check", plan, "--constraints", unknown).code == 2


@pytest.mark.parametrize("ranges", ["0:64:128", "64:0", "0:9GiB", "0:x"])
def test_reserved_ranges_that_make_no_sense_are_refused(model: Path, ranges: str) -> None:
    done = cosma("compile", model, "--scratchpad", "640", "--reserved", ranges)
    assert done.code == 2
    assert "reserved" in done.err


def test_what_ranges_do_not_go_with_says_so(model: Path) -> None:
    done = cosma("curve", model, "--reserved", "0:64", "--effort", "0")
    assert done.code == 2
    assert "ranges" in done.err


def test_the_summary_says_what_was_forced_and_where_it_lies(model: Path) -> None:
    file = forced(model.parent, 'resident = ["a"]\n')
    plans = [model.parent / "one.json", model.parent / "two.json"]
    first = cosma("compile", model, "--scratchpad", "640", "--reserved", "0:64", "--constraints", file, "--off-chip",
                  "--json", "-o", plans[0])  # fmt: skip
    summary = json.loads(first.out)
    assert summary["accelerator"]["reserved_ranges"] == [[0, 64]]
    assert summary["constraints"] == {"resident": ["a"]}
    assert summary["off_chip"]["inputs"] == 64
    assert cosma("compile", model, "--scratchpad", "640", "-o", plans[1]).code == 0
    told = cosma("diff", *plans)
    assert told.code == 0
    assert "'a' stays resident" in told.out
    assert "((0, 64),)" in told.out


def test_reserved_at_the_top_takes_the_place_of_ranges(model: Path) -> None:
    part = model.parent / "part.toml"
    part.write_text('scratchpad = 640\nreserved = [[0, 64]]\n')
    plan = model.parent / "plan.json"
    assert cosma("compile", model, "--accelerator", part, "--reserved", "32", "-o", plan).code == 0
    record = json.loads(plan.read_text())
    assert record["accelerator"]["reserved"] == 32
    assert "reserved_ranges" not in record["accelerator"]


def test_a_program_that_is_exported_keeps_to_a_file(model: Path) -> None:
    file = forced(model.parent, 'before = [["right", "left"]]\nexcluded = [[0, 16]]\n[addresses]\na = 64\n')
    sizes = []
    for more in ([], ["--constraints", file]):
        path = model.parent / "program.lp"
        done = cosma("compile", model, "--scratchpad", "640", "--alignment", "16", "--export-model", path, *more)
        assert done.code == 0, done.err
        sizes.append(path.read_text())
    assert sizes[0] != sizes[1]
    assert "range" in sizes[1] or len(sizes[1]) > len(sizes[0])
