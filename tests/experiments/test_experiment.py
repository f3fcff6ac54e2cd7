from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cosma.accelerator import PLANNING_FIELDS
from cosma.errors import InputError
from cosma.experiments import Experiment, load_experiment
from cosma.experiments import experiment as module
from cosma.experiments.cell import Cell
from cosma.experiments.experiment import expand_grid
from cosma.graph.json_format import save_graph
from tests.planning import diamond

Make = Callable[..., Experiment]


def test_built_in_grids_are_those_of_the_measurements() -> None:
    points = {name: expand_grid(name, Path()) for name in "RWS"}
    assert [p.capacity for p in points["R"]] == ["1x", "1.1x", "1.25x", "1.5x"]
    assert [int(p.capacity) for p in points["S"]] == [2**k for k in range(18, 24)]
    r, w, s = (points[name][0] for name in "RWS")
    assert (r.fields["operands"], r.fields["in_place"], r.fields["weights"]) == ("resident", False, "stream")
    assert {**r.fields, "weights": "scratchpad"} == w.fields
    assert (s.fields["operands"], s.fields["in_place"], s.dtype) == ("streamable", True, "int8")


def test_cells_are_the_product_and_existing_methods_run_with_one_seed(experiment: Make) -> None:
    made = experiment("a", "b", head="seeds = [0, 1, 2]\nrepeats = 2", strategies='["e1", "auto"]')
    cells = made.cells()
    assert Counter(cell.label for cell in cells) == {"e1": 2 * 3 * 2, "auto": 2 * 3 * 2 * 3}
    assert len({cell.point() for cell in cells}) == len(cells)


def test_grids_cross_every_listed_field() -> None:
    grid = {
        "name": "G",
        "scratchpad": {"from": "64KiB", "to": "256KiB", "factor": 2},
        "alignment": [16, 64],
        "operands": ["resident", "streamable"],
        "dtype": ["int8", "float16"],
    }
    points = expand_grid(grid, Path())
    assert len({(p.capacity, p.dtype, *p.fields.values()) for p in points}) == len(points) == 3 * 2 * 2 * 2


def test_an_accelerator_gives_what_the_grid_leaves_out(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('scratchpad = "96KiB"\nalignment = 32\nreserved = 1024\n')
    own, changed = (
        expand_grid({"name": "G", "accelerator": "mine.toml", **extra}, tmp_path)[0]
        for extra in ({}, {"alignment": 128})
    )
    assert (own.capacity, own.fields["alignment"], own.fields["reserved"]) == (str(96 * 1024), 32, 1024)
    assert own.fields["name"] == "mine"
    assert changed.fields == {**own.fields, "alignment": 128}


def test_every_field_of_an_accelerator_that_a_plan_depends_on_reaches_its_cells(tmp_path: Path) -> None:
    unusual: dict[str, Any] = {
        "alignment": 16, "operands": "resident", "weights": "scratchpad", "reserved": 64, "in_place": False,
        "fusion": "epilogue", "min_transfer": 256, "zero_copy": True, "pieces": 2,
    }  # fmt: skip
    assert set(unusual) == set(PLANNING_FIELDS)
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in unusual.items())
    (tmp_path / "npu.toml").write_text(f'scratchpad = "4KiB"\n{lines}\n')
    (point,) = expand_grid({"name": "G", "accelerator": "npu.toml"}, tmp_path)
    assert point.fields == {**unusual, "name": "npu"}
    plain, copied = expand_grid({"name": "G", "scratchpad": "4KiB", "zero_copy": [False, True]}, tmp_path)
    assert plain.fields["zero_copy"] is False
    assert copied.fields["zero_copy"] is True


def test_fields_that_old_tables_lack_leave_their_cells_as_they_were() -> None:
    points = {name: expand_grid(name, Path())[0].fields for name in "RWS"}
    stated = {"alignment", "reserved", "operands", "weights", "in_place", "fusion", "name"}
    assert all(set(fields) == stated for fields in points.values())


def test_keys_follow_what_decides_the_result_and_nothing_else(experiment: Make) -> None:
    cell = experiment("a", strategies='["auto"]').cells()[0]
    key = cell.key("1")
    decisive = {
        "model_sha256": "0" * 64, "dims": {"n": 2}, "capacity": "7", "dtype": "int8", "strategy": "e3", "effort": 3.0,
        "seed": 9, "gap": 0.5, "repeat": 1, "solver": "highs", "time_limit_s": 1.0,
        "accelerator": {**cell.accelerator, "alignment": 1},
    }  # fmt: skip
    changed = {name: msgspec.structs.replace(cell, **{name: value}).key("1") for name, value in decisive.items()}
    assert len({key, *changed.values()}) == len(decisive) + 1
    assert cell.key("2") != key
    assert cell.point() == msgspec.structs.replace(cell, limit_s=1.0, memory_bytes=5, path="/x", keep_plan=True).point()


def test_effort_and_seed_are_nothing_to_an_existing_method(experiment: Make) -> None:
    cell = experiment("a", strategies='["e1"]').cells()[0]
    assert msgspec.structs.replace(cell, effort=99.0, seed=5, gap=0.1).point() == cell.point()


