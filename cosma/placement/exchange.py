"""Placements of other tools, in and out; ``docs/placement_formats.md`` says exactly what each format is.

- ExFlow's CSV: header ``Expert,Node``, one row per expert under its global number (``layer * experts + expert``).
- EPLB's physical-to-logical map: ``[layers][places]``, the expert in every place, places numbered device by device.
  SGLang reads it as JSON ``{"physical_to_logical_map": ...}`` (``--init-expert-location``).
- The expert map of vLLM on Ascend: ``{"moe_layer_count", "layer_list": [{"layer_id", "device_count", "device_list":
  [{"device_id", "device_expert": [...]}]}]}``.

These maps need every place filled, and as many places on every device; see :mod:`cosma.placement.filling`.
"""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.errors import FormatError, InputError
from cosma.files import read_bytes
from cosma.placement.document import FORMAT, Placement, dump_placement
from cosma.placement.filling import filled
from cosma.text import csv_lines

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cosma.placement.topology import Topology

FORMATS = ("cosma", "exflow", "eplb", "sglang", "vllm")


def export(placement: Placement, form: str, *, load: NDArray[Any] | None = None, dense: Sequence[int] = ()) -> str:
    """Return a placement as text in one of ``FORMATS``.

    Raises InputError if the format is unknown, cannot hold replicas, or has no rows for dense layers.

    Parameters
    ----------
    placement
        What to write; formats that need every place filled get ``filled(placement, load)``.
    load
        ``[layers, experts]`` visits, which say whose copies fill free places; without it the experts with fewest
        copies do.
    dense
        Layers of the model without experts that shall have a row of their own: the rows of ``eplb`` and ``sglang``
        maps then are the model's layers (a dense layer's row repeats the experts in order, as SGLang writes it), and
        ``layer_id`` of ``vllm`` skips them.
    """
    if form not in FORMATS:
        raise InputError(f"format {form!r}: expected one of {', '.join(FORMATS)}")
    numbers = layer_numbers(placement.layers, dense)
    if form in {"cosma", "exflow"} and dense:
        raise InputError(f"format {form} has no rows for layers without experts; eplb, sglang and vllm do")
    if form == "cosma":
        return dump_placement(placement)
    if form == "exflow":
        return _to_exflow(placement)
    whole = filled(placement, load)
    if form == "vllm":
        return json.dumps(_to_vllm(whole, numbers), indent=1) + "\n"
    rows = physical_to_logical(whole)
    if dense:
        plain = [place % placement.experts for place in range(len(rows[0]))]
        by_number = dict(zip(numbers, rows, strict=True))
        rows = [by_number.get(layer, plain) for layer in range(placement.layers + len(set(dense)))]
    return json.dumps(rows if form == "eplb" else {"physical_to_logical_map": rows}) + "\n"


def layer_numbers(layers: int, dense: Sequence[int]) -> list[int]:
    """Return the model's number of every layer with experts, given those of the layers without.

    Raises InputError if a dense layer is numbered outside the model.
    """
    total = layers + len(set(dense))
    outside = [layer for layer in dense if not 0 <= layer < total]
    if outside:
        raise InputError(f"dense layer {outside[0]}: the model has layers 0 to {total - 1}")
    return [layer for layer in range(total) if layer not in set(dense)]


def read_any(
    path: Path | str,
    topology: Topology | None,
    experts: int | None,
    *,
    layers: int | None = None,
    dense: Sequence[int] = (),
    notes: list[str] | None = None,
) -> Placement:
    """Read a placement in any of the formats, told apart by content.

    Raises FormatError if the content is of none of the formats, or incomplete. Raises InputError if the format needs a
    topology or a number of experts that was not given.

    Parameters
    ----------
    topology
        Devices, for formats that do not say (all but ours).
    experts
        Experts per layer, which ExFlow's CSV needs and maps can do without.
    layers
        Layers with experts of the model, where known: a map with more rows is matched to them.
    dense
        The model's layers without experts, whose rows a map may have.
    notes
        Gets what was noticed: rows left out, copies wasted.
    """
    data = read_bytes(path, "placement")
    where = f"placement {path}"
    said: list[str] = [] if notes is None else notes
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{where}: not text ({error})") from error
    head = text.lstrip()[:1]
    if head not in {"{", "["}:
        return _from_exflow(text, _needed(topology, where), experts, where)
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{where}: not JSON ({error})") from error
    if isinstance(record, dict) and record.get("format") == FORMAT:
        return Placement.from_json(record, where)
    needed = _needed(topology, where)
    if isinstance(record, dict) and "layer_list" in record:
        lists = _vllm_lists(record, needed, where)
    else:
        if isinstance(record, dict) and "physical_to_logical_map" in record:
            record = record["physical_to_logical_map"]
        if not isinstance(record, list):
            raise FormatError(f"{where}: neither a cosma placement, nor an ExFlow, EPLB, SGLang or vLLM map")
        lists = _physical_lists(record, needed, where)
    lists = _matched(lists, layers, dense, experts, where, said)
    return _from_lists(lists, needed, experts, where, said)


