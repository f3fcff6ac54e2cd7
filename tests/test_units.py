from __future__ import annotations

import pytest

from cosma.errors import InputError
from cosma.units import align_up, format_exact, format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("512KiB", 512 * 1024),
        ("2MiB", 2 * 1024**2),
        ("1.5MB", 1_500_000),
        ("1.5 KiB", 1536),
        ("1e6", 1_000_000),
        (" 64 ", 64),
        ("0", 0),
        (123, 123),
        ("3gib", 3 * 1024**3),
    ],
)
def test_reads_sizes(text: str | int, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "KiB", "12 parsecs", "-4", -4, "1.0001", "0x10", "1,5MB", True, "nan", "١٢"])
def test_refuses_what_is_no_size(text: str | int) -> None:
    with pytest.raises(InputError, match="--scratchpad"):
        parse_size(text, "--scratchpad")


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (10239, "10239 B"), (10240, "10 KiB"), (1572864, "1.50 MiB"), (2**30, "1 GiB"), (-20480, "-20 KiB")],
)
def test_writes_sizes(size_bytes: int, text: str) -> None:
    assert format_size(size_bytes) == text


def test_aligns_up() -> None:
    assert [align_up(n, 64) for n in (0, 1, 64, 65)] == [0, 64, 64, 128]


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(1024, "1024 B"), (24576, "24 KiB (24576 B)"), (451590, "441.01 KiB (451590 B)")]
)
def test_exact_sizes_are_said_once(size_bytes: int, text: str) -> None:
    assert format_exact(size_bytes) == text
