"""Placements of other tools, in and out.

- ExFlow's CSV: header ``Expert,Node``, one row per expert under its global number (``layer * experts + expert``).
- EPLB's physical-to-logical map: ``[layers][places]``, the expert in every place, places numbered device by device.
  SGLang reads it as JSON ``{"physical_to_logical_map": ...}`` (``--init-expert-location``).
- The expert map of vLLM on Ascend: ``{"moe_layer_count", "layer_list": [{"layer_id", "device_count", "device_list":
  [{"device_id", "device_expert": [...]}]}]}``.

A physical map needs every place filled, the same number on every device; a device with room left repeats an expert it
already holds, which changes nothing.
"""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.errors import FormatError, InputError
from cosma.files import read_bytes
from cosma.placement.document import FORMAT, Placement, Replicas, dump_placement

if TYPE_CHECKING:
    from pathlib import Path

    from cosma.placement.topology import Topology

FORMATS = ("cosma", "exflow", "eplb", "sglang", "vllm")


def export(placement: Placement, form: str) -> str:
    """Return a placement as text in one of ``FORMATS``.

    Raises
    ------
    InputError
        If the format is unknown or cannot hold replicas.
    """
    if form == "cosma":
        return dump_placement(placement)
    if form == "exflow":
        return _to_exflow(placement)
    if form == "eplb":
        return json.dumps(physical_to_logical(placement)) + "\n"
    if form == "sglang":
        return json.dumps({"physical_to_logical_map": physical_to_logical(placement)}) + "\n"
    if form == "vllm":
        return json.dumps(_to_vllm(placement), indent=1) + "\n"
    raise InputError(f"--format {form}: expected one of {', '.join(FORMATS)}")


def read_any(path: Path | str, topology: Topology | None, experts: int | None) -> Placement:
    """Read a placement in any of the formats, told apart by content.

    Parameters
    ----------
    path
        The file.
    topology
        Devices, for formats that do not say (all but ours).
    experts
        Experts per layer, which ExFlow's CSV needs and maps can do without.

    Raises
    ------
    FormatError
        If the content is of none of the formats, or incomplete.
    InputError
        If the format needs a topology or a number of experts that was not given.
    """
    data = read_bytes(path, "placement")
    where = f"placement {path}"
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{where}: not text ({error})") from error
    head = text.lstrip()[:1]
    if head not in {"{", "["}:
        return _from_exflow(text, _needed(topology, where), experts, where)
    try:
        record = json.loads(text)
    except ValueError as error:
        raise FormatError(f"{where}: not JSON ({error})") from error
    if isinstance(record, dict) and record.get("format") == FORMAT:
        return Placement.from_json(record, where)
    if isinstance(record, dict) and "layer_list" in record:
        return _from_vllm(record, _needed(topology, where), experts, where)
    if isinstance(record, dict) and "physical_to_logical_map" in record:
        return from_physical(record["physical_to_logical_map"], _needed(topology, where), experts, where)
    if isinstance(record, list):
        return from_physical(record, _needed(topology, where), experts, where)
    raise FormatError(f"{where}: neither a cosma placement, nor an ExFlow, EPLB, SGLang or vLLM map")


def physical_to_logical(placement: Placement) -> list[list[int]]:
    """Return the expert in every place, ``[layers][places]``, devices in order and places alike on each."""
    rows = []
    for row in placement.copies():
        held: list[list[int]] = [[] for _ in range(placement.topology.devices)]
        for expert, copies in enumerate(row):
            for device in copies:
                held[device].append(expert)
        rows.append(held)
    room = max(len(places) for row in rows for places in row)
    for layer, held_row in enumerate(rows):
        for device, own in enumerate(held_row):
            if not own:
                raise InputError(
                    f"export: device {device} holds no expert of layer {layer}; a physical map cannot say that"
                )
            own.extend([own[0]] * (room - len(own)))
    return [[expert for places in row for expert in places] for row in rows]


def from_physical(rows: Any, topology: Topology, experts: int | None, where: str) -> Placement:
    """Build a placement from a physical-to-logical map."""
    try:
        table = np.array(rows)
    except ValueError as error:
        raise FormatError(f"{where}: physical map rows differ in length") from error
    if table.ndim != 2 or not np.issubdtype(table.dtype, np.integer):
        raise FormatError(f"{where}: a physical map is [layers][places] of expert numbers")
    if table.shape[1] % topology.devices:
        raise FormatError(f"{where}: {table.shape[1]} places do not divide among {topology.devices} devices")
    room = table.shape[1] // topology.devices
    lists = [[row[device * room : (device + 1) * room].tolist() for device in range(topology.devices)] for row in table]
    return _from_lists(lists, topology, experts, where)


