"""Buffer files from the field: what is packed, in how many bytes, and what is refused with its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import cosma
from cosma.cli.app import app
from cosma.packing import Buffer, Forbidden, minimise, pack, verify
from cosma.packing.csvfile import parse_buffers, read_buffers

LEADING_GAP = "id,begin,end,size\nA,0,1,100\nB,1,2,80\nC,2,3,60\n"
TOUCHING = "id,begin,end,size\na,6,7,4096\nb,7,10,4096\nk,7,9,1024\n"
ALIGNED_48 = "id,lower,upper,size,alignment\na,0,2,50,48\nb,0,2,1,48\nc,0,2,10,32\nd,1,3,7,7\n"
PADDED = "id,lower,upper,size\na,0,2,33\nb,0,2,33\nc,0,2,33\n"
OFF_ALIGNMENT = "id,lower,upper,size,offset\na,0,2,64,40\nc,0,3,100,\n"
HEAD = "id,lower,upper,size,alignment,offset\n"


@pytest.mark.parametrize(
    ("text", "alignment", "height"),
    [(LEADING_GAP, 1, 180), (TOUCHING, 1, 9216), (ALIGNED_48, 1, 97), (PADDED, 32, 161)],
    ids=["leading gap", "touching lifetimes", "alignments 48, 32 and 7", "padding between buffers only"],
)
def test_the_smallest_capacity(text: str, alignment: int, height: int) -> None:
    buffers = parse_buffers(text)
    found = minimise(buffers, alignment=alignment)
    assert (found.height, found.optimal) == (height, True)
    assert verify(buffers, found.offsets, height, alignment=alignment) == []
    assert str(pack(buffers, height - 1, alignment=alignment).status) == "infeasible"
    assert pack(buffers, height, alignment=alignment).packed


def run(path: Path, *options: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["pack", str(path), *options])
    error = done.exception
    return (error.exit_code if isinstance(error, cosma.CosmaError) else done.exit_code), str(error or "")


@pytest.mark.parametrize(
    ("text", "options", "code", "message"),
    [
        (OFF_ALIGNMENT, ["--alignment", "64"], 2, "buffer 'a': fixed offset 40 is no multiple of the alignment 64"),
        (HEAD + "a,0,2,64,64,40\n", [], 2, "line 2: buffer 'a': fixed offset 40 is negative or no multiple"),
        (HEAD + "a,0,2,64,,-8\n", [], 2, "line 2: buffer 'a': fixed offset -8 is negative"),
        (HEAD + "a,0,2,64,,1000\n", [], 3, "buffer 'a'"),
        (HEAD + "a,0,2,64,,0\nb,1,3,64,,32\n", [], 3, "fixed addresses clash.*'a'.*'b'"),
        (HEAD + "a,2,2,64,,\n", [], 2, "line 2: buffer 'a': lifetime"),
        (HEAD + "a,0,2,64,0,\n", [], 2, "line 2: buffer 'a': alignment 0"),
        (HEAD + "a,0,2,64,,\na,0,2,64,,\n", [], 2, "line 3: id 'a' is already on line 2"),
        (HEAD + "a,0,2,64,,\n", ["--alignment", "0"], 2, "alignment 0"),
        (HEAD + "a,0,2,64,,\n", ["--alignment", "-4"], 2, "alignment"),
        (HEAD.replace(",", ";") + "a;0;2;64;;\n", [], 2, "line 1: columns are separated by ';'"),
        (HEAD.replace(",", "\t"), [], 2, r"line 1: columns are separated by '\\t'"),
        (HEAD + "a\0b,0,2,64,,\n", [], 2, r"line 2: the id 'a\\x00b' holds a NUL"),
        (HEAD + "a,0,2,6\0,,\n", [], 2, "line 2: size"),
        (HEAD + f"{'a' * 200_000},0,2,64,,\n", [], 2, "line 2: field larger than field limit"),
        (HEAD + "a,0,2,99999999999999999,,\n", [], 2, "line 2: buffer 'a': size is 99999999999999999, larger"),
        (HEAD + "a,0,2,9999999999999999999999,,\n", [], 2, "line 2: size"),
        (HEAD + "a,0,1e3,64,,\n", [], 2, "line 2: upper '1e3'"),
        (HEAD + 'a,0,2,64,,\n"b,0,2', [], 2, "line 3: unexpected end of data"),
        ("", [], 2, "empty"),
        ("\n\n", [], 2, "empty"),
        (HEAD + "a,0,2,4096,,\n", [], 2, "line 2: buffer 'a' needs 4096 bytes, the capacity is 1024"),
    ],
)
def test_what_is_refused_and_where(text: str, options: list[str], code: int, message: str, tmp_path: Path) -> None:
    path = tmp_path / "buffers.csv"
    path.write_text(text)
    given, said = run(path, "--capacity", "1KiB", *options)
    assert given == code, said
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(said)


def test_other_encodings_and_line_ends(tmp_path: Path) -> None:
    expected = parse_buffers(HEAD + 'a b,0,2,64,,\n"c, ""d""",1,3,0,16,\n')
    assert [b.id for b in expected] == ["a b", 'c, "d"']
    path = tmp_path / "buffers.csv"
    path.write_bytes(b"\xef\xbb\xbf" + (HEAD + 'a b,0,2,64,,\n"c, ""d""",1,3,0,16,\n').replace("\n", "\r\n").encode())
    assert read_buffers(path) == expected
    path.write_bytes((HEAD + "a,0,2,64,,\n").encode("utf-16"))
    with pytest.raises(cosma.FormatError, match="line 1: not UTF-8"):
        read_buffers(path)


