"""A placement and its file: which device holds which expert, what that costs, and what bounds it.

File format ``cosma-placement``, version 1: one JSON object with ``topology`` (``nodes``, ``devices_per_node``),
``layers``, ``experts``, ``placement`` (``[layers][experts]`` devices), ``replicas`` (null, or
``[layers][experts][devices]`` with the home first), ``metrics`` and ``certificate``. Unknown keys are ignored.
The topology also carries ``crossing_costs`` and, where they are not the obvious ones, ``paths`` and ``capacities``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

import cosma.door as door
from cosma.errors import FormatError
from cosma.files import read_bytes, write_atomic
from cosma.placement.topology import Topology

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

FORMAT = "cosma-placement"
VERSION = 1

Replicas = tuple[tuple[tuple[int, ...], ...], ...]


def homes_of(copies: Replicas) -> NDArray[np.int64]:
    """Return ``[layers, experts]``: the first device of each expert's copies."""
    return np.array([[held[0] for held in row] for row in copies], dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Where every expert lives.

    Attributes
    ----------
    topology
        The devices.
    devices
        ``[layers, experts]``: home device of every expert.
    replicas
        Per layer and expert all devices that hold a copy, home first; None without replication.
    metrics, certificate, solver
        What was measured, what bounds it and how it was found; kept as read.
    """

    topology: Topology
    devices: NDArray[np.int64]
    replicas: Replicas | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    certificate: Mapping[str, Any] = field(default_factory=dict)
    solver: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_copies(cls, topology: Topology, copies: Replicas, **rest: Mapping[str, Any]) -> Placement:
        """Return the placement of experts on the devices listed, home first; without replicas where each has one."""
        single = all(len(held) == 1 for row in copies for held in row)
        return cls(topology, homes_of(copies), None if single else copies, **rest)

    @property
    def layers(self) -> int:
        """Number of layers."""
        return int(self.devices.shape[0])

    @property
    def experts(self) -> int:
        """Experts per layer."""
        return int(self.devices.shape[1])

    def copies(self) -> Replicas:
        """Return the devices of every copy, home first, whether or not anything is replicated."""
        if self.replicas is not None:
            return self.replicas
        return tuple(tuple((int(device),) for device in row) for row in self.devices)

    def to_json(self) -> dict[str, Any]:
        """Return the file form."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "topology": self.topology.to_json(),
            "layers": self.layers,
            "experts": self.experts,
            "placement": self.devices.tolist(),
            "replicas": None if self.replicas is None else [[list(held) for held in row] for row in self.replicas],
            "metrics": dict(self.metrics),
            "certificate": dict(self.certificate),
            "solver": dict(self.solver),
        }

    @classmethod
    def from_json(cls, record: Any, where: str = "placement") -> Placement:
        """Read the file form; shapes are checked here, validity by ``check.check_placement``.

        Raises
        ------
        FormatError
            If the record is of another format or version, or a key is missing or misshapen.
        """
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            raise FormatError(f"{where}: not a placement file (its format key must be {FORMAT!r})")
        if record.get("version") != VERSION:
            raise FormatError(f"{where}: version {record.get('version')!r}; this reader knows version {VERSION}")
        missing = [key for key in ("topology", "layers", "experts", "placement") if key not in record]
        if missing:
            raise FormatError(f"{where}: missing {', '.join(missing)}")
        devices = _grid(record["placement"], where)
        if devices.shape != (record["layers"], record["experts"]):
            raise FormatError(
                f"{where}: placement is {devices.shape[0]} x {devices.shape[1]}, but layers and experts say "
                f"{record['layers']} x {record['experts']}"
            )
        replicas = record.get("replicas")
        return cls(
            Topology.from_json(record["topology"]),
            devices,
            None if replicas is None else _replicas(replicas, devices, where),
            *(_entries(record, key, where) for key in ("metrics", "certificate", "solver")),
        )


def write_placement(path: Path | str, placement: Placement) -> None:
    """Write a placement file, whole or not at all."""
    write_atomic(door.path(path, "placement file"), dump_placement(placement))


def dump_placement(placement: Placement) -> str:
    """Return the text of a placement file: equal placements give equal bytes."""
    record = door.instance(placement, Placement, "the placement").to_json()
    lines = [f"  {json.dumps(key)}: {_value(key, value)}" for key, value in record.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read_placement(path: Path | str) -> Placement:
    """Read a placement file.

    Raises
    ------
    FormatError
        If it is not one.
    """
    data = read_bytes(door.path(path, "placement file"), "placement")
    try:
        record = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"placement {path}: not JSON ({error})") from error
    return Placement.from_json(record, f"placement {path}")


def _value(key: str, value: Any) -> str:
    if key in {"placement", "replicas"} and isinstance(value, list):
        return "[\n" + ",\n".join(f"    {json.dumps(row)}" for row in value) + "\n  ]"
    return json.dumps(value)


def _entries(record: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    value = record.get(key)
    if value is not None and not isinstance(value, dict):
        raise FormatError(f"{where}: {key} is a {type(value).__name__}; expected an object")
    return value or {}


def _grid(rows: Any, where: str) -> NDArray[np.int64]:
    try:
        array = np.array(rows)
    except (ValueError, OverflowError) as error:
        raise FormatError(f"{where}: placement rows differ in length, or a number is too large") from error
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind != "i":
        raise FormatError(f"{where}: placement must be [layers][experts] of device numbers")
    return array.astype(np.int64)


def _replicas(rows: Any, devices: NDArray[np.int64], where: str) -> Replicas:
    try:
        held = tuple(tuple(tuple(copies) for copies in row) for row in rows)
    except TypeError as error:
        raise FormatError(f"{where}: replicas must be [layers][experts][devices]") from error
    if any(type(device) is not int for row in held for copies in row for device in copies):
        raise FormatError(f"{where}: replicas must be device numbers")
    if len(held) != devices.shape[0] or any(len(row) != devices.shape[1] for row in held):
        raise FormatError(f"{where}: replicas must list every expert of every layer")
    return held