def test_strategies_may_differ_in_settings_alone(experiment: Make) -> None:
    strategies = '["auto", { strategy = "auto", effort = 1.5, label = "auto, brief" }]'
    cells = experiment("a", head="effort = 7.0", strategies=strategies).cells()
    assert {cell.label: cell.effort for cell in cells} == {"auto": 7.0, "auto, brief": 1.5}


def test_cells_survive_the_wire(experiment: Make) -> None:
    for cell in experiment("a").cells():
        assert msgspec.json.decode(msgspec.json.encode(cell), type=Cell) == cell


def test_patterns_exclusions_groups_and_dims(tmp_path: Path) -> None:
    for folder, name in (("p", "a"), ("p", "b"), ("q/deep", "c")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        save_graph(diamond(), tmp_path / folder / f"{name}.json")
    (tmp_path / "x").mkdir()
    text = """
        models = ["../p/*", { path = "../q/**/*.json", group = "deep", dims = { batch = 2 } }]
        exclude = ["b*"]
        grids = ["R"]
        strategies = ["e1"]
    """
    (tmp_path / "x" / "e.toml").write_text(text)
    models = load_experiment(tmp_path / "x" / "e.toml").models
    assert [(m.name, m.group, m.dims) for m in models] == [("a", "p", {}), ("c", "deep", {"batch": 2})]


def test_the_zoo_is_found_above_the_experiment(tmp_path: Path) -> None:
    (tmp_path / "models" / "zoo").mkdir(parents=True)
    for name in ("net_a", "net_b", "other"):
        save_graph(diamond(), tmp_path / "models" / "zoo" / f"{name}.json")
    listed = "".join(f'[[model]]\nfile = "{name}.json"\n' for name in ("net_b", "net_a", "other"))
    (tmp_path / "models" / "manifest.toml").write_text(listed)
    (tmp_path / "results").mkdir()
    for entry, names in (("zoo", ["net_a", "net_b", "other"]), ("zoo:net_*", ["net_a", "net_b"])):
        path = tmp_path / "results" / "e.toml"
        path.write_text(f'models = ["{entry}"]\ngrids = ["R"]\nstrategies = ["e1"]\n')
        assert [model.name for model in load_experiment(path).models] == names


GOOD = 'models = ["a.json"]\ngrids = ["R"]\nstrategies = ["e1"]\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("models = [", "not a TOML file"),
        (GOOD + "colour = 1\n", "colour"),
        (GOOD + "repeats = 0\n", "repeats"),
        (GOOD + "seeds = []\n", "seeds"),
        (GOOD + "seeds = [1, 1]\n", "seeds"),
        (GOOD + "seeds = [-1]\n", "seed"),
        (GOOD + "effort = -1.0\n", "effort"),
        (GOOD + "[limits]\nseconds = 0\n", "limits.seconds"),
        (GOOD + '[limits]\nmemory = "many"\n', "limits.memory"),
        (GOOD.replace("a.json", "b.json"), "no such file"),
        (GOOD.replace("a.json", "*.onnx"), "matches no"),
        (GOOD.replace("a.json", "zoo:*"), "no zoo"),
        (GOOD + 'exclude = ["a"]\n', "nothing is left"),
        (GOOD.replace('"R"', '"Q"'), "grid 'Q' is unknown"),
        (GOOD.replace('"R"', "{ scratchpad = 1 }"), "needs a name"),
        (GOOD.replace('"R"', '{ name = "G" }'), "scratchpad"),
        (GOOD.replace('"R"', '{ name = "G", scratchpad = 64, size = 1 }'), "size"),
        (GOOD.replace('"R"', '{ name = "G", scratchpad = 64, operands = "none" }'), "operands"),
        (GOOD.replace('"R"', '{ name = "G", scratchpad = 64, dtype = "int9" }'), "int9"),
        (GOOD.replace('"R"', '{ name = "G", accelerator = "no-such" }'), "no-such"),
        (GOOD.replace('"e1"', '"e9"'), "e9"),
        (GOOD.replace('"e1"', '"e1", "e1"'), "called 'e1'"),
        (GOOD.replace('"e1"', ""), "strategies"),
        (GOOD.replace('"a.json"', '"a.json", { path = "sub/a.json" }'), "both called 'a'"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "sub").mkdir()
    save_graph(diamond(), tmp_path / "a.json")
    save_graph(diamond(), tmp_path / "sub" / "a.json")
    (tmp_path / "e.toml").write_text(text)
    with pytest.raises(InputError, match=r"e\.toml") as caught:
        load_experiment(tmp_path / "e.toml")
    assert says in str(caught.value)


def test_fields_are_offered_of_the_table_that_has_the_unknown_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(text: str) -> str:
        (tmp_path / "e.toml").write_text(text)
        with pytest.raises(InputError) as caught:
            load_experiment(tmp_path / "e.toml")
        return str(caught.value)

    wrong = GOOD + "[limits]\nsecond = 1\n"
    assert said(wrong).endswith("limits: unknown field 'second'; known are seconds, memory; did you mean 'seconds'?")
    assert "known are name, description, zoo, models" in said("sedes = [1]\n" + GOOD)
    # A table that has no fields listed gets none, and not those of the file.
    monkeypatch.delitem(module._TABLES, "limits")
    assert said(wrong).endswith("limits: unknown field 'second'")
