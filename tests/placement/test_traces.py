"""Files of routing in every form they are logged in, told apart by content, and refused where they are damaged."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosma.errors import CosmaError, FormatError, InputError
from cosma.placement import survey as surveys
from cosma.placement.affinity import Affinity
from cosma.placement.synthetic import SyntheticOptions, synthetic_trace
from cosma.placement.trace_info import describe
from cosma.placement.traces import Trace, open_trace, read_affinity, survey


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    options = SyntheticOptions(tokens=300, layers=5, experts=12, top_k=2, clusters=3, seed=5)
    return np.asarray(synthetic_trace(options)).astype(np.int64)


@pytest.fixture(scope="module")
def wanted(tokens: np.ndarray) -> Affinity:
    return Affinity.from_tokens(tokens, 12)


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def save(folder: Path, array: np.ndarray, name: str = "t.npy") -> Path:
    np.save(folder / name, array)
    return folder / name


def lines(folder: Path, records: list[Any], name: str = "t.jsonl") -> Path:
    (folder / name).write_text("\n".join(json.dumps(record) for record in records))
    return folder / name


def text_of(array: np.ndarray) -> str:
    return base64.b64encode(npy(array)).decode()


def _responses(tokens: np.ndarray, form: str) -> list[Any]:
    parts = [tokens[i : i + 50] for i in range(0, len(tokens), 50)]
    if form == "choices":
        return [{"id": i, "choices": [{"routed_experts": part.tolist()}]} for i, part in enumerate(parts)]
    if form == "prompt and choices":
        return [
            {"prompt_routed_experts": part[:20].tolist(), "choices": [{"routed_experts": part[20:].tolist()}]}
            for part in parts
        ]
    if form == "base64 npy":
        return [{"choices": [{"routed_experts": text_of(part.astype(np.uint8))}]} for part in parts]
    if form == "base64 with shape":
        return [
            {"routed_experts": {
                "data": base64.b64encode(part.astype(np.int16).tobytes()).decode(), "dtype": "int16",
                "shape": list(part.shape),
            }}
            for part in parts
        ]  # fmt: skip
    if form == "bare base64":
        return [
            {"meta_info": {"routed_experts": base64.b64encode(part.astype(np.int32).tobytes()).decode()}}
            for part in parts
        ]
    assert form == "batch file"
    return [{"custom_id": "a", "response": {"body": {"choices": [{"routed_experts": p.tolist()}]}}} for p in parts]


FORMS = ["choices", "prompt and choices", "base64 npy", "base64 with shape", "bare base64", "batch file"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("container", ["lines", "array"])
def test_responses_are_read(tmp_path: Path, tokens: np.ndarray, wanted: Affinity, form: str, container: str) -> None:
    records = _responses(tokens, form)
    path = lines(tmp_path, records)
    if container == "array":
        path = tmp_path / "t.json"
        path.write_text(json.dumps(records))
    shape = (5, 2) if form == "bare base64" else None
    assert (read_affinity(open_trace(path, shape=shape), 12).transitions == wanted.transitions).all()


def test_bare_base64_needs_a_shape(tmp_path: Path, tokens: np.ndarray) -> None:
    path = lines(tmp_path, _responses(tokens, "bare base64"))
    with pytest.raises(InputError, match="without a shape"):
        read_affinity(open_trace(path))
    with pytest.raises(FormatError, match="no whole tokens"):
        read_affinity(open_trace(path, shape=(7, 3)))


def _csv(folder: Path, tokens: np.ndarray, form: str) -> Path:
    path = folder / "t.csv"
    if form == "one choice a row":
        rows = [
            f"{t},{layer},{e}" for t, row in enumerate(tokens) for layer, chosen in enumerate(row) for e in chosen
        ]
        path.write_text("token_id,layer_id,expert_id\n" + "\n".join(rows) + "\n")
    elif form == "one token a row":
        header = ",".join(f"layer_{layer}" for layer in range(tokens.shape[1]))
        path.write_text(header + "\n" + "\n".join(",".join(f"{a} {b}" for a, b in row) for row in tokens) + "\n")
    else:
        path.write_text("\n".join(";".join(f"[{a}, {b}]" for a, b in row) for row in tokens) + "\n")
    return path


@pytest.mark.parametrize("form", ["one choice a row", "one token a row", "no header"])
def test_csv_is_read(tmp_path: Path, tokens: np.ndarray, wanted: Affinity, form: str) -> None:
    assert (read_affinity(open_trace(_csv(tmp_path, tokens, form)), 12).transitions == wanted.transitions).all()


def test_one_json_array_is_read(tmp_path: Path, tokens: np.ndarray, wanted: Affinity) -> None:
    (tmp_path / "t.json").write_text(json.dumps(tokens.tolist()))
    assert (read_affinity(open_trace(tmp_path / "t.json"), 12).transitions == wanted.transitions).all()
    (tmp_path / "u.json").write_text(json.dumps(tokens[:, :, 0].tolist(), indent=1))
    assert survey(open_trace(tmp_path / "u.json")).tokens == 300


def by_hand(tokens: list[list[list[int]]], layers: int, experts: int) -> np.ndarray:
    counts = np.zeros((layers - 1, experts, experts), dtype=int)
    for token in tokens:
        for layer in range(layers - 1):
            for one in token[layer]:
                for other in token[layer + 1]:
                    counts[layer, one, other] += 1
    return counts


@pytest.mark.parametrize("form", ["jsonl", "npy padded", "npy padded first", "csv"])
def test_tokens_may_use_different_numbers_of_experts(tmp_path: Path, tokens: np.ndarray, form: str) -> None:
    ragged = [
        [list(chosen[: 1 + (t + layer) % 2]) for layer, chosen in enumerate(row)]
        for t, row in enumerate(tokens.tolist())
    ]
    ragged[7][2] = []
    padded = np.full(tokens.shape, -1)
    for t, row in enumerate(ragged):
        for layer, chosen in enumerate(row):
            padded[t, layer, : len(chosen)] = chosen
    if form == "jsonl":
        path = lines(tmp_path, [{"topk_ids": row} for row in ragged])
    elif form == "csv":
        path = tmp_path / "t.csv"
        path.write_text("\n".join(",".join(" ".join(map(str, c)) for c in row) for row in ragged) + "\n")
    else:
        path = save(tmp_path, padded if form == "npy padded" else padded[:, :, ::-1])
    found = survey(open_trace(path))
    assert (found.kind, found.least_k, found.top_k) == ("trace", 1, 2)
    read = read_affinity(open_trace(path), 12)
    assert (read.transitions == by_hand(ragged, 5, 12)).all()
    assert read.load.sum() == sum(len(chosen) for row in ragged for chosen in row)


@pytest.mark.parametrize("filler", [-1, 0])
def test_dense_layers_are_found_and_left_out(tmp_path: Path, tokens: np.ndarray, filler: int) -> None:
    logged = np.concatenate([np.full((300, 1, 2), filler), tokens, np.full((300, 1, 2), filler)], axis=1)
    trace = open_trace(save(tmp_path, logged))
    found = survey(trace)
    assert (found.layers, found.dense, found.layer_ids) == (5, (0, 6), (1, 2, 3, 4, 5))
    assert (np.concatenate(list(trace.chunks(70))) == tokens).all()
    first, rest = trace.split(0.5)
    assert sum(len(chunk) for part in (first, rest) for chunk in part.chunks()) == 300


def test_declared_dense_layers(tmp_path: Path, tokens: np.ndarray) -> None:
    one = tokens[:, :, 0]
    logged = np.concatenate([np.zeros((300, 1), dtype=int), one], axis=1)
    path = save(tmp_path, logged)
    assert survey(open_trace(path)).dense == ()
    assert "declare" in survey(open_trace(path)).notes[0]
    assert survey(open_trace(path, dense=[0])).layer_ids == (1, 2, 3, 4, 5)
    # A trace that leaves dense layers out keeps all of its own.
    short = open_trace(save(tmp_path, one, "short.npy"), dense=[0])
    assert survey(short).layers == 5
    assert "model's" in survey(short).notes[0]
    with pytest.raises(InputError, match="layer 3 is declared dense, but tokens use different experts"):
        survey(open_trace(path, dense=[0, 3]))
    with pytest.raises(InputError, match="layers 0 to 5"):
        survey(open_trace(path, dense=[0, 9]))


def test_unsigned_padding_is_no_expert(tmp_path: Path, tokens: np.ndarray) -> None:
    logged = tokens.astype(np.uint16)
    logged[5, 1, 1] = np.iinfo(np.uint16).max
    assert survey(open_trace(save(tmp_path, logged))).absent == 1


@pytest.mark.parametrize("form", ["npy", "npy named", "steps", "csv", "csv steps", "json", "sglang", "floats"])
def test_counts_are_load_and_never_a_trace(tmp_path: Path, wanted: Affinity, form: str) -> None:
    load = wanted.load
    if form in {"npy", "npy named"}:
        path = save(tmp_path, load, "expert_load.npy" if form == "npy named" else "x.npy")
    elif form == "steps":
        thirds = load // 3
        path = save(tmp_path, np.stack([thirds, thirds, load - 2 * thirds]))
    elif form == "floats":
        path = save(tmp_path, load / 7.0)
    elif form in {"csv", "csv steps"}:
        rows = [f"{layer},{e},{load[layer, e]}" for layer in range(5) for e in range(12)]
        if form == "csv steps":
            rows = [f"{layer},{e},{part}" for layer in range(5) for e in range(12)
                    for part in (load[layer, e] // 2, load[layer, e] - load[layer, e] // 2)]  # fmt: skip
        path = tmp_path / "x.csv"
        path.write_text("layer_id,expert_id,count\n" + "\n".join(rows) + "\n")
    else:
        path = tmp_path / "x.json"
        path.write_text(json.dumps({"logical_count": load[None].tolist() if form == "sglang" else load.tolist()}))
    trace = open_trace(path)
    assert survey(trace).kind in {"load", "load by step"}
    read = read_affinity(trace)
    assert not read.has_affinity
    if form == "floats":
        assert np.allclose(read.load / read.load.sum(), load / load.sum(), atol=1e-5)
    else:
        assert (read.load == load).all()
    with pytest.raises(InputError, match="no single tokens"):
        list(trace.chunks())
    with pytest.raises(InputError, match="held out"):
        read_affinity(Trace(path, first=0, last=2))


def kind_or_question(path: Path) -> str:
    """Return the kind of a file, or that the user is asked for it."""
    try:
        return survey(open_trace(path)).kind
    except FormatError as error:
        if "say whether it is" not in str(error):
            raise
        return "asked"


@pytest.mark.parametrize("experts", [8, 16, 64, 256])
@pytest.mark.parametrize("top_k", [1, 2, 8])
@pytest.mark.parametrize("count", [40, 300, 3000])
def test_traces_and_their_counts_are_told_apart(tmp_path: Path, experts: int, top_k: int, count: int) -> None:
    if top_k >= experts:
        pytest.skip("a token cannot use that many")
    options = SyntheticOptions(
        tokens=count, layers=6, experts=experts, top_k=top_k, clusters=2, skew=2.0, affinity=0.6, seed=experts + top_k
    )
    tokens = np.asarray(synthetic_trace(options)).astype(np.int64)
    affinity = Affinity.from_tokens(tokens, experts)
    # Fewer tokens than experts say nothing; no more than that may be asked about.
    found = kind_or_question(save(tmp_path, tokens))
    assert found == "trace" or (found == "asked" and count < experts)
    steps = np.stack([Affinity.from_tokens(part, experts).load for part in np.array_split(tokens, 4)])
    for name, table, kinds in (
        ("a", affinity.load, {"load"}),
        ("b", steps, {"load by step"}),
        ("c", affinity.transitions, {"transitions"}),
    ):
        # Few tokens over many experts leave counts as small as ids; those are asked about, never guessed.
        assert kind_or_question(save(tmp_path, table, f"{name}.npy")) in {*kinds, "asked"}
        if name != "c":
            assert survey(open_trace(tmp_path / f"{name}.npy", kind="load")).kind in kinds


def test_what_can_be_both_is_asked_about(tmp_path: Path) -> None:
    table = np.random.default_rng(1).integers(0, 200, (20, 16))
    path = save(tmp_path, table)
    with pytest.raises(FormatError, match="say whether it is a trace or a table of load"):
        survey(open_trace(path))
    assert survey(open_trace(path, kind="load")).kind == "load"
    assert survey(open_trace(path, kind="trace")).kind == "trace"
    with pytest.raises(InputError, match="expected one of"):
        open_trace(path, kind="nonsense")


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


def test_windows_cover_the_trace(tmp_path: Path, tokens: np.ndarray, wanted: Affinity) -> None:
    windows = open_trace(save(tmp_path, tokens)).windows(7)
    assert sum(window.tokens() for window in windows) == 300
    total = read_affinity(windows[0], 12)
    for window in windows[1:]:
        total = total.merged(read_affinity(window, 12))
    assert (total.transitions == wanted.transitions).all()
    with pytest.raises(InputError, match="windows"):
        windows[0].windows(1000)


def test_info_says_what_is_there(tmp_path: Path, tokens: np.ndarray, wanted: Affinity) -> None:
    info = describe(open_trace(save(tmp_path, tokens)))
    assert (info.kind, info.layers, info.experts, info.top_k, info.tokens) == ("trace", 5, 12, 2, 300)
    assert info.visits == 3000
    assert info.expert_imbalance == pytest.approx(float((wanted.load.max(axis=1) / wanted.load.mean(axis=1)).mean()))
    again = np.repeat(np.random.default_rng(0).integers(0, 9, (600, 1)), 4, axis=1)
    assert describe(open_trace(save(tmp_path, again, "s.npy"))).affinity == pytest.approx(1.0)
    alone = np.random.default_rng(0).integers(0, 4, (20000, 4))
    found = describe(open_trace(save(tmp_path, alone, "i.npy"))).affinity
    assert found is not None
    assert found < 0.01
    assert describe(open_trace(save(tmp_path, wanted.load, "l.npy"))).affinity is None


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
        data, name = lines(tmp_path, _responses(small, "base64 npy")).read_bytes(), "t.jsonl"
    elif form == "json":
        data, name = json.dumps(small.tolist()).encode(), "t.json"
    elif form == "csv":
        data, name = _csv(tmp_path, small, "one choice a row").read_bytes(), "t.csv"
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


def test_kinds_are_named() -> None:
    assert set(surveys.KINDS) == {"trace", "load", "transitions"}
