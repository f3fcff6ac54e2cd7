"""Multiply-accumulates against counts made by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cosma.frontend import LoadedModel

Load = Callable[..., LoadedModel]
FLOAT = 1


@pytest.mark.parametrize(
    ("node", "rank", "weights", "macs"),
    [
        ("y = Conv<pads = [1,1,1,1]>(image, w)", 4, {"w": (16, 8, 3, 3)}, 16 * 10 * 10 * 8 * 9),
        ("y = Conv<group = 8, strides = [2,2], pads = [1,1,1,1]>(image, w)", 4, {"w": (8, 1, 3, 3)}, 8 * 5 * 5 * 9),
        ("y = ConvTranspose<strides = [2,2]>(image, w)", 4, {"w": (8, 4, 2, 2)}, 8 * 10 * 10 * 4 * 4),
        ("y = Gemm<transB = 1>(m, w)", 2, {"w": (7, 6)}, 5 * 6 * 7),
        ("y = Gemm<transA = 1>(m, w)", 2, {"w": (5, 7)}, 6 * 5 * 7),
        ("y = MatMul(b, w)", 3, {"w": (4, 9)}, 2 * 3 * 4 * 9),
        ("y = MatMul(v, w)", 1, {"w": (4, 9)}, 4 * 9),
        ("y = Einsum<equation = \"bij,jk->bik\">(b, w)", 3, {"w": (4, 9)}, 2 * 3 * 4 * 9),
        ("y, h, c = LSTM<hidden_size = 5>(b, w, r)", 4, {"w": (1, 20, 4), "r": (1, 20, 5)}, 2 * 3 * 20 * (4 + 5)),
        ("y, h = GRU<hidden_size = 5>(b, w, r)", 4, {"w": (1, 15, 4), "r": (1, 15, 5)}, 2 * 3 * 15 * (4 + 5)),
        ("y, h = RNN<hidden_size = 5>(b, w, r)", 4, {"w": (1, 5, 4), "r": (1, 5, 5)}, 2 * 3 * 5 * (4 + 5)),
        ("y = Relu(m)", 2, {}, None),
    ],
)
def test_an_operator_is_counted(
    node: str, rank: int, weights: dict[str, tuple[int, ...]], macs: int | None, load_text: Load
) -> None:
    graph = f"""
        g (float[1,8,10,10] image, float[5,6] m, float[2,3,4] b, float[4] v) => (float[{",".join("?" * rank)}] z) {{
            {node}
            z = Abs(y)
        }}"""
    loaded = load_text(graph, weights={name: (FLOAT, shape) for name, shape in weights.items()})
    assert loaded.graph.operators[0].macs == macs


def test_attention_counts_scores_and_values(load_text: Load) -> None:
    loaded = load_text(
        """g (float[2,8,10,16] q, float[2,8,12,16] k, float[2,8,12,24] v) => (float[2,8,10,24] y) {
            y = Attention(q, k, v)
        }""",
        opset=23,
    )
    assert loaded.graph.operators[0].macs == 2 * 8 * 10 * 12 * (16 + 24)
    flat = load_text(
        """g (float[2,10,128] q, float[2,12,128] k, float[2,12,192] v) => (float[2,10,192] y) {
            y = Attention<q_num_heads = 8, kv_num_heads = 8>(q, k, v)
        }""",
        opset=23,
    )
    assert flat.graph.operators[0].macs == 2 * 8 * 10 * 12 * (16 + 24)
