"""Protobuf wire format, just enough of it to take large payloads out of a model before it is parsed.

A model may carry gigabytes of weights; their names, types and shapes are all that planning needs. Everything
here is one pass over the bytes, without recursion, so that no file exhausts memory or the stack.
"""

from __future__ import annotations

from collections.abc import Iterator

#: Tensor payloads longer than this are left out. Operands that decide shapes are far smaller.
PAYLOAD_LIMIT_BYTES = 64 * 1024
#: Nodes shorter than this are copied whole: they cannot carry a large tensor.
_NODE_LIMIT_BYTES = PAYLOAD_LIMIT_BYTES
#: How deep messages may nest for protobuf to read them.
PROTOBUF_NESTING_LIMIT = 100

Buffer = memoryview

#: Wire types of protobuf.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
#: Numbers of fields in `onnx.proto`, by message.
_MODEL_GRAPH, _MODEL_TRAINING = 7, 20
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_SPARSE = 1, 5, 15
_NODE_ATTRIBUTE, _ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 5, 5, 6, 11
#: float_data, int32_data, string_data, int64_data, raw_data, double_data, uint64_data.
_TENSOR_PAYLOADS = frozenset({4, 5, 6, 7, 9, 10, 11})
_SPARSE_TENSORS = frozenset({1, 2})


class WireError(ValueError):
    """The bytes are not a well-formed protobuf message."""

    def __init__(self, reason: str, *, truncated: bool = False) -> None:
        super().__init__(reason)
        self.truncated = truncated


def _varint(data: Buffer, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise WireError(f"byte {at}: a number is longer than 64 bits")
    raise WireError(f"the file ends at byte {at}, inside a number", truncated=True)


def fields(data: Buffer, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Walk the fields of one message; raises WireError if a tag is malformed or a value reaches past the end.

    Yields field number, wire type, offset of the tag, and the half-open interval of the value's bytes.
    """
    at = start
    while at < end:
        tag_at = at
        tag, at = _varint(data, at, end)
        number, wire_type = tag >> 3, tag & 7
        value_at = at
        if wire_type == _BYTES:
            length, value_at = _varint(data, at, end)
            at = value_at + length
        elif wire_type == _VARINT:
            _, at = _varint(data, at, end)
        elif wire_type == _FIXED32:
            at += 4
        elif wire_type == _FIXED64:
            at += 8
        else:
            raise WireError(f"byte {tag_at}: {wire_type} is no wire type of protobuf")
        if number == 0:
            raise WireError(f"byte {tag_at}: field number 0")
        if at > end:
            raise WireError(
                f"a value that starts at byte {value_at} needs {at - value_at} bytes and {end - value_at} are left",
                truncated=True,
            )
        yield number, wire_type, tag_at, value_at, at


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _message(number: int, content: bytes) -> bytes:
    return _encode_varint(number << 3 | _BYTES) + _encode_varint(len(content)) + content


def slim_model(data: Buffer) -> bytes:
    """Copy a serialized model without the payloads of its large tensors; all else is kept byte for byte.

    Raises WireError if the bytes are not a protobuf message.
    """
    out: list[bytes] = []
    for number, wire_type, tag_at, start, end in fields(data, 0, len(data)):
        if number == _MODEL_GRAPH and wire_type == _BYTES:
            out.append(_message(number, _slim_graph(data, start, end)))
        elif number != _MODEL_TRAINING:
            out.append(bytes(data[tag_at:end]))
    return b"".join(out)


def _slim_graph(data: Buffer, start: int, end: int) -> bytes:
    out: list[bytes] = []
    kept_from = start  # runs of untouched fields are copied in one piece
    for number, wire_type, tag_at, value_at, value_end in fields(data, start, end):
        if wire_type != _BYTES or value_end - value_at <= _NODE_LIMIT_BYTES:
            continue
        if number == _GRAPH_INITIALIZER:
            content = _slim_tensor(data, value_at, value_end)
        elif number == _GRAPH_SPARSE:
            content = _slim_inside(data, value_at, value_end, _SPARSE_TENSORS)
        elif number == _GRAPH_NODE:
            content = _slim_node(data, value_at, value_end)
        else:
            continue
        out.append(bytes(data[kept_from:tag_at]))
        out.append(_message(number, content))
        kept_from = value_end
    out.append(bytes(data[kept_from:end]))
    return b"".join(out)


def _slim_node(data: Buffer, start: int, end: int) -> bytes:
    out: list[bytes] = []
    for number, wire_type, tag_at, value_at, value_end in fields(data, start, end):
        if number == _NODE_ATTRIBUTE and wire_type == _BYTES:
            out.append(_message(number, _slim_inside(data, value_at, value_end, frozenset({_ATTRIBUTE_TENSOR}))))
        else:
            out.append(bytes(data[tag_at:value_end]))
    return b"".join(out)


def _slim_inside(data: Buffer, start: int, end: int, tensors: frozenset[int]) -> bytes:
    """Copy a message whose fields ``tensors`` hold tensors, each slimmed."""
    out: list[bytes] = []
    for number, wire_type, tag_at, value_at, value_end in fields(data, start, end):
        if number in tensors and wire_type == _BYTES:
            out.append(_message(number, _slim_tensor(data, value_at, value_end)))
        else:
            out.append(bytes(data[tag_at:value_end]))
    return b"".join(out)


def _slim_tensor(data: Buffer, start: int, end: int) -> bytes:
    if end - start <= PAYLOAD_LIMIT_BYTES:
        return bytes(data[start:end])
    return b"".join(
        bytes(data[tag_at:value_end])
        for number, wire_type, tag_at, _, value_end in fields(data, start, end)
        if number not in _TENSOR_PAYLOADS or wire_type != _BYTES
    )


def nesting_depth(data: Buffer) -> int:
    """How deep the messages of a model nest along its subgraphs; the model itself counts as one.

    Raises WireError if the bytes are not a protobuf message.
    """
    deepest = 1
    # What to look into: offset, end, what kind of message, depth.
    stack: list[tuple[int, int, str, int]] = [(0, len(data), "model", 1)]
    inside = {
        ("model", _MODEL_GRAPH): "graph",
        ("graph", _GRAPH_NODE): "node",
        ("node", _NODE_ATTRIBUTE): "attribute",
        ("attribute", _ATTRIBUTE_GRAPH): "graph",
        ("attribute", _ATTRIBUTE_GRAPHS): "graph",
    }
    while stack:
        start, end, kind, depth = stack.pop()
        deepest = max(deepest, depth)
        for number, wire_type, _, value_at, value_end in fields(data, start, end):
            inner = inside.get((kind, number))
            if inner is not None and wire_type == _BYTES:
                stack.append((value_at, value_end, inner, depth + 1))
    return deepest
