from __future__ import annotations

import time

import numpy as np
import pytest

from cosma.errors import FormatError, InputError, SolverUnavailableError
from cosma.joint import build_joint
from cosma.replacement import build_replacement
from cosma.solvers import Profile, Status, Stop, export_model, list_profiles, load_profile, solve
from cosma.solvers.model import Model, ModelBuilder, NoOverlap
from tests.random_graphs import Shape, random_problem

OPEN = ("cp-sat", "highs", "scip", "cbc")


def replacement_with_choices() -> Model:
    for seed in range(200):
        problem = random_problem(seed)
        model = build_replacement(problem, range(problem.operator_count)).model
        if model.variable_count > 12 and solve(model, load_profile("cp-sat")).values is not None:
            return model
    raise AssertionError("no such seed")


def knapsack(count: int, seed: int) -> Model:
    """A market-split program: no back end proves 40 variables within seconds."""
    generator = np.random.default_rng(seed)
    out = ModelBuilder("market split")
    items = [out.variable("item") for _ in range(count)]
    for _ in range(5):
        weights = generator.integers(0, 100, count).tolist()
        over, under = out.variable("over", 0, 10_000), out.variable("under", 0, 10_000)
        out.cost(over, 1)
        out.cost(under, 1)
        half = sum(weights) // 2
        out.row("split", [*items, over, under], [*weights, -1, 1], lower=half, upper=half)
    return out.build()


@pytest.mark.parametrize("back_end", OPEN)
def test_a_warm_start_is_accepted(back_end: str) -> None:
    model = replacement_with_choices()
    best = solve(model, load_profile("cp-sat")).values
    assert best is not None
    scaled = (model.value(best) - model.offset) // model.objective_granule
    log = solve(model, load_profile(back_end), warm_start=best, log=True).log
    said = {
        "cp-sat": f"The solution hint is complete and is feasible. Its objective value is {scaled}",
        "highs": f"MIP start solution is feasible, objective value is {scaled}",
        "scip": "1/1 feasible solution given by solution candidate",
        "cbc": f"MIPStart provided solution with cost {scaled}",
    }
    assert said[back_end] in log


@pytest.mark.parametrize("back_end", OPEN)
def test_infeasible_is_proven(back_end: str) -> None:
    out = ModelBuilder("impossible")
    x, y = out.variable("x"), out.variable("y")
    out.cost(x, 1)
    out.row("too much", [x, y], [1, 1], lower=3)
    result = solve(out.build(), load_profile(back_end))
    assert (result.status, result.stopped_by, result.values) == (Status.INFEASIBLE, Stop.PROOF, None)


@pytest.mark.parametrize("back_end", OPEN)
def test_the_time_limit_holds_and_is_told_apart(back_end: str) -> None:
    began = time.monotonic()
    result = solve(knapsack(40, 1), load_profile(back_end), time_limit_s=1.0)
    assert time.monotonic() - began < 20
    assert result.stopped_by is Stop.TIME
    assert result.status in (Status.FEASIBLE, Status.UNKNOWN)
    if result.objective is not None and result.bound is not None:
        assert result.bound < result.objective


def test_work_limits_are_reproducible() -> None:
    first, second = (solve(knapsack(40, 2), load_profile("cp-sat"), work_limit=0.05) for _ in range(2))
    assert first.stopped_by is Stop.WORK
    assert (first.objective, first.bound) == (second.objective, second.bound)


@pytest.mark.parametrize("back_end", ["cp-sat", "highs"])
def test_an_interrupt_ends_the_run(back_end: str) -> None:
    began = time.monotonic()
    result = solve(knapsack(40, 3), load_profile(back_end), stop=lambda: time.monotonic() > began + 0.5)
    assert result.stopped_by is Stop.INTERRUPT
    assert time.monotonic() - began < 20


def test_the_memory_limit_holds() -> None:
    result = solve(knapsack(40, 4), load_profile("highs"), memory_limit_bytes=64 << 20, time_limit_s=10)
    assert result.stopped_by is Stop.MEMORY
    assert result.bound is None


def test_a_gap_is_a_reason_to_stop() -> None:
    model = replacement_with_choices()
    result = solve(model, Profile(name="loose", back_end="cp-sat", gap=0.9))
    assert result.stopped_by in (Stop.GAP, Stop.PROOF)
    assert result.objective is not None