def test_large_numbers_neither_wrap_nor_hang() -> None:
    billion = 10**9
    far = [Buffer("a", 0, billion, billion), Buffer("b", -billion, 1, billion), Buffer("c", billion, 2 * billion, 7)]
    found = minimise(far)
    assert (found.height, found.optimal) == (2 * billion, True)
    aligned = [Buffer("a", 0, 2, 1, alignment=billion), Buffer("b", 0, 2, 1, alignment=billion - 1)]
    assert minimise(aligned).height == billion
    most = [Buffer(f"b{i}", 0, 2**52, 2**50) for i in range(8)]
    assert minimise(most).height == 2**53
    with pytest.raises(cosma.InputError, match="'b8': the buffers up to this one take"):
        minimise([*most, Buffer("b8", 0, 1, 1)])
    with pytest.raises(cosma.InputError, match="more than cosma counts"):
        minimise([Buffer("a", 0, 1, 1, 2**50), Buffer("b", 0, 1, 1, 2**50 - 1)], alignment=3**20)
    crowd = [Buffer(f"b{i}", 0, 2, 8) for i in range(20_000)]
    assert pack(crowd, 1000).reason == "at step 0 the buffers alive need 160000 bytes of 1000"


def test_buffers_of_no_bytes_take_no_part() -> None:
    found = minimise([Buffer("a", 0, 2, 0, offset=64), Buffer("b", 0, 2, 64)], alignment=64)
    assert (found.height, found.optimal) == (64, True)
    assert pack([Buffer("a", 0, 2, 0)], 0).packed
    assert pack([], 0).packed


def test_fixed_offsets_and_forbidden_ranges() -> None:
    fixed = [Buffer("a", 0, 2, 64, offset=64), Buffer("b", 0, 2, 64)]
    assert pack(fixed, 128, alignment=64).offsets == {"a": 64, "b": 0}
    assert str(pack(fixed, 128, alignment=64, forbidden=[Forbidden(0, 1)]).status) == "infeasible"
    assert pack(fixed, 192, alignment=64, forbidden=[Forbidden(0, 1)]).offsets["b"] == 128
    clash = pack([Buffer("a", 0, 2, 64, offset=64)], 128, forbidden=[Forbidden(127, 200)])
    assert str(clash.status) == "infeasible"
    assert clash.conflict == ("a",)
