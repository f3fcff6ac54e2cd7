"""Result types of ONNX Runtime's attention operators: the output, and the caches that grow by what is new."""

from __future__ import annotations

from cosma.frontend.contrib_calls import Call, Rule, Shape, Types
from cosma.frontend.values import TensorType


def packed_weights(weights: int, *, past: int | None, element_from: int = 0) -> Rule:
    """Attention that projects its operand: weights of query, key and value lie side by side.

    ``past`` is the position of the cache ``[2, batch, heads, length, width]``; None where the operator has none.
    Results have the element type of the operand at ``element_from``.
    """

    def rule(call: Call) -> Types:
        shape, packed = call.shape(0), call.shape(weights)
        if not shape or packed is None or len(packed) != 2:
            return None
        sizes = call.node.integers("qkv_hidden_sizes")
        if sizes is None and packed[1] % 3:
            return None
        query, _, value = sizes if sizes and len(sizes) == 3 else (packed[1] // 3,) * 3
        element = call.element(element_from)
        types = [TensorType(element, (*shape[:-1], value))]
        heads = call.integer("num_heads", 0)
        if past is None or len(shape) != 3 or heads < 1:
            return types
        before = call.shape(past)
        if before is not None and len(before) == 5:
            shared = bool(call.integer("past_present_share_buffer", 0))
            length = before[3] if shared else before[3] + shape[1]
            return [*types, TensorType(element, (*before[:3], length, before[4]))]
        return [*types, TensorType(element, (2, shape[0], heads, shape[1], query // heads))]

    return rule


def split_weights(call: Call) -> Types:
    """QOrderedAttention: weights of query, key and value are operands of their own; the value's is the eighth."""
    shape, value = call.shape(0), call.shape(7)
    if shape is None or value is None or len(value) != 2:
        return None
    return [TensorType(call.element(0), (*shape[:-1], value[1]))]


def multi_head(call: Call) -> Types:
    """``(query, key, value, ...)``: the query's length, the value's width; caches ``[batch, heads, length, width]``.

    Query, key and value may be packed: ``[batch, length, heads, 3, width]``, or key and value as ``[..., 2, width]``.
    A key of four dimensions is a cache that is read as it is (cross attention).
    """
    query, heads = call.shape(0), call.integer("num_heads", 0)
    if query is None or heads < 1 or len(query) not in (3, 5):
        return None
    batch, length = query[:2]
    widths = _widths(call, query, heads)
    if widths is None:
        return None
    key_width, value_width, new = widths
    masked = call.node.type == "DecoderMaskedMultiHeadAttention"
    past_key, past_value = (5, 6) if masked else (6, 7)
    element = call.element(0)
    cross = call.shape(1) is not None and len(call.shape(1) or ()) == 4
    total = new if cross else _total(call, past_key, new, masked=masked)
    caches = [
        TensorType(element, (batch, heads, total, (call.shape(position) or (0, 0, 0, width))[3]))
        for position, width in ((past_key, key_width), (past_value, value_width))
    ]
    return [
        TensorType(element, (batch, length, heads * value_width)), *caches,
        TensorType(element, (batch, heads, length, total)),
    ]  # fmt: skip


def _widths(call: Call, query: Shape, heads: int) -> tuple[int, int, int] | None:
    """Width of a head of the keys and of the values, and how many keys are new."""
    key, value = call.shape(1), call.shape(2)
    if len(query) == 5:
        return query[4], query[4], query[1]
    if key is None:
        # Packed [batch, 1, 3 * hidden], as the masked decoder takes it.
        return (query[2] // 3 // heads, query[2] // 3 // heads, query[1]) if query[2] % 3 == 0 else None
    if len(key) == 5:
        return key[4], key[4], key[1]
    if value is None:
        return None
    if len(key) == 4 and len(value) == 4:
        return key[3], value[3], key[2]
    if len(key) == 3 and len(value) == 3:
        return key[2] // heads, value[2] // heads, key[1]
    return None


def _total(call: Call, past: int, new: int, *, masked: bool) -> int:
    """Length of the caches behind: that of the buffer where it is shared, else what was there and what is new."""
    before = call.shape(past)
    if before is None or len(before) != 4:
        return new
    shared = bool(call.integer("past_present_share_buffer", 0)) if masked else call.has(8)
    return before[2] if shared else before[2] + new


def packed_multi_head(call: Call) -> Types:
    """Tokens without padding: ``[tokens, hidden]``, or packed ``[tokens, heads, 3, width]``."""
    query, value = call.shape(0), call.shape(2)
    if query is None:
        return None
    if len(query) == 4:
        return [TensorType(call.element(0), (query[0], query[1] * query[3]))]
    return None if value is None else [TensorType(call.element(0), (query[0], value[-1]))]


def _grouped_width(call: Call, packed: int) -> int | None:
    """Width of a head of the query; keys and values may be packed behind it."""
    heads, pairs = call.integer("num_heads", 0), call.integer("kv_num_heads", 0)
    count = heads if call.has(1) else heads + 2 * pairs
    return packed // count if count > 0 and packed % count == 0 else None


def grouped(call: Call) -> Types:
    """GroupQueryAttention: the caches have the length of the buffer, or of all there is where that is longer.

    Where the whole length is known only at run time, and there is a cache, its length behind is left open.
    """
    query, heads, pairs = call.shape(0), call.integer("num_heads", 0), call.integer("kv_num_heads", 0)
    width = None if query is None or len(query) != 3 else _grouped_width(call, query[2])
    if query is None or width is None or pairs < 1:
        return None
    total = call.numbers(6)
    before = call.shape(3)
    length: int | None = None
    if total is not None and len(total) == 1:
        length = max(total[0], before[2] if before is not None and len(before) == 4 else 0)
    elif before is None:
        length = query[1]
    caches = []
    for past, own in ((3, width), (4, width)):
        shape = call.shape(past)
        last = shape[3] if shape is not None and len(shape) == 4 else own
        caches.append(TensorType(call.element(past) or call.element(0), (query[0], pairs, length, last)))
    known = total[0] if total is not None and len(total) == 1 else None
    scores = TensorType(call.element(0), (query[0], heads, query[1], known))
    return [TensorType(call.element(0), (*query[:2], heads * width)), *caches, scores]


def sparse(call: Call) -> Types:
    """SparseAttention: the caches are buffers, updated in place."""
    query = call.shape(0)
    width = None if query is None or len(query) != 3 else _grouped_width(call, query[2])
    if query is None or width is None:
        return None
    output = TensorType(call.element(0), (*query[:2], call.integer("num_heads", 0) * width))
    return [output, call.type(3), call.type(4)]


def paged(call: Call) -> Types:
    """PagedAttention: tokens without padding; the caches are buffers, updated in place."""
    query = call.shape(0)
    width = None if query is None or len(query) != 2 else _grouped_width(call, query[1])
    if query is None or width is None:
        return None
    width = call.integer("v_head_size", 0) or width
    output = TensorType(call.element(0), (query[0], call.integer("num_heads", 0) * width))
    return [output, call.type(3), call.type(4)]


def gated_position_bias(call: Call) -> Types:
    """``[batch, heads, length, length]``; packed tokens have their offsets behind, ``[batch, length]``."""
    query, offsets, heads = call.shape(0), call.shape(6), call.integer("num_heads", 0)
    shape = offsets if offsets is not None else query[:2] if query is not None and len(query) == 3 else None
    if shape is None or len(shape) != 2 or heads < 1:
        return None
    return [TensorType(call.element(0), (shape[0], heads, shape[1], shape[1]))]


def linear(call: Call) -> Types:
    """LinearAttention: one value a head of the query or of the keys, whichever are more, and the state."""
    query, key, value = call.shape(0), call.shape(1), call.shape(2)
    heads, pairs = call.integer("q_num_heads", 0), call.integer("kv_num_heads", 0)
    if query is None or key is None or value is None or min(heads, pairs) < 1 or len(query) != 3 or len(value) != 3:
        return None
    width = value[2] // pairs
    output = TensorType(call.element(0), (*query[:2], max(heads, pairs) * width))
    if call.has(3):
        return [output, call.type(3)]
    if call.integer("state_window", 0):
        return [output]
    return [output, TensorType(call.element(0), (query[0], pairs, key[2] // pairs, width))]
