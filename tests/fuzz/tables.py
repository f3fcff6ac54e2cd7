"""Mutated buffer files, traces, tables of counts and maps of experts, in every format that is read."""

from __future__ import annotations

import csv
import io
import json
import random
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from cosma.packing import ENGINES, pack
from cosma.packing.csvfile import parse_buffers, read_buffers
from cosma.placement import PlaceOptions, Topology, open_trace, place, read_affinity
from tests.fuzz.runner import WrongError

ODD = (
    "", "-1", "0", "1", "1e9", "1.5", "nan", "inf", "999999999999999999", "9" * 40, "x", "\u202e", "\0", '"', ";",
    "1-2", "1-2@0:1", "=1+1", " ", "-0", "0x10", "\uff11", "1_000", "true", "null",
)  # fmt: skip
ODD_JSON: tuple[Any, ...] = (
    -1, 0, 1, 2**31, 2**40, 2**63, 10**30, 1.5, 1e300, True, None, "", "x", [], {}, [[]], [[[0]]], "AAAA", {"a": 1},
)  # fmt: skip
#: What a buffer file is read as; traces are read as they are, or as what is said.
BUFFER = "buffers"
BUFFERS = (
    "id,lower,upper,size\na,0,3,4\nb,3,9,4\nc,0,9,4\nd,9,21,4\ne,0,21,4\n",
    "id,lower,upper,size,alignment,gaps,offset,hint\n"
    "0,5,10,15,,,,\nBig,6,12,18,2,7-8 9-10@1:17,22,4\nx,0,40,8,8,,,16\n",
    "start,size,buffer_id,upper\n6,18,x,12\n7,2,y,9\n",
    "begin,size,buffer,end,gaps\n6,18,x,11,7-8\n0,5,y,20,\n",
)


@cache
def bases() -> tuple[tuple[str, bytes, str | None], ...]:
    """Files as they should be: suffix, content, and what to read them as."""
    draw = np.random.default_rng(7)
    trace = draw.permuted(np.tile(np.arange(8), (60, 3, 1)), axis=2)[:, :, :2]
    counts = draw.integers(0, 900, (3, 8))
    found: list[tuple[str, bytes, str | None]] = [(".csv", text.encode(), BUFFER) for text in BUFFERS]
    for array, kind in (
        (trace, None),
        (trace[:, :, 0], "trace"),
        (counts, "load"),
        (draw.integers(0, 90, (2, 8, 8)), "transitions"),
        (draw.integers(0, 90, (4, 3, 8)), "load"),
    ):
        for entry in (np.int64, np.int32, np.uint8):
            stream = io.BytesIO()
            np.save(stream, array.astype(entry))
            found.append((".npy", stream.getvalue(), kind))
        found.append((".json", json.dumps(array.tolist()).encode(), kind))
    stream = io.BytesIO()
    np.savez(stream, profile=trace, num_experts=8)
    found.append((".npz", stream.getvalue(), None))
    lines = [json.dumps(row) for row in trace.tolist()]
    found.append((".jsonl", "\n".join(lines).encode(), None))
    found.append((".jsonl", "\n".join(json.dumps({"routed_experts": [row]}) for row in trace.tolist()).encode(), None))
    answers = [json.dumps({"choices": [{"routed_experts": [row] * 3}]}) for row in trace.tolist()]
    found.append((".jsonl", "\n".join(answers).encode(), None))
    text = "layer_id,expert_id,count\n" + "".join(
        f"{layer},{expert},{counts[layer, expert]}\n" for layer in range(3) for expert in range(8)
    )
    found.append((".csv", text.encode(), None))
    text = "token,layer,expert\n" + "".join(
        f"{t},{layer},{e}\n" for t in range(20) for layer in range(3) for e in trace[t, layer]
    )
    found.append((".csv", text.encode(), None))
    _pack_once()
    return tuple(found)


def _pack_once() -> None:
    """Load the kernels before workers are forked."""
    buffers = parse_buffers(BUFFERS[1])
    for engine in ENGINES:
        for given in (buffers, parse_buffers(BUFFERS[0])):
            if engine != "search" or given is not buffers:
                pack(given, 12, engine=engine, work_limit=1000)
    tight = parse_buffers("id,lower,upper,size\n" + "".join(f"b{i},{i},{i + 3},{i % 3 + 1}\n" for i in range(9)))
    pack(tight, 6, work_limit=1000)
    pack(tight, 5, work_limit=1000)


def case(seed: int) -> str:
    """Mutate one file and read it as what it was, and as the other kind."""
    draw = random.Random(seed)
    suffix, content, kind = make(draw)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"input{suffix}"
        path.write_bytes(content)
        if draw.random() < 0.03:
            kind = draw.choice((None, "trace", "load", "transitions", BUFFER))
        if kind == BUFFER:
            return _buffers(draw, path)
        affinity = read_affinity(open_trace(path, kind=kind))
        if affinity.layers * affinity.experts > 400:
            return "read, large"
        strategy = draw.choice(("vanilla", "eplb"))
        topology = Topology.grid(draw.choice((1, 2)), draw.choice((1, 2, 4)))
        placed = place(affinity, topology, PlaceOptions(strategy=strategy, bound="none"))
        if placed.devices.shape != (affinity.layers, affinity.experts):
            raise WrongError("a placement of another shape than the trace")
        return "placed"