def _from_lists(layers: list[list[list[int]]], topology: Topology, experts: int | None, where: str) -> Placement:
    """Build a placement from the experts on every device of every layer."""
    largest = max((expert for row in layers for held in row for expert in held), default=-1)
    count = experts if experts is not None else largest + 1
    copies: list[list[list[int]]] = [[[] for _ in range(count)] for _ in layers]
    for layer, row in enumerate(layers):
        for device, held in enumerate(row):
            for expert in held:
                if not 0 <= expert < count:
                    raise FormatError(f"{where}: layer {layer}, device {device} holds expert {expert} of {count}")
                if device not in copies[layer][expert]:
                    copies[layer][expert].append(device)
        missing = [expert for expert in range(count) if not copies[layer][expert]]
        if missing:
            raise FormatError(f"{where}: layer {layer}: expert {missing[0]} is on no device ({len(missing)} missing)")
    replicas: Replicas = tuple(tuple(tuple(held) for held in row) for row in copies)
    homes = np.array([[held[0] for held in row] for row in replicas], dtype=np.int64)
    single = all(len(held) == 1 for row in replicas for held in row)
    return Placement(topology, homes, None if single else replicas)


def _to_exflow(placement: Placement) -> str:
    if placement.replicas is not None:
        raise InputError("export: ExFlow's CSV has one device per expert; use eplb, sglang or vllm for replicas")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["Expert", "Node"])
    for number, device in enumerate(placement.devices.ravel().tolist()):
        writer.writerow([number, device])
    return out.getvalue()


def _from_exflow(text: str, topology: Topology, experts: int | None, where: str) -> Placement:
    rows = list(csv.reader(io.StringIO(text)))
    if not rows or [cell.strip() for cell in rows[0]] != ["Expert", "Node"]:
        raise FormatError(f"{where}: neither JSON nor ExFlow's CSV (header Expert,Node)")
    if experts is None:
        raise InputError(f"{where}: ExFlow's CSV numbers experts globally; give --experts (per layer) or a trace")
    homes: dict[int, int] = {}
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        try:
            expert, device = int(row[0]), int(row[1])
        except (ValueError, IndexError) as error:
            raise FormatError(f"{where}, line {number}: expected two whole numbers, got {row}") from error
        if expert in homes:
            raise FormatError(f"{where}, line {number}: expert {expert} appears twice")
        homes[expert] = device
    if not homes or sorted(homes) != list(range(len(homes))) or len(homes) % experts:
        raise FormatError(f"{where}: {len(homes)} experts are not whole layers of {experts}, numbered from 0")
    devices = np.array([homes[number] for number in range(len(homes))], dtype=np.int64).reshape(-1, experts)
    return Placement(topology, devices)


def _to_vllm(placement: Placement) -> dict[str, Any]:
    layers = []
    for layer, row in enumerate(placement.copies()):
        held: list[list[int]] = [[] for _ in range(placement.topology.devices)]
        for expert, copies in enumerate(row):
            for device in copies:
                held[device].append(expert)
        devices = [{"device_id": device, "device_expert": experts} for device, experts in enumerate(held)]
        layers.append({"layer_id": layer, "device_count": len(devices), "device_list": devices})
    return {"moe_layer_count": placement.layers, "layer_list": layers}


def _from_vllm(record: dict[str, Any], topology: Topology, experts: int | None, where: str) -> Placement:
    try:
        layers = []
        for layer in sorted(record["layer_list"], key=lambda item: int(item["layer_id"])):
            devices = sorted(layer["device_list"], key=lambda item: int(item["device_id"]))
            layers.append([[int(expert) for expert in device["device_expert"]] for device in devices])
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{where}: not a vLLM expert map ({error!r})") from error
    if not layers or any(len(row) != topology.devices for row in layers):
        raise FormatError(
            f"{where}: the map has {[len(row) for row in layers][:1]} devices, the topology {topology.devices}"
        )
    return _from_lists(layers, topology, experts, where)


def _needed(topology: Topology | None, where: str) -> Topology:
    if topology is None:
        raise InputError(
            f"{where}: this format does not say how devices form nodes; give --nodes and --devices-per-node"
        )
    return topology
