"""Files of routing in every form they are logged in, told apart by content."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cosma.errors import FormatError, InputError
from cosma.placement import survey as surveys
from cosma.placement.affinity import Affinity
from cosma.placement.synthetic import SyntheticOptions, synthetic_trace
from cosma.placement.trace_info import describe
from cosma.placement.traces import Trace, open_trace, read_affinity, survey
from tests.placement.trace_files import FORMS, csv_file, lines, responses, save


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    options = SyntheticOptions(tokens=300, layers=5, experts=12, top_k=2, clusters=3, seed=5)
    return np.asarray(synthetic_trace(options)).astype(np.int64)


@pytest.fixture(scope="module")
def wanted(tokens: np.ndarray) -> Affinity:
    return Affinity.from_tokens(tokens, 12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("container", ["lines", "array"])
def test_responses_are_read(tmp_path: Path, tokens: np.ndarray, wanted: Affinity, form: str, container: str) -> None:
    records = responses(tokens, form)
    path = lines(tmp_path, records)
    if container == "array":
        path = tmp_path / "t.json"
        path.write_text(json.dumps(records))
    shape = (5, 2) if form == "bare base64" else None
    assert (read_affinity(open_trace(path, shape=shape), 12).transitions == wanted.transitions).all()


def test_bare_base64_needs_a_shape(tmp_path: Path, tokens: np.ndarray) -> None:
    path = lines(tmp_path, responses(tokens, "bare base64"))
    with pytest.raises(InputError, match="without a shape"):
        read_affinity(open_trace(path))
    with pytest.raises(FormatError, match="no whole tokens"):
        read_affinity(open_trace(path, shape=(7, 3)))


@pytest.mark.parametrize("form", ["one choice a row", "one token a row", "no header"])
def test_csv_is_read(tmp_path: Path, tokens: np.ndarray, wanted: Affinity, form: str) -> None:
    assert (read_affinity(open_trace(csv_file(tmp_path, tokens, form)), 12).transitions == wanted.transitions).all()


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


def test_one_token_or_one_layer_of_counts_is_asked_about(tmp_path: Path) -> None:
    """A single row says nothing of itself; a key that carries routing does."""
    for row in ([[6, 5, 2, 4]], [[40, 11, 0, 7]]):
        with pytest.raises(FormatError, match="say whether it is a trace or a table of load"):
            survey(open_trace(save(tmp_path, np.array(row))))
        assert survey(open_trace(save(tmp_path, np.array(row)), kind="trace")).tokens == 1
        assert survey(open_trace(save(tmp_path, np.array(row), "load.npy"))).kind == "load"
    for name, text in (("a.json", '{"experts": [6, 5, 2, 4]}'), ("a.jsonl", '{"experts": [6, 5, 2, 4]}\n'),
                       ("b.json", '[{"experts": [6, 5, 2, 4]}]')):  # fmt: skip
        (tmp_path / name).write_text(text)
        found = survey(open_trace(tmp_path / name))
        assert (found.kind, found.tokens, found.layers) == ("trace", 1, 4)
    (tmp_path / "c.json").write_text("[[], []]")
    with pytest.raises(FormatError, match="no numbers"):
        survey(open_trace(tmp_path / "c.json"))


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


def test_kinds_are_named() -> None:
    assert set(surveys.KINDS) == {"trace", "load", "transitions"}
