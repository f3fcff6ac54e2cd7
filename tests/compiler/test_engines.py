from __future__ import annotations

import pytest

from cosma import replay
from cosma.compiler import Limits, run_compile
from cosma.compiler.engines import ENGINES, supports
from cosma.errors import InputError
from cosma.parameters.compiler import AutoParameters, CompileParameters, ExactParameters
from cosma.parameters.replacement import ReplacementParameters
from cosma.parameters.states import StatesParameters
from tests.random_graphs import Shape, random_instance, random_problem

NARROW = CompileParameters(
    auto=AutoParameters(most_operators_as_one=3),
    exact=ExactParameters(most_operators_for_conflicts=3),
    states=StatesParameters(most_operators=3),
    replacement=ReplacementParameters(most_terms=3),
)


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_takes_a_small_problem(name: str) -> None:
    problem = random_problem(1)
    assert supports(name, problem, CompileParameters(), range(problem.operator_count))


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("best replacement", "terms, 3 at most"),
        ("dynamic programming", "operators, 3 at most"),
        ("learnt conflicts", "operators, 3 at most"),
        ("rounds", "operators, 3 at most"),
    ],
)
def test_limits_are_parameters(name: str, what: str) -> None:
    problem = random_problem(1)
    support = supports(name, problem, NARROW, range(problem.operator_count))
    assert not support
    assert what in support.why_not


def test_one_program_for_a_large_network_is_refused_before_anything_is_planned() -> None:
    graph, accelerator = random_instance(2, Shape(operators=400))
    with pytest.raises(InputError, match=r"the joint program of \d+ operators has [\d,]+ variables before addresses"):
        run_compile(graph, accelerator.replace(scratchpad=1 << 20), strategy="ilp")


@pytest.mark.parametrize("strategy", ["auto", "exact"])
def test_engines_left_out_are_named_and_the_rest_plans(strategy: str) -> None:
    left_out = 0
    for seed in range(12):
        graph, accelerator = random_instance(seed, Shape(operators=9))
        accelerator = accelerator.replace(operands="streamable", scratchpad=max(256, accelerator.alignment))
        found = run_compile(graph, accelerator, strategy=strategy, limits=Limits(effort=0.2), parameters=NARROW)
        assert replay(found.plan).valid
        assert set(found.left_out) <= set(ENGINES)
        left_out += bool(found.left_out)
        if not run_compile(graph, accelerator, strategy=strategy, limits=Limits(effort=0.2)).left_out:
            continue
        raise AssertionError("no limit is near for so small a network")
    assert left_out > 4
