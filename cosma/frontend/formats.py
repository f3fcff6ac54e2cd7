"""What a file is that is no ONNX model, by its first bytes, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable

#: How much of a file is looked at.
HEAD_BYTES = 4096
#: How much of a protobuf file is searched for names that only TensorFlow writes.
_SEARCHED_BYTES = 1 << 20

_TO_ONNX = "convert it with tf2onnx"
_UNPACK = "unpack it and give the .onnx file inside"

#: Offset, bytes found there, what the file is and what helps. Sources: the formats' own specifications.
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (4, b"TFL3", f"is a TensorFlow Lite model; {_TO_ONNX} (`python -m tf2onnx.convert --tflite FILE --output m.onnx`)"),
    (4, b"ORTM", "is a model in ONNX Runtime's own format (.ort); give the .onnx file it was made from"),
    (0, b"version https://git-lfs.github.com/spec/",
     "is a Git LFS pointer, not the model it points to; fetch the model with `git lfs pull`"),
    (0, b"PK\x03\x04",
     "is a zip archive, as torch.save (.pt, .pth) and Keras (.keras) write, not an ONNX protobuf file; export a "
     "PyTorch model with torch.onnx.export, convert a Keras model with tf2onnx, unpack any other archive"),
    (0, b"PK\x05\x06", "is an empty zip archive"),
    (0, b"\x89HDF\r\n\x1a\n", f"is an HDF5 file, as Keras writes (.h5); {_TO_ONNX}"),
    (0, b"GGUF", "is a GGUF file: weights without a graph; export the network itself as ONNX"),
    (0, b"\x1f\x8b", f"is a gzip archive; {_UNPACK}"),
    (0, b"\xfd7zXZ\x00", f"is an xz archive; {_UNPACK}"),
    (0, b"BZh", f"is a bzip2 archive; {_UNPACK}"),
    (0, b"\x28\xb5\x2f\xfd", f"is a zstd archive; {_UNPACK}"),
    (0, b"7z\xbc\xaf\x27\x1c", f"is a 7z archive; {_UNPACK}"),
    (257, b"ustar", f"is a tar archive; {_UNPACK}"),
    (0, b"\x93NUMPY", "is a NumPy array, not a model"),
    (0, b"ftrt", "is a TensorRT engine; give the .onnx file it was built from"),
    (0, b"%PDF", "is a PDF document, not a model"),
)  # fmt: skip


def what_it_is(data: memoryview) -> str | None:
    """Name a file that is certainly no ONNX model and say what to do; None where its first bytes say nothing."""
    head = bytes(data[:HEAD_BYTES])
    for offset, magic, meaning in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return meaning
    return next((found for test in _TESTS if (found := test(head, data)) is not None), None)


def _pickle(head: bytes, data: memoryview) -> str | None:
    """Protocol 2 and later start with 0x80 and the protocol; no field of a model has that tag."""
    if len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return "is a Python pickle, as older torch.save writes; export the model with torch.onnx.export"
    return None


def _safetensors(head: bytes, data: memoryview) -> str | None:
    """The length of a JSON header, then the header."""
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= len(data) - 8:
        return "is a safetensors file: weights without a graph; export the network itself as ONNX"
    return None


def _text(head: bytes, data: memoryview) -> str | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    start = text[:64].lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "is a web page, not the file behind it; download the file itself (the raw link)"
    if start.startswith((b"<?xml", b"<net ")):
        if b"<net " in text:
            return "is an OpenVINO network (.xml); give the .onnx file it was made from"
        return "is XML, not an ONNX protobuf file"
    if text[:1] == b"<" and b"ir_version" in text:
        return "is ONNX's text form; write it as protobuf (onnx.parser.parse_model, onnx.save)"
    if text[:1] in (b"{", b"[") and _printable(head):
        return "is JSON, not an ONNX protobuf file; a graph in JSON must be named .json"
    return None


def _zeros(head: bytes, data: memoryview) -> str | None:
    if head and not any(head):
        return "starts with zero bytes only: it was not written whole; fetch or export it again"
    return None


def _tensorflow(head: bytes, data: memoryview) -> str | None:
    """A SavedModel starts with its version and a meta graph; a GraphDef with a node of a name and an operator."""
    searched = bytes(data[:_SEARCHED_BYTES])
    saved = head[:3] == b"\x08\x01\x12" and any(
        name in searched for name in (b"serving_default", b"StatefulPartitionedCall", b"VarHandleOp", b"saved_model")
    )
    if saved:
        return f"is a TensorFlow SavedModel; {_TO_ONNX} (`--saved-model FOLDER --output m.onnx`)"
    if head[:1] == b"\x0a" and _is_graph_node(head):
        return f"is a TensorFlow graph (GraphDef); {_TO_ONNX} (`--graphdef FILE`)"
    return None


def _is_graph_node(head: bytes) -> bool:
    """Whether the first field holds a message whose fields 1 and 2 are short words."""
    at = 1
    while at < len(head) and head[at] & 0x80:
        at += 1
    at += 1
    for tag in (0x0A, 0x12):
        if at + 1 >= len(head) or head[at] != tag:
            return False
        length = head[at + 1]
        word = head[at + 2 : at + 2 + length]
        if not 0 < length < 128 or len(word) < length or not _printable(word):
            return False
        at += 2 + length
    return word[:1].isupper() or word[:1] == b"_"


def _printable(text: bytes) -> bool:
    return all(byte in b"\t\n\r" or 0x20 <= byte < 0x7F for byte in text)


_TESTS: tuple[Callable[[bytes, memoryview], str | None], ...] = (_pickle, _safetensors, _text, _zeros, _tensorflow)
