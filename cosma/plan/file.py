"""The plan file, versions 1 and 2: one JSON object that anyone can write and replay.

Version 2 is written where a plan has parts of tensors that were cut, operators have modes, or a plan keeps to
constraints or to ranges that are reserved; all else is as in version 1.

Keys and order are fixed, no time or machine fact is in it, and the same plan always gives the same bytes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

import cosma.door as door
from cosma.accelerator import Accelerator
from cosma.accelerator.constraint_files import constraints_of
from cosma.accelerator.constraints import FIELDS
from cosma.errors import FormatError, InputError
from cosma.files import other_than, read_bytes, write_atomic
from cosma.graph import Accumulation, Graph, Join, Mode, Operator, Part, Piece, Region, Tensor
from cosma.plan import format as form
from cosma.plan.instructions import Allocate, Execute, Free, Instruction, Load, Store
from cosma.plan.off_chip import Area, OffChip
from cosma.plan.plan import Certificate, Plan, ScopedBound, Traffic
from cosma.text import safe_json

if TYPE_CHECKING:
    from pathlib import Path


def plan_to_json(plan: Plan) -> str:
    """Write a plan as JSON text, one instruction, tensor and operator a line."""
    accelerator = plan.accelerator
    head: dict[str, Any] = {"format": "cosma-plan", "version": 2 if _needs_version_2(plan) else 1}
    if plan.dtype is not None:
        head["dtype"] = plan.dtype
    if plan.dims:
        head["dims"] = dict(sorted(plan.dims.items()))
    if plan.stopped_by is not None:
        head |= {"stopped_by": plan.stopped_by, "reproducible": False}
    head["model"] = form.Model(plan.model_name, plan.model_sha256)
    head["accelerator"] = form.Accelerator(
        accelerator.scratchpad,
        accelerator.alignment,
        accelerator.operands,
        accelerator.weights,
        accelerator.reserved,
        accelerator.in_place,
        accelerator.fusion,
        min_transfer=accelerator.min_transfer or msgspec.UNSET,
        reserved_ranges=accelerator.reserved_ranges or msgspec.UNSET,
        zero_copy=msgspec.UNSET if accelerator.zero_copy is None else accelerator.zero_copy,
        pieces=msgspec.UNSET if accelerator.pieces is None else accelerator.pieces,
    )
    if accelerator.constraints:
        head["constraints"] = accelerator.constraints.to_record()
    roots = tuple(plan.graph.roots.values())
    sums = {name for o in plan.graph.operators if o.accumulation is not None for name in o.accumulation.sums}
    rows: dict[str, list[Any]] = {
        "tensors": [_tensor_record(t, partial=t.name in sums) for t in plan.graph.tensors.values()],
        **({"roots": [_root_record(plan.graph, r) for r in roots]} if roots else {}),
        "operators": [_operator_record(o) for o in plan.graph.operators],
        "instructions": [_record(instruction) for instruction in plan.instructions],
    }
    traffic, certificate = plan.traffic, plan.certificate
    claims: dict[str, Any] = {
        "traffic": form.Traffic(
            total=traffic.total, compulsory=traffic.compulsory, noncompulsory=traffic.noncompulsory,
            loaded=traffic.loaded, stored=traffic.stored, streamed=traffic.streamed,
        ),
        "peak": plan.peak_bytes,
        "certificate": form.Certificate(
            status=certificate.status, lower_bound=certificate.lower_bound, gap=certificate.gap,
            method=certificate.method,
            bounds=tuple(form.Bound(b.scope, b.lower_bound, b.method) for b in certificate.bounds) or msgspec.UNSET,
        ),
    }  # fmt: skip
    if plan.off_chip is not None:
        claims["off_chip"] = _off_chip_record(plan.off_chip)
    tail = {key: value for key, value in claims.items() if key not in plan.not_claimed} | {"solver": plan.solver}
    encode = msgspec.json.encode
    encode_row = msgspec.json.Encoder().encode
    lines = [f"{_text(key)}: {encode(value).decode()}" for key, value in head.items()]
    for key, values in rows.items():
        body = b",\n ".join(map(encode_row, values)).decode()
        lines.append(f"{_text(key)}: [\n {body}\n]" if values else f"{_text(key)}: []")
    lines += [f"{_text(key)}: {encode(value, order='deterministic').decode()}" for key, value in tail.items()]
    return safe_json("{" + ",\n".join(lines) + "}\n")


def _needs_version_2(plan: Plan) -> bool:
    graph, accelerator = plan.graph, plan.accelerator
    stated = accelerator.zero_copy or accelerator.pieces is not None
    stated = stated or any(tensor.state is not None for tensor in graph.tensors.values())
    ways = any(operator.modes or operator.accumulation is not None for operator in graph.operators)
    forced = accelerator.reserved_ranges or accelerator.constraints or plan.off_chip
    return bool(graph.roots or forced) or stated or ways


def save_plan(plan: Plan, path: Path | str) -> None:
    """Write a plan file, whole or not at all."""
    write_atomic(door.path(path, "plan file"), plan_to_json(door.instance(plan, Plan, "the plan")))


def load_plan(path: Path | str) -> Plan:
    """Read a plan file; raises what :func:`plan_from_json` raises."""
    file = door.path(path, "plan file")
    return plan_from_json(read_bytes(file, "plan"), str(path))


def plan_from_json(text: str | bytes, where: str = "plan") -> Plan:
    """Read a plan from JSON text, our own or a foreign one; unknown keys are ignored.

    Only the format is checked here. Whether the plan is valid is for :func:`cosma.replay` to say. Raises FormatError if
    the text is not JSON, is no plan, or a value has the wrong type; the message names the place. Raises GraphError or
    AcceleratorError if the tensors and operators form no graph, or the accelerator contradicts itself.
    """
    try:
        record = msgspec.json.decode(text, type=form.Plan)
        twice = form.repeated_key(text)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        other = other_than("a cosma-plan file", text)
        why = f"{other}; compiling a model writes one" if other else f"not a cosma-plan file: {error}"
        raise FormatError(f"{where}: {why}") from error
    if record.format != "cosma-plan" or record.version not in form.VERSIONS:
        raise FormatError(
            f"{where}: format {record.format!r} version {record.version}; this reader knows 'cosma-plan' versions "
            + " and ".join(map(str, form.VERSIONS))
        )
    if twice is not None:
        raise FormatError(f"{where}: {twice[0] or 'the plan'} has the key {twice[1]!r} twice")
    traffic, certificate = _claims(record, where)
    graph = Graph(
        (_tensor(t, record.version) for t in record.tensors),
        (_operator(o, record.version) for o in record.operators),
        record.model.name,
        (Tensor(r.name, r.bytes, r.kind, shape=r.shape, state=r.state) for r in record.roots if record.version > 1),
        (_join(r) for r in record.roots if record.version > 1 and r.pieces),
    )
    return Plan(
        graph=graph,
        accelerator=_accelerator(record, where),
        instructions=tuple(_instruction(r, i, where) for i, r in enumerate(record.instructions)),
        traffic=traffic,
        peak_bytes=record.peak or 0,
        certificate=certificate,
        model_name=record.model.name,
        model_sha256=record.model.sha256,
        dtype=record.dtype,
        dims=record.dims,
        solver=record.solver,
        stopped_by=record.stopped_by,
        off_chip=_off_chip(record.off_chip) if record.off_chip is not None and record.version > 1 else None,
        not_claimed=frozenset(key for key in ("traffic", "peak", "certificate") if getattr(record, key) is None),
    )


def _off_chip_record(off_chip: OffChip) -> form.OffChip:
    areas = {name: form.Area(area.size_bytes, dict(area.offsets)) for name, area in off_chip.areas.items()}
    return form.OffChip(off_chip.spilled.size_bytes, dict(off_chip.spilled.offsets), off_chip.lower_bound, areas)


def _off_chip(record: form.OffChip) -> OffChip:
    areas = {name: Area(area.size, area.offsets) for name, area in record.areas.items()}
    return OffChip(Area(record.size, record.offsets), record.lower_bound, areas)


def _accelerator(record: form.Plan, where: str) -> Accelerator:
    given = msgspec.structs.asdict(record.accelerator)
    given = {key: value for key, value in given.items() if value is not msgspec.UNSET}
    if record.version < 2:
        given.pop("reserved_ranges", None)
    forced = {key: value for key, value in record.constraints.items() if key in FIELDS} if record.version > 1 else {}
    return Accelerator(**given, constraints=constraints_of(forced, f"{where}: constraints"))


def _claims(record: form.Plan, where: str) -> tuple[Traffic, Certificate]:
    """What a file says of its own cost and of its bound; it must not contradict itself."""
    claimed = record.traffic
    traffic = Traffic()
    if claimed is not None:
        traffic = Traffic(claimed.loaded, claimed.stored, claimed.streamed, claimed.compulsory)
        if claimed.total not in (None, traffic.total):
            raise FormatError(f"{where}: traffic.total is not loaded + stored + streamed")
        if claimed.noncompulsory not in (None, traffic.noncompulsory):
            raise FormatError(f"{where}: traffic.noncompulsory is not total - compulsory")
    stated = record.certificate
    if stated is None:
        return traffic, Certificate(0, traffic.noncompulsory, "none is claimed", claimed=True)
    scoped = () if stated.bounds is msgspec.UNSET else stated.bounds
    bounds = tuple(ScopedBound(b.scope, b.lower_bound, b.method) for b in scoped)
    certificate = Certificate(stated.lower_bound, traffic.noncompulsory, stated.method, claimed=True, bounds=bounds)
    follows = stated.gap is None or math.isclose(stated.gap, certificate.gap, abs_tol=1e-6)
    if claimed is not None and not (follows and stated.status in (None, certificate.status)):
        raise FormatError(
            f"{where}: certificate status {stated.status!r} and gap {stated.gap} do not follow "
            f"from lower bound {certificate.lower_bound} and {traffic.noncompulsory} bytes achieved"
        )
    return traffic, certificate


def _root_record(graph: Graph, root: Tensor) -> form.Root:
    join = graph.joins.get(root.name)
    pieces = () if join is None else join.pieces
    return form.Root(
        root.name, root.size_bytes, root.shape or (), root.kind,
        tuple(form.Piece(piece.tensor, piece.region.start, piece.region.stop) for piece in pieces),
        () if join is None else join.covers, root.state,
    )  # fmt: skip


def _join(record: form.Root) -> Join:
    pieces = (Piece(piece.tensor, Region(record.name, piece.start, piece.stop)) for piece in record.pieces)
    return Join(record.name, pieces, record.covers)


def _operator_record(operator: Operator) -> form.Operator:
    box = operator.tile
    tile = msgspec.UNSET if box is None else form.Tile(box.root, box.start, box.stop)
    record = form.Operator(
        operator.name, operator.type, operator.inputs, operator.outputs, operator.weights, operator.covers, tile,
        msgspec.UNSET if operator.accumulation is None else operator.accumulation,
        joined=operator.joined or msgspec.UNSET,
    )  # fmt: skip
    if not operator.modes:
        return record
    if len(operator.modes) > 1:
        raise InputError(f"operator {operator.name!r} has {len(operator.modes)} modes; a plan chooses one")
    (mode,) = operator.modes
    return msgspec.structs.replace(
        record,
        mode=mode.name,
        may_stream=mode.may_stream or msgspec.UNSET,
        workspace=mode.workspace_bytes or msgspec.UNSET,
    )


def _operator(record: form.Operator, version: int) -> Operator:
    """Operator of a record. The format knows parts only as types joined with ``+``; this is where they are read."""
    names = record.type.split("+")
    parts = tuple(map(Part, names)) if len(names) > 1 else ()
    return Operator(
        record.name, record.type, record.inputs, record.outputs, record.weights, record.covers, fused=parts,
        tile=Region(record.tile.of, record.tile.start, record.tile.stop)
        if isinstance(record.tile, form.Tile) and version > 1 else None,
        modes=(Mode(record.mode, record.may_stream or (), record.workspace or 0),)
        if isinstance(record.mode, str) and version > 1 else (),
        accumulation=record.accumulation
        if isinstance(record.accumulation, Accumulation) and version > 1 else None,
        joined=record.joined if isinstance(record.joined, tuple) and version > 1 else (),
    )  # fmt: skip


def _tensor_record(tensor: Tensor, *, partial: bool) -> form.Tensor:
    shape = tensor.shape if partial else None
    return form.Tensor(tensor.name, tensor.size_bytes, tensor.kind, tensor.rows, tensor.region, tensor.state, shape)


def _tensor(record: form.Tensor, version: int) -> Tensor:
    rows, region = record.rows, record.region
    if version < 2:  # no keys of version 1: readers ignore them
        return Tensor(record.name, record.bytes, record.kind, rows=rows)
    if region is None:
        return Tensor(record.name, record.bytes, record.kind, shape=record.shape, rows=rows, state=record.state)
    return Tensor(record.name, record.bytes, record.kind, shape=region.shape, rows=rows, region=region)


def _text(key: str) -> str:
    return f'"{key}"'


def _record(instruction: Instruction) -> form.Instruction:
    match instruction:
        case Load(tensor, address):
            return form.Instruction("load", tensor=tensor, address=address)
        case Allocate(tensor, address, operand):
            return form.Instruction("allocate", tensor=tensor, address=address, in_place_of=operand)
        case Execute(operator, streamed, workspace):
            return form.Instruction("execute", operator=operator, streamed=streamed, workspace=workspace)
        case Store(tensor):
            return form.Instruction("store", tensor=tensor)
        case Free(tensor):
            return form.Instruction("free", tensor=tensor)


def _instruction(record: form.Instruction, index: int, where: str) -> Instruction:
    def need(name: str) -> Any:
        value = getattr(record, name)
        if value is None:
            raise FormatError(f"{where}: instructions[{index}] ({record.do}) has no {name!r}")
        return value

    match record.do:
        case "load":
            return Load(need("tensor"), need("address"))
        case "allocate":
            return Allocate(need("tensor"), need("address"), record.in_place_of)
        case "execute":
            streamed = record.streamed or ()
            if len({*streamed}) < len(streamed):
                twice = next(name for name in streamed if streamed.count(name) > 1)
                raise FormatError(f"{where}: instructions[{index}] ({record.do}) streams {twice!r} twice")
            return Execute(need("operator"), streamed, record.workspace)
        case "store":
            return Store(need("tensor"))
        case "free":
            return Free(need("tensor"))