def test_wrong_warm_starts_are_refused() -> None:
    model = replacement_with_choices()
    with pytest.raises(InputError, match="warm start violates"):
        solve(model, load_profile("cp-sat"), warm_start=model.upper + 1)


@pytest.mark.parametrize("back_end", ["gurobi", "cplex", "xpress"])
def test_missing_back_ends_say_so(back_end: str) -> None:
    import pulp

    if any(name.lower().startswith(back_end) for name in pulp.listSolvers(onlyAvailable=True)):
        pytest.skip(f"{back_end} is installed")
    with pytest.raises(SolverUnavailableError, match=f"{back_end} is not installed"):
        solve(replacement_with_choices(), load_profile(back_end))
    with pytest.raises(SolverUnavailableError, match=f"{back_end} is not installed"):
        solve(replacement_with_choices(), load_profile(back_end), time_limit_s=30)


def test_linear_back_ends_refuse_intervals() -> None:
    out = ModelBuilder("intervals")
    starts = tuple(out.variable("start", 0, 3) for _ in range(2))
    present = tuple(out.variable("present", 1, 1) for _ in range(2))
    out.forbid_overlap(NoOverlap(starts, (2, 2), present))
    model = out.build()
    with pytest.raises(InputError, match="Use solver 'cp-sat'"):
        solve(model, load_profile("highs"))
    result = solve(model, load_profile("cp-sat"))
    assert result.values is not None
    assert abs(int(result.values[0] - result.values[1])) >= 2
    assert "no overlap" in model.violations(np.array([0, 1, 1, 1]))


@pytest.mark.parametrize("ending", ["mps", "lp", "pb", "pbtxt"])
def test_exported_models_have_the_same_optimum(ending: str, tmp_path) -> None:
    import pulp
    from ortools.sat.python import cp_model

    problem = random_problem(1, Shape(operators=4))
    model = build_joint(problem).model
    path = tmp_path / f"model.{ending}"
    export_model(model, path)
    truth = solve(model, load_profile("cp-sat")).objective
    assert truth is not None
    if ending == "mps":
        _, read = pulp.LpProblem.fromMPS(str(path))
        read.solve(pulp.PULP_CBC_CMD(msg=False))
        scaled = round(pulp.value(read.objective) or 0)
    elif ending == "lp":
        text = path.read_text()
        assert "Subject To" in text
        assert "precedence" in text or "capacity" in text or "load" in text
        return
    else:
        read = cp_model.CpModel()
        if ending == "pb":
            # OR-Tools reads the binary form in C++ only; its text form is read back below.
            assert path.stat().st_size > 0
            return
        assert read.proto.parse_text_format(path.read_text())
        solver = cp_model.CpSolver()
        assert solver.solve(read) == cp_model.OPTIMAL
        scaled = round(solver.objective_value)
    assert scaled * model.objective_granule + model.offset == truth


def test_export_refuses_other_endings(tmp_path) -> None:
    with pytest.raises(InputError, match="cannot export"):
        export_model(replacement_with_choices(), tmp_path / "model.txt")


def test_shipped_profiles_load() -> None:
    for name in list_profiles():
        assert load_profile(name).back_end in name or name == "cp-sat-parallel"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("back_end = 'nobody'", "back_end 'nobody' is unknown"),
        ("threads = 2", "back_end is missing"),
        ("back_end = 'highs'\nthread = 2", "unknown key 'thread'"),
        ("back_end = 'highs'\nthreads = 0", "threads must be at least 1"),
        ("back_end = 'highs'\ngap = 2.0", "gap must be within"),
        ("back_end = ", "solver profile"),
    ],
)
def test_wrong_profiles_are_refused(text: str, message: str, tmp_path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises((InputError, FormatError), match=message):
        load_profile(str(path))


def test_unknown_solvers_and_options_are_refused() -> None:
    with pytest.raises(InputError, match="solver 'nobody' is unknown"):
        load_profile("nobody")
    with pytest.raises(InputError, match="CP-SAT option"):
        solve(replacement_with_choices(), Profile(name="own", back_end="cp-sat", options={"no_such": 1}))


def test_ortools_and_pulp_live_in_one_process_in_either_order() -> None:
    import subprocess
    import sys

    code = "from cosma.solvers.pulp_ import import_pulp; import_pulp(); from ortools.math_opt.python import mathopt"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
