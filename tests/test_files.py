from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cosma.errors import InputError
from cosma.files import read_bytes, write_atomic

if TYPE_CHECKING:
    from pathlib import Path


def test_writes_whole_files_and_leaves_nothing_beside(tmp_path: Path) -> None:
    target = tmp_path / "plan.json"
    write_atomic(target, "first")
    write_atomic(target, b"second")
    assert target.read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["plan.json"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "plan.json"
    write_atomic(target, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        write_atomic(target, "new")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["plan.json"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        write_atomic(tmp_path / "nowhere" / "plan.json", "x")


def test_reading_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_bytes(tmp_path / "none", "plan")
    with pytest.raises(InputError, match="is a folder"):
        read_bytes(tmp_path, "plan")
