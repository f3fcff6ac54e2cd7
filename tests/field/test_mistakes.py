"""Mistakes of a first hour: a message says what is wrong, where, and what helps, in a line."""

from __future__ import annotations

from pathlib import Path
from shutil import copy

import pytest

from cosma import Accelerator, compile, save_plan
from cosma.graph.json_format import save_graph
from tests.field.commands import cosma
from tests.planning import diamond


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mistakes")
    save_graph(diamond(), made / "graph.json")
    save_plan(compile(diamond(), Accelerator(scratchpad="2KiB"), strategy="e1"), made / "plan.json")
    copy(Path(__file__).parent / "data" / "bfloat16_add.onnx", made / "model.onnx")
    (made / "empty.json").touch()
    (made / "empty.csv").touch()
    (made / "words.onnx").write_text("not a model\n")
    return made


@pytest.mark.parametrize(
    ("command", "words"),
    [
        # Names of files.
        ("compile modl.onnx --scratchpad 64KiB", ("model modl.onnx: no such file", "did you mean 'model.onnx'?")),
        ("compile away/model.onnx --scratchpad 64KiB", ("no such file, nor a folder away",)),
        ("report plna.json", ("plan plna.json: no such file", "'plan.json'")),
        ("compile . --scratchpad 64KiB", ("model .: is a folder, not a file",)),
        # A file of another kind.
        ("compile plan.json --scratchpad 64KiB", ("plan.json: is a cosma-plan file, not a cosma-graph", "the model")),
        ("compile empty.json --scratchpad 64KiB", ("empty.json: is empty",)),
        ("compile words.onnx --scratchpad 64KiB", ("words.onnx: is plain text, not an ONNX",)),
        ("report model.onnx", ("model.onnx: is an ONNX model, not a cosma-plan file; compiling a model writes one",)),
        ("check model.onnx plan.json", ("model.onnx: is an ONNX model, not a cosma-plan file",)),
        ("check graph.json", ("graph.json: is a cosma-graph file, not a cosma-plan file",)),
        ("explain empty.json", ("empty.json: is empty, not a cosma-plan file",)),
        ("diff plan.json model.onnx", ("model.onnx: is an ONNX model, not a cosma-plan file or",)),
        ("compile model.onnx --scratchpad 64KiB --start graph.json", ("graph.json: is a cosma-graph file",)),
        ("compile model.onnx --accelerator plan.toml", ("accelerator file plan.toml: no such file",)),
        ("compile model.onnx --scratchpad 64KiB --params plan.json", ("parameters plan.json: is a cosma-plan file",)),
        ("compile model.onnx --scratchpad 64KiB --constraints model.onnx", ("is an ONNX model, not a TOML file",)),
        ("compile model.onnx --scratchpad 64KiB --tiling plan.json", ("is a cosma-plan file, not a TOML file",)),
        ("sweep plan.json -o out", ("plan.json: is a cosma-plan file, not a TOML file",)),
        ("pack plan.json --capacity 1MiB", ("plan.json: is a cosma-plan file, not a table of buffers",)),
        ("pack model.onnx --capacity 1MiB", ("model.onnx: is an ONNX model, not a table of buffers",)),
        ("cache plan.json", ("trace plan.json: is a cosma-plan file, not a trace",)),
        # Values of options.
        ("compile model.onnx --scratchpad 64KiB --tiling atuo", ("tiling 'atuo' is neither", "auto", "rows=8")),
        ("compile model.onnx --scratchpad 64KiB --strategy atuo", ("strategy 'atuo' is unknown", "auto")),
        ("compile model.onnx --scratchpad 64KiB --operands streamed", ("'streamed'", "streamable")),
        ("compile model.onnx --scratchpad 64KiB --dim batch=1", ("'batch'; every shape of it is fixed",)),
        ("compile model.onnx --scratchpad 64kbit", ("'64kbit'", "such as 512KiB")),
        ("compile model.onnx --accelerator ethos", ("'ethos' is neither a preset", "ethos-u65-mid")),
        ("compile model.onnx", ("no accelerator: give --scratchpad SIZE", "cosma presets")),
        ("curve model.onnx --from 1MiB --to 64KiB", ("[1048576, 65536] is empty",)),
        ("explain plan.json nosuch", ("neither a tensor nor an operator 'nosuch'",)),
        # Outputs.
        ("compile model.onnx --scratchpad 64KiB -o away/p.json", ("away/p.json: the folder away does not exist",)),
        ("compile model.onnx --scratchpad 64KiB -o plan.html", ("unknown ending '.html'; use .json",)),
        ("report plan.json -o page.pdf", ("--figure page.pdf draws a figure",)),
    ],
)
def test_a_line_says_what_where_and_what_helps(
    folder: Path, command: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    done = cosma(*command.split())
    assert done.code == 2, done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1, done.err
    for said in words:
        assert said in done.err


def test_a_scratchpad_without_a_unit_that_is_a_slip_is_pointed_out(folder: Path) -> None:
    options = ("--strategy", "e1")
    said = "--scratchpad 512 is 512 bytes; write 512KiB for kibibytes"
    assert said in cosma("compile", folder / "graph.json", "--scratchpad", "512", *options).err
    for size in ("512B", "4096", "1KiB"):
        assert "kibibytes" not in cosma("compile", folder / "graph.json", "--scratchpad", size, *options).err


def test_a_name_that_no_file_can_have_is_no_defect(folder: Path) -> None:
    done = cosma("compile", folder / "model.onnx", "--scratchpad", "1KiB", "--tiling", "a" * 5000)
    assert done.code == 2
    assert done.err.startswith("error: no file can have a name as long as 'aaa")
