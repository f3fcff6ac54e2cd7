from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosma.errors import FormatError, InputError
from cosma.packing import Buffer, Gap
from cosma.packing.csvfile import format_buffers, parse_buffers, read_buffers
from tests.packing.reference import buffer_sets


def test_the_format_of_minimalloc() -> None:
    text = "id,lower,upper,size,alignment,gaps,offset,hint\n0,5,10,15,,,,\nBig,6,12,18,2,7-8 9-10@1:17,22,4\n"
    assert parse_buffers(text) == [
        Buffer("0", 5, 10, 15),
        Buffer("Big", 6, 12, 18, 2, 22, 4, (Gap(7, 8), Gap(9, 10, (1, 17)))),
    ]


def test_columns_in_any_order_under_other_names() -> None:
    assert parse_buffers("start,size,buffer_id,upper\r\n6,18,x,12\r\n\r\n") == [Buffer("x", 6, 12, 18)]
    inclusive = parse_buffers("begin,size,buffer,end,gaps\n6,18,x,11,7-8\n")
    assert inclusive == [Buffer("x", 6, 12, 18, gaps=(Gap(7, 9),))]
    assert parse_buffers("id,lower,upper,size\n") == []


NAME = st.text('ab ,"\n;é', min_size=1).map(lambda name: name.strip() or "blank")
NAMES = st.lists(NAME, min_size=6, max_size=6, unique=True)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(buffers=buffer_sets(aligned=True, windows=True, fixed=True), names=NAMES)
def test_what_is_written_is_read_again(buffers: list[Buffer], names: list[str]) -> None:
    named = [replace(b, id=name) for b, name in zip(buffers, names, strict=False)]
    assert parse_buffers(format_buffers(named)) == named
    offsets = {b.id: 12 if b.offset is None else b.offset for b in named}
    assert [b.offset for b in parse_buffers(format_buffers(named, offsets))] == list(offsets.values())


HEAD = "id,lower,upper,size,alignment,gaps,offset\n"
LINE = "a,0,4,8,2,1-2,0\n"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", None, "empty; the first line names the columns"),
        ("id,lower,size\n", 1, "no column upper"),
        ("id,lower,upper,size,size\n", 1, "'size' is named twice"),
        ("id,lower,upper,end,size\n", 1, "'upper' is named twice"),
        ("id,lower,upper,size,colour\n", 1, "unknown column 'colour'"),
        (HEAD + LINE + "b,0,4,8,2,1-2\n", 3, "6 fields where the header names 7"),
        (HEAD + LINE + "b,0,4,8,2,,0,9\n", 3, "8 fields"),
        (HEAD + LINE + ",0,4,8,2,,0\n", 3, "the id is empty"),
        (HEAD + LINE + "\n" + LINE, 4, "id 'a' is already on line 2"),
        (HEAD + "b,x,4,8,2,,0\n", 2, "lower 'x' is not a whole number"),
        (HEAD + "b,0,4.5,8,2,,0\n", 2, "upper '4.5'"),
        (HEAD + "b,0,4,,2,,0\n", 2, "size ''"),
        (HEAD + "b,0,4,1e3,2,,0\n", 2, "size '1e3'"),
        (HEAD + "b,0,4,99999999999999999999,2,,0\n", 2, "at most 18 digits"),
        (HEAD + "b,0,4,-8,2,,0\n", 2, "size -8 is negative"),
        (HEAD + "b,4,4,8,2,,0\n", 2, r"lifetime \[4, 4\) ends before it starts"),
        (HEAD + "b,5,4,8,2,,0\n", 2, r"lifetime \[5, 4\) ends before it starts"),
        (HEAD + "b,0,4,8,0,,0\n", 2, "alignment 0 is not a positive"),
        (HEAD + "b,0,4,8,2,,3\n", 2, "fixed offset 3"),
        (HEAD + "b,0,4,8,2,,x\n", 2, "offset 'x'"),
        (HEAD + "b,0,4,8,2,1-2-3,0\n", 2, "gap '1-2-3' is not of the form"),
        (HEAD + "b,0,4,8,2,A-B,0\n", 2, "gap 'A-B'"),
        (HEAD + "b,0,4,8,2,1-2@3,0\n", 2, "gap '1-2@3'"),
        (HEAD + "b,0,4,8,2,1-9,0\n", 2, "lies outside the lifetime"),
        (HEAD + "b,0,4,8,2,1-2@0:9,0\n", 2, "window 0:9"),
        (HEAD + LINE + '"b,0,4,8,2,,0\n', 3, "unexpected end of data"),
        (HEAD + "big,0,4,101,2,,0\n", 2, "buffer 'big' needs 101 bytes, the capacity is 100"),
    ],
)
def test_every_bad_line_is_named(text: str, line: int | None, message: str) -> None:
    where = "file.csv: " if line is None else f"file.csv, line {line}: "
    with pytest.raises(FormatError, match=f"^{where}.*{message}"):
        parse_buffers(text, name="file.csv", capacity=100)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "buffers.csv"
    buffers = [Buffer("a", 0, 2, 4), Buffer("b", 1, 3, 4)]
    assert format_buffers(buffers, {"a": 0, "b": 4}) == "id,lower,upper,size,offset\na,0,2,4,0\nb,1,3,4,4\n"
    path.write_bytes(b"\xef\xbb\xbfid,lower,upper,size\na,0,2,4\n")
    assert read_buffers(path) == buffers[:1]
    path.write_bytes(b"id,lower,upper,size\n\xff,0,2,4\n")
    with pytest.raises(FormatError, match="line 2: not UTF-8"):
        read_buffers(path)
    with pytest.raises(InputError, match="no such file"):
        read_buffers(tmp_path / "missing.csv")
    with pytest.raises(FormatError, match="'b' has no address"):
        format_buffers(buffers, {"a": 0})