def _buffers(draw: random.Random, path: Path) -> str:
    buffers = read_buffers(path)
    capacity, alignment = draw.choice((11, 12, 64, 1000, 2**40)), draw.choice((1, 1, 4, 64))
    result = pack(buffers, capacity, alignment=alignment, work_limit=2000, seed=draw.randrange(5))
    if result.packed:
        spans = []
        for b in buffers:
            at = result.offsets[b.id]
            if b.size == 0:
                continue
            if at < 0 or at + b.size > capacity or at % alignment or at % b.alignment:
                raise WrongError(f"{b.id!r} at {at}")
            if b.offset is not None and at != b.offset:
                raise WrongError(f"{b.id!r} at {at}, fixed at {b.offset}")
            if not b.gaps:
                spans.append((b.lower, b.upper, at, at + b.size, b.id))
        for i, one in enumerate(spans):
            for other in spans[:i]:
                if one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]:
                    raise WrongError(f"{one} overlaps {other}")
    return f"pack: {result.status}"


def make(draw: random.Random) -> tuple[str, bytes, str | None]:
    """Make a mutated file: suffix, content, and what to read it as."""
    suffix, content, kind = draw.choice(bases())
    if kind != BUFFER and draw.random() < 0.3:
        suffix, content, kind = draw.choice(bases()[: len(BUFFERS)])
    for _ in range(draw.choice((1, 1, 2, 3))):
        if draw.random() < 0.35:
            content = _bytes(draw, content)
        elif suffix in (".npy", ".npz"):
            content = _array(draw, content) if suffix == ".npy" else _bytes(draw, content)
        elif suffix in (".json", ".jsonl"):
            content = _json(draw, content, lines=suffix == ".jsonl")
        else:
            content = _csv(draw, content)
    if draw.random() < 0.03:
        suffix = draw.choice((".npy", ".npz", ".json", ".jsonl", ".csv", ".txt", ""))
    return suffix, content, kind


def _bytes(draw: random.Random, content: bytes) -> bytes:
    if not content:
        return draw.randbytes(draw.randrange(40))
    at, end = sorted((draw.randrange(len(content)), draw.randrange(len(content))))
    match draw.randrange(7):
        case 0:
            return content[:at] + bytes([draw.randrange(256)]) + content[at + 1 :]
        case 1:
            return content[:at]
        case 2:
            return content[:at] + content[end:]
        case 3:
            return content[:at] + draw.randbytes(draw.randrange(1, 9)) + content[at:]
        case 4:
            return content[:end] + content[at:]
        case 5:
            return draw.choice((b"\xef\xbb\xbf" + content, content.replace(b"\n", b"\r\n"), b"[" * 3000 + content))
        case _:
            head = min(at, 127)
            return content[:head] + bytes([content[head] ^ (1 << draw.randrange(8))]) + content[head + 1 :]


def _array(draw: random.Random, content: bytes) -> bytes:
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception:
        return _bytes(draw, content)
    match draw.randrange(6):
        case 0:
            shape = draw.choice(((0,), (0, 3, 2), (5, 0, 2), (5, 3, 0), (1,), (), (2, 2, 2, 2), (1, 1, 1)))
            array = np.zeros(shape, array.dtype)
        case 1 if array.size:
            array = array.copy()
            array.flat[draw.randrange(array.size)] = draw.choice((0, 1, 7, 100, 255))
        case 2 if array.size:
            array = array.astype(np.float64)
            array.flat[draw.randrange(array.size)] = draw.choice((-1.0, 2.0**40, 2.0**62, np.nan, np.inf, 0.5, -0.0))
            array = array if draw.random() < 0.5 else np.nan_to_num(array, posinf=9, neginf=9).astype(np.int64)
        case 3:
            array = array.astype(np.int64).astype(draw.choice((">i4", "bool", "S30", "complex64", "u8", "f4", "M8[s]")))
        case 4 if array.ndim:
            array = array[:: draw.choice((-1, 2, 3))]
        case _:
            array = array.reshape(-1) if draw.random() < 0.5 else array[..., None]
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _json(draw: random.Random, content: bytes, *, lines: bool) -> bytes:
    try:
        rows = content.decode().split("\n") if lines else [content.decode()]
        at = draw.randrange(len(rows))
        value = json.loads(rows[at])
    except (ValueError, UnicodeDecodeError, RecursionError):
        return _bytes(draw, content)
    root = [value]
    place: Any = root
    key: Any = 0
    while isinstance(place[key], list | dict) and place[key] and draw.random() < 0.8:
        place = place[key]
        key = draw.choice(list(place)) if isinstance(place, dict) else draw.randrange(len(place))
    match draw.randrange(4):
        case 0 if isinstance(place, list):
            place.append(place[key])
        case 1 if len(place) > 1:
            del place[key]
        case _:
            place[key] = draw.choice(ODD_JSON)
    rows[at] = json.dumps(root[0])
    return "\n".join(rows).encode()


def _csv(draw: random.Random, content: bytes) -> bytes:
    try:
        rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error):
        return _bytes(draw, content)
    if not rows or not any(rows):
        return _bytes(draw, content)
    row = draw.choice([row for row in rows if row])
    match draw.randrange(7):
        case 0:
            rows.insert(draw.randrange(len(rows) + 1), list(row))
        case 1:
            rows.remove(row)
        case 2:
            row.append(draw.choice(ODD))
        case 3:
            row.pop(draw.randrange(len(row)))
        case 4:
            draw.shuffle(rows)
        case _:
            row[draw.randrange(len(row))] = draw.choice(ODD)
    stream = io.StringIO()
    csv.writer(stream, lineterminator=draw.choice(("\n", "\r\n"))).writerows(rows)
    return stream.getvalue().encode()
