"""Maps of serving systems: free places, rows of dense layers, wasted copies, damaged files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cosma.errors import CosmaError, FormatError, InputError
from cosma.placement.check import violations
from cosma.placement.document import Placement
from cosma.placement.exchange import export, layer_numbers, read_any
from cosma.placement.filling import filled
from cosma.placement.topology import Topology

TOPOLOGY = Topology.grid(1, 8)


def uneven(experts: int = 60, layers: int = 3) -> Placement:
    """Return a placement in which devices hold seven or eight of 60 experts."""
    random = np.random.default_rng(experts)
    slots = np.repeat(np.arange(8), -(-experts // 8))
    return Placement(TOPOLOGY, np.stack([random.permutation(slots)[:experts] for _ in range(layers)]))


def sets(placement: Placement) -> list[list[set[int]]]:
    return [[set(copies) for copies in row] for row in placement.copies()]


def per_device(row: list[int]) -> list[list[int]]:
    room = len(row) // 8
    return [row[device * room : (device + 1) * room] for device in range(8)]


@pytest.mark.parametrize("experts", [57, 60, 61, 64])
def test_free_places_hold_copies_of_other_devices_experts(experts: int) -> None:
    placement = uneven(experts)
    load = np.random.default_rng(1).integers(1, 1000, (3, experts))
    for form in ("eplb", "sglang", "vllm"):
        record = json.loads(export(placement, form, load=load))
        if form == "vllm":
            rows = [[d["device_expert"] for d in layer["device_list"]] for layer in record["layer_list"]]
        else:
            rows = [per_device(row) for row in (record if form == "eplb" else record["physical_to_logical_map"])]
        for layer, held in enumerate(rows):
            assert all(len(set(places)) == len(places) == 8 for places in held)
            assert {expert for places in held for expert in places} == set(range(experts))
            for expert, home in enumerate(placement.devices[layer]):
                assert expert in held[home]


def test_the_busiest_are_copied(tmp_path: Path) -> None:
    placement = uneven()
    load = np.ones((3, 60), dtype=int)
    load[:, 17] = 1000
    whole = filled(placement, load)
    assert not violations(whole, 0)
    # Four free places: as many copies of expert 17 as there are other devices with a free place, three each at least.
    for layer in range(3):
        free = [8 - int((placement.devices[layer] == device).sum()) for device in range(8)]
        others = [device for device in range(8) if free[device] and device != placement.devices[layer, 17]]
        assert len(whole.copies()[layer][17]) == 1 + len(others)
    path = tmp_path / "m.json"
    path.write_text(export(placement, "sglang", load=load))
    again = read_any(path, TOPOLOGY, 60)
    assert sets(again) == sets(whole)


def test_a_device_with_everything_repeats_without_harm() -> None:
    topology = Topology.grid(1, 2, capacities=(2, 2))
    placement = Placement(topology, np.array([[0, 0], [0, 1]]), (((0, 1), (0, 1)), ((0,), (1,))))
    assert json.loads(export(placement, "eplb")) == [[0, 1, 0, 1], [0, 1, 0, 1]]


@pytest.mark.parametrize("form", ["eplb", "sglang", "vllm"])
@pytest.mark.parametrize("dense", [(), (0,), (0, 1, 2), (0, 4)])
def test_rows_of_dense_layers(tmp_path: Path, form: str, dense: tuple[int, ...]) -> None:
    placement = uneven()
    path = tmp_path / "m.json"
    path.write_text(export(placement, form, dense=dense))
    record = json.loads(path.read_text())
    if form == "vllm":
        assert [layer["layer_id"] for layer in record["layer_list"]] == layer_numbers(3, dense)
        assert record["moe_layer_count"] == 3
    else:
        assert len(record if form == "eplb" else record["physical_to_logical_map"]) == 3 + len(dense)
    notes: list[str] = []
    again = read_any(path, TOPOLOGY, 60, layers=3, dense=dense, notes=notes)
    assert sets(again) == sets(filled(placement))
    assert len(notes) == (1 if dense and form != "vllm" else 0)


def test_leading_rows_in_order_are_dense_layers(tmp_path: Path) -> None:
    placement = uneven()
    path = tmp_path / "m.json"
    path.write_text(export(placement, "sglang", dense=(0, 1)))
    notes: list[str] = []
    again = read_any(path, TOPOLOGY, 60, layers=3, notes=notes)
    assert sets(again) == sets(filled(placement))
    assert "rows 0 to 1" in notes[0]
    # Rows that are not in order are somebody's placement: which to leave out is asked.
    path.write_text(export(uneven(layers=4), "sglang"))
    with pytest.raises(InputError, match="declare which 1 layers are dense"):
        read_any(path, TOPOLOGY, 60, layers=3)
    with pytest.raises(InputError, match="a map of 4 layers for a trace of 5"):
        read_any(path, TOPOLOGY, 60, layers=5)


def test_dense_layers_have_no_place_in_other_formats() -> None:
    for form in ("cosma", "exflow"):
        with pytest.raises(InputError, match="no rows for layers without experts"):
            export(uneven(), form, dense=(0,))
    with pytest.raises(InputError, match="the model has layers 0 to 3"):
        export(uneven(), "eplb", dense=(9,))
    with pytest.raises(InputError, match="expected one of"):
        export(uneven(), "nonsense")


def test_wasted_copies_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text(json.dumps([[0, 1, 0, 2, 3, 2]] * 2))
    notes: list[str] = []
    again = read_any(path, Topology.grid(1, 2), 4, notes=notes)
    assert again.replicas is None
    assert notes[0].startswith("4 places repeat an expert that their device already holds")


def test_layers_may_start_anywhere(tmp_path: Path) -> None:
    record = json.loads(export(uneven(), "vllm"))
    for layer in record["layer_list"]:
        layer["layer_id"] += 3
    record["layer_list"].reverse()
    path = tmp_path / "m.json"
    path.write_text(json.dumps(record))
    assert sets(read_any(path, TOPOLOGY, 60, layers=3)) == sets(filled(uneven()))
    for layer in record["layer_list"]:
        del layer["layer_id"]
    record["layer_list"].reverse()
    path.write_text(json.dumps(record))
    assert sets(read_any(path, TOPOLOGY, 60)) == sets(filled(uneven()))


def test_empty_places_are_empty(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text(json.dumps([[0, -1, 1, 2]]))
    assert read_any(path, Topology.grid(1, 2), 3).devices.tolist() == [[0, 1, 1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[0, 1, 2, 1099511627776]]", "an expert 1099511627776 of 4"),
        ("[[0, 1, 2, -2]]", "expert -2"),
        ("[[0.5, 1, 2, 3]]", r"\[layers\]\[places\]"),
        ("[[]]", r"\[layers\]\[places\]"),
        ("[]", r"\[layers\]\[places\]"),
        (f"[[0, 1, 2, {10**30}]]", r"\[layers\]\[places\]"),
        ('{"layer_list": 3}', "not a vLLM expert map"),
        ('{"layer_list": [{"layer_id": 0, "device_list": [{"device_id": 1, "device_expert": [0]}]}]}', "numbered"),
        ('{"layer_list": [{"layer_id": 0, "device_list": [{"device_id": 0, "device_expert": [1.5]}]}]}', "not a vLLM"),
        ("[" * 5000, "not JSON"),
    ],
)
def test_damaged_maps_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "m.json"
    path.write_text(text)
    for experts in (4, None) if "1099" not in text else (4,):
        with pytest.raises(FormatError, match=message):
            read_any(path, Topology.grid(1, 2), experts)


def test_a_huge_expert_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text("[[0, 1, 2, 1099511627776]]")
    with pytest.raises(FormatError, match="4 places for 1099511627777 experts"):
        read_any(path, Topology.grid(1, 2), None)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("topology", {"nodes": 10**6, "devices_per_node": 10**6}, "at most 4096"),
        ("topology", [], "expected nodes"),
        ("placement", [[0, 10**30]] * 2, "device numbers"),
        ("placement", [], "device numbers"),
        ("replicas", [[[0.5], [1]], [[0], [1]]], "device numbers"),
        ("replicas", 3, "replicas must be"),
        ("metrics", [1], "expected an object"),
        ("certificate", "proven", "expected an object"),
    ],
)
def test_damaged_placements_are_refused(key: str, value: object, message: str) -> None:
    record = Placement(Topology.grid(1, 2), np.array([[0, 1], [1, 0]])).to_json()
    record[key] = value
    with pytest.raises(CosmaError, match=message):
        Placement.from_json(record)


def test_a_map_for_vllm_is_written_byte_for_byte_as_its_page_says() -> None:
    placement = Placement(Topology.grid(1, 2), np.array([[1, 0], [0, 1]]), (((1, 0), (0,)), ((0,), (1, 0))))
    assert export(Placement(Topology.grid(1, 2), np.array([[1, 0]])), "vllm", dense=(0,)) == (
        '{\n "moe_layer_count": 1,\n "layer_list": [\n  {\n   "layer_id": 1,\n   "device_count": 2,\n'
        '   "device_list": [\n    {\n     "device_id": 0,\n     "device_expert": [\n      1\n     ]\n    },\n'
        '    {\n     "device_id": 1,\n     "device_expert": [\n      0\n     ]\n    }\n   ]\n  }\n ]\n}\n'
    )
    layers = json.loads(export(placement, "vllm"))["layer_list"]
    assert [[device["device_expert"] for device in layer["device_list"]] for layer in layers] == [
        [[0, 1], [0, 1]], [[0, 1], [0, 1]]
    ]  # fmt: skip