def physical_to_logical(placement: Placement) -> list[list[int]]:
    """Return the expert in every place, ``[layers][places]``, devices in order and places alike on each."""
    rows = _held(placement)
    room = max(len(places) for row in rows for places in row)
    for layer, held_row in enumerate(rows):
        for device, own in enumerate(held_row):
            if not own:
                raise InputError(
                    f"export: device {device} holds no expert of layer {layer}; a physical map cannot say that"
                )
            # Only a device that holds every expert has places left here.
            own.extend(own[place % len(own)] for place in range(room - len(own)))
    return [[expert for places in row for expert in places] for row in rows]


def _held(placement: Placement) -> list[list[list[int]]]:
    """Return the experts on every device of every layer."""
    rows = []
    for row in placement.copies():
        held: list[list[int]] = [[] for _ in range(placement.topology.devices)]
        for expert, copies in enumerate(row):
            for device in copies:
                held[device].append(expert)
        rows.append(held)
    return rows


def _physical_lists(rows: Any, topology: Topology, where: str) -> list[list[list[int]]]:
    try:
        table = np.array(rows)
    except (ValueError, OverflowError) as error:
        raise FormatError(f"{where}: physical map rows differ in length") from error
    if table.ndim != 2 or table.dtype.kind != "i" or 0 in table.shape:
        raise FormatError(f"{where}: a physical map is [layers][places] of expert numbers")
    if table.shape[1] % topology.devices:
        raise FormatError(f"{where}: {table.shape[1]} places do not divide among {topology.devices} devices")
    if int(table.min()) < -1:
        raise FormatError(f"{where}: expert {int(table.min())}; experts are not negative (-1 is an empty place)")
    room = table.shape[1] // topology.devices
    return [
        [[e for e in row[d * room : (d + 1) * room].tolist() if e >= 0] for d in range(topology.devices)]
        for row in table
    ]


def _matched(
    lists: list[list[list[int]]],
    layers: int | None,
    dense: Sequence[int],
    experts: int | None,
    where: str,
    notes: list[str],
) -> list[list[list[int]]]:
    """Leave the rows of dense layers out of a map that has more rows than there are layers with experts."""
    if layers is None or len(lists) == layers:
        return lists
    more = len(lists) - layers
    if more < 0:
        raise InputError(f"{where}: a map of {len(lists)} layers for a trace of {layers} layers with experts")
    if more == len(set(dense)):
        kept = layer_numbers(layers, dense)
        notes.append(f"rows {', '.join(str(layer) for layer in sorted(set(dense)))} of the map are of dense layers")
        return [lists[row] for row in kept]
    count = experts if experts is not None else 1 + max((e for row in lists for held in row for e in held), default=0)
    if all(_in_order(row, count) for row in lists[:more]):
        rows = "row 0" if more == 1 else f"rows 0 to {more - 1}"
        notes.append(
            f"{rows} of the map taken for dense layers: the map has {len(lists)} rows, the trace {layers} layers with "
            "experts, and experts lie there in order, as servers write it for layers without any"
        )
        return lists[more:]
    raise InputError(
        f"{where}: a map of {len(lists)} layers for a trace of {layers} layers with experts; declare which "
        f"{more} layers are dense"
    )


def _in_order(row: list[list[int]], experts: int) -> bool:
    flat = [expert for held in row for expert in held]
    return flat == [place % experts for place in range(len(flat))]


