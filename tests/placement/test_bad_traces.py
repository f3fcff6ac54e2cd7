"""Files of routing that are damaged, lie about themselves or are something else: refused with a reason."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from cosma.errors import CosmaError, FormatError, InputError
from cosma.placement.synthetic import SyntheticOptions, synthetic_trace
from cosma.placement.traces import open_trace, read_affinity, survey
from tests.placement.trace_files import csv_file, lines, npy, responses, save


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    options = SyntheticOptions(tokens=300, layers=5, experts=12, top_k=2, clusters=3, seed=5)
    return np.asarray(synthetic_trace(options)).astype(np.int64)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((10, 4, 0), dtype=int), "k = 0"),
        (np.zeros((200, 0), dtype=int), "no layers"),
        (np.zeros((0, 4), dtype=int), "no tokens"),
        (np.zeros((3, 4, 2, 2), dtype=int), "shape"),
        (np.full((3, 4), "a"), "expected whole numbers"),
        (np.full((30, 4), np.nan), "not finite"),
        (np.full((900, 4), 0.0), "expected whole numbers"),
        (np.tile([[0, 1, 2, 2**40]], (900, 1)), "token 0, layer 3 names expert 1099511627776; at most 65536"),
        (np.tile([[0, 1, 2, 100000]], (900, 1)), "layer 3 names expert 100000; at most 65536"),
        (np.tile([[0, 1, 2, 9000]], (900, 1)), "only 4 different experts"),
        (np.tile([[0, 1, -7, 3]], (900, 1)), "layer 2 names expert -7"),
        (np.full((20, 4, 2), -1), "no token names an expert"),
        (np.tile([[[0, 1], [2, 2], [1, 3], [3, 0]]], (2000, 1, 1)), "one expert twice"),
    ],
)
def test_damaged_traces_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_affinity(open_trace(save(tmp_path, array)))


def test_a_header_that_lies_costs_nothing(tmp_path: Path) -> None:
    for shape, message in (((10**15, 0), "no layers"), ((10**15, 4), "cut short"), ((4, 10**15), "MiB")):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": shape})
        (tmp_path / "t.npy").write_bytes(header.getvalue() + b"\0" * 640)
        with pytest.raises(FormatError, match=message):
            survey(open_trace(tmp_path / "t.npy"))


def test_too_many_experts_for_counts(tmp_path: Path) -> None:
    path = save(tmp_path, np.random.default_rng(0).integers(0, 8, (900, 6)))
    with pytest.raises(InputError, match="30000 experts per layer; at most 5181 are possible"):
        read_affinity(open_trace(path), 30000)


def test_placements_are_no_traces(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(json.dumps({"physical_to_logical_map": [[0, 1, 2, 3]]}))
    (tmp_path / "e.csv").write_text("Expert,Node\n0,0\n")
    save(tmp_path, np.tile(np.r_[np.arange(16), 0, 4, 8, 12], (6, 1)), "map.npy")
    for name in ("m.json", "e.csv", "map.npy"):
        with pytest.raises(FormatError, match="placement"):
            survey(open_trace(tmp_path / name))


def test_nothing_but_regular_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        open_trace(tmp_path)
    (tmp_path / "t.pt").write_bytes(b"PK")
    with pytest.raises(InputError, match="PyTorch"):
        open_trace(tmp_path / "t.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"choices": [{"routed_experts": null}]}\n', "all null"),
        ('{"routed_experts": "§§"}\n', "not base64"),
        ('{"routed_experts": 3}\n', "expected lists or a base64 text"),
        ('{"routed_experts": [[true, false]]}\n', "whole expert ids"),
        ('[["a", 1], [2]]\n', "whole expert ids"),
        ("[" * 3000 + "\n", "not JSON"),
        (f"[{10**30}, 1]\n", "no expert id"),
    ],
)
def test_bad_records_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "t.jsonl").write_text(content)
    with pytest.raises(InputError, match=message):
        read_affinity(open_trace(tmp_path / "t.jsonl"))


def test_a_shape_is_for_texts_without_one(tmp_path: Path, tokens: np.ndarray) -> None:
    with pytest.raises(InputError, match="base64 texts"):
        open_trace(save(tmp_path, tokens), shape=(5, 2))


@pytest.mark.parametrize("row", ["[NaN, 1, 2, 3]", "[-4, 1, 2, 3]", "[Infinity, 1, 2, 3]"])
def test_counts_that_are_none_make_no_layer_dense(tmp_path: Path, row: str) -> None:
    (tmp_path / "t.json").write_text(f'{{"logical_count": [{row}, [4, 3, 2, 1]]}}')
    with pytest.raises(InputError, match="finite and not negative"):
        survey(open_trace(tmp_path / "t.json"))


def _mutated(data: bytes, random: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(int(random.integers(1, 4))):
        what = int(random.integers(4))
        at = int(random.integers(len(changed))) if changed else 0
        if what == 0:
            changed[at : at + 1] = bytes([int(random.integers(256))])
        elif what == 1:
            del changed[at : at + int(random.integers(1, 40))]
        elif what == 2:
            changed[at:at] = random.choice([b"-1", b"999999999999", b"[", b"]", b",", b'"', b"null", b"\0", b"1e5"])
        else:
            changed[at:at] = changed[at : at + 30]
    return bytes(changed)


@pytest.mark.parametrize("form", ["npy", "npz", "jsonl", "json", "csv", "counts csv"])
def test_mutated_files_never_crash(tmp_path: Path, tokens: np.ndarray, form: str) -> None:
    small = tokens[:40]
    if form == "npy":
        data, name = npy(small), "t.npy"
    elif form == "npz":
        np.savez(tmp_path / "s.npz", profile=small, meta=np.array(json.dumps({"experts": 12})))
        data, name = (tmp_path / "s.npz").read_bytes(), "t.npz"
    elif form == "jsonl":
        data, name = lines(tmp_path, responses(small, "base64 npy")).read_bytes(), "t.jsonl"
    elif form == "json":
        data, name = json.dumps(small.tolist()).encode(), "t.json"
    elif form == "csv":
        data, name = csv_file(tmp_path, small, "one choice a row").read_bytes(), "t.csv"
    else:
        data, name = b"layer,expert,count\n" + b"\n".join(b"%d,%d,%d" % (i % 3, i // 3, i) for i in range(30)), "t.csv"
    random = np.random.default_rng(len(form))
    refused = 0
    for number in range(120):
        path = tmp_path / f"{number}-{name}"
        path.write_bytes(_mutated(data, random))
        try:
            read_affinity(open_trace(path))
        except CosmaError:
            refused += 1
        path.unlink()
    assert refused > 10
