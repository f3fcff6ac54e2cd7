"""Names are written by others: none acts on a terminal, breaks a file or becomes a formula."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.dom.minidom
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosma.packing.csvfile import format_buffers, parse_buffers
from cosma.text import csv_cell, csv_text, figure_text, plain, plain_lines, safe_json
from tests.field.commands import cosma

DATA = Path(__file__).parent / "data"
PLAN, MODEL = DATA / "names_with_escapes_plan.json", DATA / "names_with_escapes.onnx"
#: What a terminal acts upon: controls but line feeds, marks of direction, separators.
ACTIVE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
EVIL = ("\x1b]0;title\x07", "a\nb", "\x9b31m", "\u202eabc", "\x00", "\ud800")


@pytest.mark.parametrize(
    "arguments",
    [
        ("compile", MODEL, "--scratchpad", "4KiB"),
        ("compile", MODEL, "--scratchpad", "4KiB", "--json"),
        ("compile", MODEL, "--scratchpad", "64"),
        ("compile", MODEL, "--scratchpad", "4KiB", "-o", "-"),
        ("inspect", MODEL),
        ("inspect", MODEL, "--json"),
        ("check", PLAN),
        ("report", PLAN, "--text"),
        ("explain", PLAN),
        ("explain", PLAN, "--json"),
        ("explain", PLAN, "\x1b[31m"),
        ("diff", PLAN, PLAN),
        ("trace", PLAN, "--bandwidth", "1GB", "--clock", "1e9", "--macs-per-cycle", "8"),
        ("run", PLAN, MODEL, "--kernels", "reference"),
        ("curve", MODEL, "--points", "2", "--strategy", "e2"),
        ("check", "no\x1b[31m\nsuch\u202efile"),
        ("compile", MODEL, "--scratchpad", "4\x1b[31mKiB"),
        ("compile", MODEL, "--no\x1b[31m"),
        ("\x1b[31m",),
    ],
)
def test_no_control_character_reaches_a_terminal(arguments: tuple[str | Path, ...]) -> None:
    done = cosma(*arguments)
    assert done.code in (0, 2, 3), done.err
    for text in (done.out, done.err):
        assert not ACTIVE.search(text)
    assert done.out or done.err


def test_all_names_of_a_plan_can_be_explained() -> None:
    names = [tensor["name"] for tensor in json.loads(PLAN.read_text())["tensors"]]
    assert any("\x1b" in name for name in names)
    for name in names:
        done = cosma("explain", PLAN, "--", name)
        assert done.code == 0, done.err
        assert not ACTIVE.search(done.out)


def test_pictures_are_well_formed(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert cosma("report", PLAN, "--figure", tmp_path / "a.svg", "--figure", tmp_path / "a.png").code == 0
    assert cosma("curve", MODEL, "--points", "2", "--strategy", "e2", "--figure", tmp_path / "b.svg").code == 0
    rows = ["id,lower,upper,size", *(f'"{name}",0,1,8' for name in ("=1+1", "\x1b[31m", "</svg>", "$x$", "\u202ea"))]
    source = tmp_path / "e\x1b.csv"
    source.write_text("\n".join(rows) + "\n", encoding="utf-8")
    done = cosma("pack", source, "--minimise", "--figure", tmp_path / "c.svg", "-o", tmp_path / "c.csv")
    assert done.code == 0, done.err
    for name in ("a.svg", "b.svg", "c.svg"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        xml.dom.minidom.parseString(text.encode())
        assert not ACTIVE.search(text.replace("\t", ""))


def test_no_cell_of_a_csv_starts_a_formula() -> None:
    for option in ("--output", "--stays"):
        done = cosma("export", PLAN, option, "-")
        assert done.code == 0, done.err
        cells = [cell for row in csv.reader(io.StringIO(done.out, newline="")) for cell in row]
        assert any(cell.startswith("'=") for cell in cells) or option == "--stays"
        assert not any(cell[:1] in ("=", "+", "@", "-", "\t", "\r") for cell in cells)


@pytest.mark.parametrize(
    "text",
    [
        "=cmd", "@SUM", "-x", "+1x", "\tx", "\r", "'=x", "''-", "'x", "x=1", "", "-1", "+1.5e3", "\x1b[31mred", "=\x07",
        "a\u202eb", "\U000e0001", "\\x1b", "\\\\x1b", "C:\\users\\x", "\\", "\\\\", "\x1b\\x1b\\",
        "two\nlines", "\ud800", "caf\u00e9", "\\U0010ffff", "\\Uffffffff",
    ],
)  # fmt: skip
def test_cells_come_back_as_they_were(text: str) -> None:
    cell = csv_cell(text)
    assert isinstance(cell, str)
    assert csv_text(cell) == text
    number = re.fullmatch(r"[+-]?[0-9.]+(e[0-9]+)?", text)
    assert number or cell[:1] not in ("=", "@", "-", "+", "\t", "\r")
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", cell)


@given(st.text(st.sampled_from("\\x1bu0U'=-\x1b\x9f\u200f\u00e9")))
def test_any_cell_comes_back(text: str) -> None:
    assert csv_text(str(csv_cell(text))) == text


def test_buffers_keep_their_ids() -> None:
    buffers = parse_buffers("id,lower,upper,size\n=1+1,0,1,8\n'=x,1,2,8\n-5,2,3,8\n\\Uffffffff,3,4,8\n")
    assert buffers[-1].id == "\\Uffffffff"  # stands for no character
    again = parse_buffers(format_buffers(buffers, {buffer.id: 0 for buffer in buffers}))
    assert [buffer.id for buffer in again] == [buffer.id for buffer in buffers]


@pytest.mark.parametrize("name", EVIL)
def test_what_is_hidden_is_shown(name: str) -> None:
    assert not ACTIVE.search(plain(name))
    assert "\n" not in plain(name)
    assert plain_lines(f"{name}\nx").endswith("\nx")
    assert plain("Größe → 大きさ") == "Größe → 大きさ"
    assert json.loads(safe_json(json.dumps(name, ensure_ascii=False))) == name
    assert figure_text("$x$") == "\\$x\\$"
