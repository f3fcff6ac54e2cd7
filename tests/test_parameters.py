"""Parameters: every value has a meaning and a source, files change some of them, nonsense is refused."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

import cosma
from cosma.accelerator import Accelerator
from cosma.compiler import run_compile
from cosma.errors import CosmaError, InputError
from cosma.parameters import Parameters, changed, read_parameters
from cosma.parameters.compiler import AutoParameters, CompileParameters
from tests.planning import diamond

if TYPE_CHECKING:
    from pathlib import Path

ROOM = Accelerator(scratchpad=384, operands="resident", in_place=False)


def records(record: Parameters) -> Iterator[Parameters]:
    yield record
    for name in record.__struct_fields__:
        value = getattr(record, name)
        if isinstance(value, Parameters):
            yield from records(value)


@pytest.mark.parametrize("record", list(records(CompileParameters()))[1:], ids=lambda record: type(record).__name__)
def test_every_value_has_a_meaning_and_a_source(record: Parameters) -> None:
    # Python 3.13 takes the indentation off by itself.
    _, _, attributes = inspect.cleandoc(type(record).__doc__ or "").partition("----------\n")
    entries = re.findall(r"^(\w[\w, ]*)\n((?: {4}.*(?:\n|$))+)", attributes, flags=re.MULTILINE)
    named = [name for names, _ in entries for name in names.split(", ")]
    assert named == list(record.__struct_fields__)
    assert all(re.search(r"\[[^\]]+\]\s*$", text) for _, text in entries)


def test_a_file_changes_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "some.toml"
    path.write_text("[auto]\nmost_conflicts = 3\n[bounds]\npiece_sizes = [50]\n")
    found = read_parameters(path, CompileParameters)
    assert found.auto == AutoParameters(most_conflicts=3)
    assert found.bounds.piece_sizes == (50,)
    assert found.search == CompileParameters().search
    assert changed(found) == {"auto": {"most_conflicts": 3}, "bounds": {"piece_sizes": (50,)}}
    assert changed(CompileParameters()) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[auto]\nmost_conflict = 3\n", "most_conflict"),
        ("[auto]\nmost_conflicts = -1\n", ">= 0"),
        ("[auto]\nmost_conflicts = 1.5\n", "Expected `int`"),
        ("[engines]\n", "engines"),
        ("[auto\n", "some.toml"),
    ],
)
def test_nonsense_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "some.toml"
    path.write_text(text)
    with pytest.raises(CosmaError, match=re.escape(message)) as raised:
        cosma.compile(diamond(), ROOM, parameters=path)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        cosma.compile(diamond(), ROOM, parameters=tmp_path / "none.toml")


def test_a_plan_says_which_parameters_were_changed() -> None:
    assert "parameters" not in run_compile(diamond(), ROOM).plan.solver
    few = CompileParameters(auto=AutoParameters(most_conflicts=3))
    assert run_compile(diamond(), ROOM, parameters=few).plan.solver["parameters"] == {"auto": {"most_conflicts": 3}}
