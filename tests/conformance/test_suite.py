"""Every case of ONNX's own suite is planned, executed and gives the suite's outputs, or fails for a listed reason."""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

import onnx
import pytest

from tests.conformance.exceptions import NOT_EXECUTED, ORT_DIFFERS, REFUSED, find
from tests.conformance.suite import VERSION, Case, Outcome, folder_cases, node_cases, run_case

pytestmark = pytest.mark.skipif(
    not onnx.__version__.startswith(f"{VERSION}."), reason=f"the tables are about the suite of onnx {VERSION}"
)

#: Parts the suite is cut into, so that several processes share the work.
PARTS = 12


def complaint(case: Case, outcome: Outcome) -> str:
    """What is wrong with an outcome, given the tables; empty if nothing is."""
    for kind, table in (("refused", REFUSED), ("not executed", NOT_EXECUTED), ("different", ORT_DIFFERS)):
        entry = find(table, case.name)
        if entry is None:
            continue
        if outcome.kind != kind:
            return f"{case.name}: listed as {kind}, and it is {outcome.kind} ({outcome.message}): change the table"
        if entry.message not in outcome.message:
            return f"{case.name}: {kind}, but not for the listed reason: {outcome.message}"
        return ""
    return "" if outcome.kind == "equal" else f"{case.name}: {outcome.kind}: {outcome.message}"


@pytest.mark.parametrize("part", range(PARTS))
def test_node_cases(part: int, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    cases = node_cases()[part::PARTS]
    wrong = [complaint(case, run_case(case, tmp_path, None)) for case in cases]
    assert not list(filter(None, wrong))


def test_models_of_converters(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    wrong = [complaint(case, run_case(case, tmp_path, None)) for case in folder_cases()]
    assert not list(filter(None, wrong))


def test_where_onnx_runtime_differs_the_reference_kernels_agree_with_the_suite(tmp_path: Path) -> None:
    """So it is the kernel that differs, not the reading of the model nor the execution of the plan."""
    cases = [case for case in node_cases() if find(ORT_DIFFERS, case.name)]
    assert {case.name: run_case(case, tmp_path, "reference") for case in cases} == {
        case.name: Outcome("equal") for case in cases
    }


def test_how_many_cases_go_which_way() -> None:
    """The parts above hold every case to its table, so the tables say how many there are of each kind."""

    def counted(cases: tuple[Case, ...]) -> Counter[str]:
        kinds = (("refused", REFUSED), ("not executed", NOT_EXECUTED), ("ort differs", ORT_DIFFERS))
        return Counter(next((kind for kind, table in kinds if find(table, case.name)), "equal") for case in cases)

    assert counted(node_cases()) == {"equal": 1761, "ort differs": 19, "not executed": 13, "refused": 91}
    assert counted(folder_cases()) == {"equal": 131, "not executed": 2, "refused": 7}


def test_every_entry_is_about_some_case() -> None:
    names = [case.name for case in (*node_cases(), *folder_cases())]
    entries = (*REFUSED, *NOT_EXECUTED, *ORT_DIFFERS)
    patterns = [pattern for entry in entries for pattern in entry.patterns]
    assert [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in names)] == []
