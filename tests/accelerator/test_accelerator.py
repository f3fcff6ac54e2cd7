from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cosma.accelerator import Accelerator
from cosma.accelerator.files import CONFIDENCES, find_accelerator, load_preset, preset, preset_names
from cosma.errors import AcceleratorError, InputError

if TYPE_CHECKING:
    from pathlib import Path


def test_sizes_and_modes_may_be_text() -> None:
    accelerator = Accelerator(scratchpad="512KiB", reserved="1KiB", operands="resident")  # type: ignore[arg-type]
    assert (accelerator.scratchpad, accelerator.capacity_bytes) == (524288, 523264)
    assert accelerator.operands == "resident"
    assert "reserved 1024 B" in accelerator.describe()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scratchpad": 0}, "no bytes"),
        ({"scratchpad": "lots"}, "scratchpad: cannot read 'lots'"),
        ({"scratchpad": 64, "alignment": 0}, "alignment"),
        ({"scratchpad": 64, "reserved": 64}, "leave nothing"),
        ({"scratchpad": 64, "operands": "floating"}, "one of resident, streamable"),
        ({"scratchpad": 64, "in_place": 1}, "true or false"),
        ({"scratchpad": 64, "bandwidth_bytes_per_s": -1.0}, "bandwidth"),
        ({"scratchpad": 64, "clock_hz": float("nan")}, "clock_hz"),
    ],
)
def test_refuses_contradictions(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(AcceleratorError, match=message):
        Accelerator(**fields)


def test_every_preset_says_where_its_numbers_come_from() -> None:
    assert len(preset_names()) >= 10
    for name in preset_names():
        found = preset(name)
        assert found.accelerator.name == name
        assert found.description.endswith(".")
        assert "scratchpad" in found.origins
        assert all(o.source and o.confidence in CONFIDENCES for o in found.origins.values())


def test_presets_state_what_estimates_need_or_say_that_nobody_publishes_it() -> None:
    complete = 0
    for name in preset_names():
        found = preset(name)
        for needed in ("bandwidth_bytes_per_s", "clock_hz", "macs_per_cycle"):
            stated = getattr(found.accelerator, needed) is not None
            assert stated == (needed in found.origins), (name, needed)
            assert stated != bool(found.unpublished.get(needed)), (name, needed)
        assert found.accelerator.macs_per_cycle
        complete += not found.unpublished
    assert complete >= 6


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('description = "Mine."\nscratchpad = "1MiB"\nfusion = "epilogue"\n')
    found = find_accelerator(str(path))
    accelerator = found.accelerator
    assert (accelerator.name, accelerator.scratchpad, accelerator.fusion) == ("mine", 2**20, "epilogue")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scratchpad = ", "not a TOML file"),
        ("alignment = 4", "'scratchpad' is missing"),
        ("scratchpad = 64\nbanks = 4", "unknown field 'banks'"),
        ("scratchpad = { value = 64 }", "needs exactly value, source and confidence"),
        ('scratchpad = { value = 64, source = "x", confidence = "sure" }', "confidence must be"),
        ("scratchpad = 64\nreserved = 100", "leave nothing"),
        ("scratchpad = 64\n[unpublished]\nclock = 'secret'", "unpublished: unknown field 'clock'"),
        ("scratchpad = 64\nclock_hz = 1e9\n[unpublished]\nclock_hz = 'secret'", "has a value and is unpublished"),
        ("scratchpad = 64\nunpublished = 3", "table of fields and reasons"),
    ],
)
def test_a_broken_file_is_refused_with_its_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(AcceleratorError, match=message) as caught:
        load_preset(path)
    assert "mine.toml" in str(caught.value)


def test_unknown_names_list_what_there_is() -> None:
    with pytest.raises(AcceleratorError, match="gemmini-256k"):
        find_accelerator("warp-core")
    with pytest.raises(InputError, match="no such file"):
        find_accelerator("nowhere/mine.toml")
