"""The rules of the machine, stated by hand; that plans obey them, the validator says elsewhere."""

from __future__ import annotations

import pytest

from cosma.accelerator import Accelerator
from cosma.problem import build_problem
from cosma.problem.rules import (
    arrival_bytes,
    departure_bytes,
    first_arrival_is_compulsory,
    may_stream,
    may_stream_anything,
    need_bytes,
    store_bytes,
    streams_out_for_free,
    takeover_bytes,
    working_set_bytes,
)
from tests.planning import diamond
from tests.random_graphs import random_problem

RESIDENT = build_problem(diamond(), Accelerator(scratchpad=512, operands="resident", weights="scratchpad"))
STREAMABLE = build_problem(diamond(), Accelerator(scratchpad=512, weights="scratchpad"))
T = {name: i for i, name in enumerate(RESIDENT.tensor_names)}
V = {name: i for i, name in enumerate(RESIDENT.operator_names)}


def test_a_first_store_costs_what_no_copy_and_no_output_stands_for() -> None:
    assert {name: int(store_bytes(RESIDENT, t)) for name, t in T.items()} == {
        "x": 0, "w": 0, "a": 128, "b": 128, "c": 64, "d": 128, "y": 0,
    }  # fmt: skip
    assert store_bytes(RESIDENT).tolist() == [int(store_bytes(RESIDENT, t)) for t in T.values()]


def test_only_inputs_and_weights_arrive_once_for_nothing() -> None:
    assert {name for name, t in T.items() if first_arrival_is_compulsory(RESIDENT)[t]} == {"x", "w"}
    assert int(arrival_bytes(RESIDENT, T["c"])) == 64


@pytest.mark.parametrize(
    ("copied", "read_again", "owed"), [(False, True, 192), (True, True, 128), (False, False, 64), (True, False, 0)]
)
def test_a_departure_owes_a_store_without_a_copy_and_a_read_where_one_follows(
    copied: bool, read_again: bool, owed: int
) -> None:
    assert departure_bytes(128, 64, copied=copied, read_again=read_again) == owed


def test_streaming_is_for_all_or_none() -> None:
    for problem, allowed in ((RESIDENT, False), (STREAMABLE, True)):
        assert may_stream(problem, V["join"], T["b"]) is allowed
        assert may_stream_anything(problem) is allowed


def test_an_output_nobody_reads_streams_out_for_free() -> None:
    assert streams_out_for_free(STREAMABLE, V["join"], T["y"], read_later=False)
    assert not streams_out_for_free(STREAMABLE, V["join"], T["y"], read_later=True)
    assert not streams_out_for_free(STREAMABLE, V["left"], T["b"], read_later=False)
    assert not streams_out_for_free(RESIDENT, V["join"], T["y"], read_later=False)


def test_a_takeover_saves_its_result_and_a_step_needs_the_rest() -> None:
    assert takeover_bytes(RESIDENT, V["join"]) == 128
    assert takeover_bytes(RESIDENT, V["stem"]) == 0
    for seed in range(30):
        problem = random_problem(seed)
        for v in range(problem.operator_count):
            touched = [*problem.operands_of(v).tolist(), *problem.results_of(v).tolist()]
            most = int(problem.space_bytes[touched].sum())
            assert working_set_bytes(problem, v) == most - takeover_bytes(problem, v)
            needed = 0 if may_stream_anything(problem) else working_set_bytes(problem, v)
            assert need_bytes(problem, v) == needed
