from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from cosma.errors import FormatError, InputError
from cosma.placement.affinity import Affinity
from cosma.placement.traces import open_trace, read_affinity


def count_by_hand(tokens: np.ndarray, experts: int) -> np.ndarray:
    counts = np.zeros((tokens.shape[1] - 1, experts, experts), dtype=int)
    for token in tokens:
        for layer in range(tokens.shape[1] - 1):
            for i, j in product(np.atleast_1d(token[layer]), np.atleast_1d(token[layer + 1])):
                counts[layer, i, j] += 1
    return counts


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_counts_every_pair_once(top_k: int) -> None:
    random = np.random.default_rng(top_k)
    tokens = random.random((50, 4, 6)).argsort(axis=2)[:, :, :top_k]
    tokens = tokens[:, :, 0] if top_k == 1 else tokens
    affinity = Affinity.from_tokens(tokens, 6)
    assert (affinity.transitions == count_by_hand(tokens, 6)).all()
    assert affinity.steps == 50 * 3 * top_k**2
    assert affinity.load.sum() == 50 * 4 * top_k
    if top_k > 1:
        assert affinity.coactivation is not None
        assert affinity.coactivation.sum() == 50 * 4 * top_k * (top_k - 1)
        assert (affinity.coactivation == affinity.coactivation.transpose(0, 2, 1)).all()
    else:
        assert affinity.coactivation is None


def test_chunks_make_no_difference(small_tokens: np.ndarray) -> None:
    whole = Affinity.from_tokens(small_tokens, 6)
    parts = Affinity.from_chunks([small_tokens[:7], small_tokens[7:300], small_tokens[300:]], 6)
    assert (whole.transitions == parts.transitions).all()
    assert whole.tokens == parts.tokens == 400
    merged = Affinity.from_tokens(small_tokens[:100], 6).merged(Affinity.from_tokens(small_tokens[100:], 6))
    assert (merged.transitions == whole.transitions).all()


@pytest.mark.parametrize(
    ("tokens", "experts", "message"),
    [
        (np.zeros((0, 3), dtype=int), 4, "no tokens"),
        (np.zeros((5, 1), dtype=int), 4, "1 layer"),
        (np.zeros((5, 3)), 4, "float64"),
        (np.full((5, 3), 7), 4, "token 0, layer 0 names expert 7"),
        (np.array([[0, 1], [2, -2]]), 4, "token 1, layer 1 names expert -2"),
        (np.zeros((5, 3, 2), dtype=int), 4, "one expert twice"),
    ],
)
def test_bad_tokens_are_refused(tokens: np.ndarray, experts: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Affinity.from_chunks([tokens], experts)


def test_ragged_chunks_are_refused() -> None:
    with pytest.raises(InputError, match="token 2 has shape"):
        Affinity.from_chunks([np.zeros((2, 3), dtype=int), np.zeros((2, 4), dtype=int)], 2)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.zeros((2, 3, 4)), "shape"),
        (np.full((2, 3, 3), -1.0), "not negative"),
        (np.full((2, 3, 3), 0.5), "whole number"),
        (np.zeros((2, 3, 3)), "all zero"),
        (np.full((2, 3, 3), np.nan), "whole number"),
    ],
)
def test_bad_counts_are_refused(counts: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Affinity.from_counts(counts)


@pytest.mark.parametrize("form", ["npy", "npy-fortran", "npz", "jsonl", "jsonl-requests", "counts"])
def test_all_files_give_the_same_counts(tmp_path: Path, small_tokens: np.ndarray, small: Affinity, form: str) -> None:
    array = None
    if form == "npy":
        path = tmp_path / "t.npy"
        np.save(path, small_tokens)
    elif form == "npy-fortran":
        path = tmp_path / "t.npy"
        np.save(path, np.asfortranarray(small_tokens))
    elif form == "npz":
        path = tmp_path / "t.npz"
        np.savez(path, other=small_tokens[:3], profile=small_tokens, meta=np.array(json.dumps({"experts": 6})))
    elif form == "jsonl":
        path = tmp_path / "t.jsonl"
        path.write_text("\n".join(json.dumps(row.tolist()) for row in small_tokens))
    elif form == "jsonl-requests":
        path = tmp_path / "t.jsonl"
        rows = small_tokens[:, :, None].tolist()
        path.write_text("\n".join(json.dumps({"id": i, "routed_experts": rows[i : i + 50]}) for i in range(0, 400, 50)))
    else:
        path = tmp_path / "t_counts.npy"
        np.save(path, small.transitions)
    read = read_affinity(open_trace(path, array))
    assert (read.transitions == small.transitions).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[0, 1]\nnot json\n", "line 2: not JSON"),
        ("[0, 1]\n[0, 1, 2]\n", "ragged"),
        ('{"tokens": [1]}\n', "none of the keys"),
        ("[0.5, 1]\n", "whole expert ids"),
        ("3\n", "0 levels of lists"),
        ("", "no tokens"),
    ],
)
def test_bad_json_lines_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_affinity(open_trace(path))


def test_bad_files_are_refused(tmp_path: Path, small_tokens: np.ndarray) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_trace(tmp_path / "none.npy")
    (tmp_path / "a.npz").write_bytes(b"junk")
    with pytest.raises(FormatError, match="archive"):
        open_trace(tmp_path / "a.npz")
    np.savez(tmp_path / "two.npz", a=small_tokens, b=small_tokens)
    with pytest.raises(InputError, match="choose the array"):
        open_trace(tmp_path / "two.npz")
    with pytest.raises(InputError, match="holds a, b"):
        open_trace(tmp_path / "two.npz", "c")
    np.save(tmp_path / "cut.npy", small_tokens)
    data = (tmp_path / "cut.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(data[:-100])
    with pytest.raises(FormatError, match="cut short"):
        read_affinity(open_trace(tmp_path / "cut.npy"))
    (tmp_path / "t.parquet").write_text("1")
    with pytest.raises(InputError, match="unknown kind"):
        open_trace(tmp_path / "t.parquet")
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(FormatError, match="Python objects"):
        read_affinity(open_trace(tmp_path / "o.npy"))


def test_split_covers_the_trace(tmp_path: Path, small_tokens: np.ndarray, small: Affinity) -> None:
    np.save(tmp_path / "t.npy", small_tokens)
    first, rest = open_trace(tmp_path / "t.npy").split(0.25)
    assert (first.tokens(), rest.tokens()) == (300, 100)
    both = read_affinity(first, 6).merged(read_affinity(rest, 6))
    assert (both.transitions == small.transitions).all()
    with pytest.raises(InputError, match="leaves one part empty"):
        open_trace(tmp_path / "t.npy").split(1.0)