def _from_lists(
    layers: list[list[list[int]]], topology: Topology, experts: int | None, where: str, notes: list[str]
) -> Placement:
    """Build a placement from the experts on every device of every layer."""
    largest = max((expert for row in layers for held in row for expert in held), default=-1)
    places = max(sum(len(held) for held in row) for row in layers)
    count = experts if experts is not None else largest + 1
    if count > places or largest >= count:
        raise FormatError(
            f"{where}: "
            + (f"{places} places for {count} experts; some expert is on no device" if count > places else
               f"an expert {largest} of {count}")
        )  # fmt: skip
    copies: list[list[list[int]]] = [[[] for _ in range(count)] for _ in layers]
    wasted = 0
    for layer, row in enumerate(layers):
        for device, held in enumerate(row):
            for expert in held:
                if not 0 <= expert < count:
                    raise FormatError(f"{where}: layer {layer}, device {device} holds expert {expert} of {count}")
                if device in copies[layer][expert]:
                    wasted += 1
                else:
                    copies[layer][expert].append(device)
        missing = [expert for expert in range(count) if not copies[layer][expert]]
        if missing:
            raise FormatError(f"{where}: layer {layer}: expert {missing[0]} is on no device ({len(missing)} missing)")
    if wasted:
        notes.append(
            f"{wasted} places repeat an expert that their device already holds: copies that are wasted, since they "
            "neither share load between devices nor save a crossing"
        )
    return Placement.of_copies(topology, tuple(tuple(tuple(held) for held in row) for row in copies))


def _to_exflow(placement: Placement) -> str:
    if placement.replicas is not None:
        raise InputError("export: ExFlow's CSV has one device per expert; use eplb, sglang or vllm for replicas")
    return csv_lines([("Expert", "Node"), *enumerate(placement.devices.ravel().tolist())])


def _from_exflow(text: str, topology: Topology, experts: int | None, where: str) -> Placement:
    rows = list(csv.reader(io.StringIO(text)))
    if not rows or [cell.strip() for cell in rows[0]] != ["Expert", "Node"]:
        raise FormatError(f"{where}: neither JSON nor ExFlow's CSV (header Expert,Node)")
    if experts is None:
        raise InputError(f"{where}: ExFlow's CSV numbers experts globally; give the experts per layer, or a trace")
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


def _to_vllm(placement: Placement, numbers: Sequence[int]) -> dict[str, Any]:
    layers = []
    for layer, held in zip(numbers, _held(placement), strict=True):
        devices = [{"device_id": device, "device_expert": experts} for device, experts in enumerate(held)]
        layers.append({"layer_id": layer, "device_count": len(devices), "device_list": devices})
    return {"moe_layer_count": placement.layers, "layer_list": layers}


def _vllm_lists(record: dict[str, Any], topology: Topology, where: str) -> list[list[list[int]]]:
    """Return the lists of an expert map; layers in the order of their numbers, which may start anywhere."""
    try:
        entries = record["layer_list"]
        numbers = [int(layer.get("layer_id", at)) for at, layer in enumerate(entries)]
        layers = []
        for _, layer in sorted(zip(numbers, entries, strict=True), key=lambda item: item[0]):
            devices = layer["device_list"]
            ids = [int(device.get("device_id", at)) for at, device in enumerate(devices)]
            if sorted(ids) != list(range(len(ids))):
                raise FormatError(f"{where}: devices are numbered {sorted(ids)[:8]}; expected 0 to {len(ids) - 1}")
            ordered = [device for _, device in sorted(zip(ids, devices, strict=True), key=lambda item: item[0])]
            layers.append([[_expert(expert) for expert in device["device_expert"]] for device in ordered])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise FormatError(f"{where}: not a vLLM expert map ({error!r})") from error
    if len(set(numbers)) != len(numbers):
        twice = next(number for number in numbers if numbers.count(number) > 1)
        raise FormatError(f"{where}: layer {twice} appears twice")
    if not layers or any(len(row) != topology.devices for row in layers):
        raise FormatError(
            f"{where}: the map has {[len(row) for row in layers][:1]} devices, the topology {topology.devices}"
        )
    return layers


def _expert(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"expert {value!r}")
    return value


def _needed(topology: Topology | None, where: str) -> Topology:
    if topology is None:
        raise InputError(
            f"{where}: this format does not say how devices form nodes; give the number of nodes and of devices in each"
        )
    return topology
