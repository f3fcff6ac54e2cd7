from __future__ import annotations

from pathlib import Path

import pytest

from cosma.errors import FormatError, InputError
from cosma.experiments import Row, load_rows
from cosma.experiments.row import COLUMNS, rows_from_csv, rows_to_csv, write_parquet
from cosma.experiments.store import Store
from tests.experiments.rows import row

ROWS = [
    row("a", "e1", 7, 3, dtype="int8", time_limit_s=0.1, dims="n=1", reproducible=True, gap=1 / 3),
    row("b", 'odd, "label"\nof two lines', None),
    row("c", "e1", 0, seconds=None, solver="highs", in_place=True, code="abc"),
]


def filled(folder: Path) -> Path:
    with Store(folder) as store:
        for made in ROWS:
            store.add(made)
        store.list_cells([made.key for made in ROWS], "")
        store.export([made.key for made in ROWS])
    return folder


@pytest.mark.parametrize("name", ["", "cells.jsonl", "rows.csv", "rows.parquet"])
def test_rows_come_back_as_they_were(tmp_path: Path, name: str) -> None:
    if name == "rows.parquet":
        pytest.importorskip("pyarrow")
    assert load_rows(filled(tmp_path / "out") / name) == ROWS


def test_a_folder_kept_for_its_table_alone_is_read_from_it(tmp_path: Path) -> None:
    folder = filled(tmp_path / "out")
    (folder / "cells.jsonl").unlink()
    assert load_rows(folder) == ROWS


def test_only_listed_cells_are_read_and_a_later_row_replaces_an_earlier(tmp_path: Path) -> None:
    folder = filled(tmp_path / "out")
    better = row("a", "e1", 5, 5)
    with Store(folder) as store:
        store.add(better)
        store.list_cells([ROWS[2].key, better.key], "")
    assert load_rows(folder) == [ROWS[2], better]


def test_every_torn_log_is_recovered_to_its_whole_lines(tmp_path: Path) -> None:
    whole = (filled(tmp_path / "out") / "cells.jsonl").read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == 0x0A]
    for cut in range(0, len(whole), 37):
        folder = tmp_path / f"cut{cut}"
        folder.mkdir()
        (folder / "cells.jsonl").write_bytes(whole[:cut])
        complete = sum(end <= cut for end in ends)
        assert load_rows(folder / "cells.jsonl") == ROWS[:complete]
        with Store(folder) as store:
            assert list(store.rows.values()) == ROWS[:complete]
            assert bool(store.notes) == (cut not in (0, *ends))
            store.add(ROWS[2])
        kept = list({made.key: made for made in [*ROWS[:complete], ROWS[2]]}.values())
        assert load_rows(folder / "cells.jsonl") == kept


def test_a_damaged_line_is_left_out_and_said(tmp_path: Path) -> None:
    folder = filled(tmp_path / "out")
    lines = (folder / "cells.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "cells.jsonl").write_bytes(lines[0] + b"\0\0\0garbage\n" + lines[2])
    with Store(folder) as store:
        assert list(store.rows.values()) == [ROWS[0], ROWS[2]]
        assert any("line 2" in text for text in store.notes)


def test_csv_has_every_column_and_refuses_what_is_no_row() -> None:
    text = rows_to_csv(ROWS)
    assert text.split("\n", 1)[0].split(",") == list(COLUMNS) == list(Row.__struct_fields__)
    assert rows_from_csv(text, "x") == ROWS
    with pytest.raises(FormatError, match="x: line 2"):
        rows_from_csv("key,point\n1,2\n", "x")
    with pytest.raises(FormatError, match="line 2"):
        rows_from_csv(text.replace(",7,", ",seven,", 1), "x")


def test_parquet_keeps_types(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    write_parquet(ROWS, tmp_path / "r.parquet")
    schema = parquet.read_schema(tmp_path / "r.parquet")
    assert str(schema.field("noncompulsory").type) == "int64"
    assert str(schema.field("gap").type) == "double"
    assert str(schema.field("in_place").type) == "bool"


@pytest.mark.parametrize(("name", "content"), [("x.parquet", "no"), ("x.csv", "key\n1\n"), ("x.xls", ""), ("none", "")])
def test_what_holds_no_rows_is_refused(tmp_path: Path, name: str, content: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    if content or name == "x.xls":
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=name):
        load_rows(tmp_path / name)


def test_an_empty_folder_is_no_results(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no results"):
        load_rows(tmp_path)
