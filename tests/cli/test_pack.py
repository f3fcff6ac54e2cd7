"""``cosma pack`` as users run it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cosma.cli.app import app
from cosma.errors import CosmaError, FormatError, InfeasibleError, InputError
from cosma.packing import verify
from cosma.packing.csvfile import read_buffers
from tests.packing.hard import save_hard_buffers

TEXT = "id,lower,upper,size\nb1,0,3,4\nb2,3,9,4\nb3,0,9,4\nb4,9,21,4\nb5,0,21,4\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "buffers.csv"
    path.write_text(TEXT)
    return path


def run(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, ["pack", *map(str, arguments)])
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_addresses_on_stdout_or_in_a_file(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    assert run(path, "--capacity", "12", "-o", out, "--figure", tmp_path / "packing.svg") == ""
    packed = read_buffers(out)
    assert verify(read_buffers(path), {b.id: b.offset or 0 for b in packed}, 12) == []
    assert (tmp_path / "packing.svg").exists()
    assert run(path, "--capacity", "12") == out.read_text()
    assert run(out, "--capacity", "12", "--alignment", "4") == out.read_text()


def test_json(path: Path) -> None:
    report = json.loads(run(path, "--minimise", "--json"))
    assert (report["status"], report["height"], report["optimal"]) == ("packed", 12, True)


def test_what_ended_the_search_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cosma.cli.pack import pack

    monkeypatch.setattr("cosma.packing.smallest.late", lambda task: task.deadline is not None)

    save_hard_buffers(tmp_path / "hard.csv")
    pack(tmp_path / "hard.csv", minimise=True, time_limit=1e-6)
    assert "neither reached nor excluded: the time limit ended the search\n" in capsys.readouterr().err
    pack(tmp_path / "hard.csv", minimise=True, work=1)
    said = capsys.readouterr().err
    assert "neither reached nor excluded\n" in said
    assert "time limit" not in said


def test_failures(path: Path) -> None:
    with pytest.raises(InfeasibleError, match="irreducible set that cannot fit together: b1, b3, b5"):
        run(path, "--capacity", "11")
    with pytest.raises(InfeasibleError, match="smallest capacity is at least 12, not 11"):
        run(path, "--capacity", "11", "--minimise")
    with pytest.raises(InputError, match="give --capacity"):
        run(path)
    with pytest.raises(InputError, match="--engine 'magic'"):
        run(path, "--capacity", "12", "--engine", "magic")
    with pytest.raises(InputError, match="--time-limit"):
        run(path, "--capacity", "12", "--time-limit", "0")
    with pytest.raises(InputError, match="--work"):
        run(path, "--capacity", "12", "--work", "-1")
    with pytest.raises(FormatError, match="line 2: buffer 'b1' needs 4 bytes, the capacity is 3"):
        run(path, "--capacity", "3")
    path.write_text("id,lower,upper,size,offset\na,0,4,3,2\nb,0,4,4,\n")
    with pytest.raises(CosmaError, match="undecided in 8 bytes"):
        run(path, "--capacity", "8", "--engine", "heuristics")


def test_reading_and_writing_are_part_of_the_time_limit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cosma.packing
    from cosma.packing import csvfile

    given: list[float | None] = []
    read, minimise = csvfile.read_buffers, cosma.packing.minimise

    def slowly(*args: Any, **options: Any) -> Any:
        time.sleep(0.4)
        return read(*args, **options)

    def limited(*args: Any, time_limit: float | None, **options: Any) -> Any:
        given.append(time_limit)
        return minimise(*args, time_limit=time_limit, **options)

    monkeypatch.setattr(csvfile, "read_buffers", slowly)
    monkeypatch.setattr(cosma.packing, "minimise", limited)
    for limit in ("10", "0.1"):
        run(path, "--minimise", "--time-limit", limit)
    assert given[0] is not None
    assert 0 < given[0] <= 10 - 0.8
    assert given[1] == 0.05
