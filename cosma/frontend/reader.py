"""From a path to a parsed model: no weight is read into memory and no other file is opened."""

from __future__ import annotations

import hashlib
import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cosma.errors import ModelLoadError
from cosma.files import open_regular
from cosma.frontend.formats import what_it_is
from cosma.frontend.wire import PROTOBUF_NESTING_LIMIT, WireError, nesting_depth, slim_model

if TYPE_CHECKING:
    from onnx import ModelProto

#: Longest message that protobuf reads.
_PROTOBUF_LIMIT_BYTES = 2**31 - 1


def read_model(path: Path) -> tuple[ModelProto, str]:
    """Parse an ONNX file without its large tensors.

    Initializers kept in other files are left there: those files are neither looked for nor opened. Raises
    ModelLoadError if the file cannot be read or holds no ONNX model. Returns the model, in which tensors above 64 KiB
    have a type and a shape but no content, and the SHA-256 of the file.
    """
    if (path / "saved_model.pb").is_file():
        raise ModelLoadError(f"model {path}: is the folder of a TensorFlow SavedModel; convert it with tf2onnx")
    try:
        with open_regular(path, "model", ModelLoadError) as stream:
            if os.fstat(stream.fileno()).st_size == 0:
                raise ModelLoadError(f"model {path}: the file is empty")
            with (
                mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
                memoryview(mapped) as view,
            ):
                return _parse(view, path), hashlib.sha256(view).hexdigest()
    except OSError as error:
        raise ModelLoadError(f"model {path}: cannot be read: {error.strerror or error}") from error


def _parse(data: memoryview, path: Path) -> ModelProto:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import ModelProto

    if not len(data):
        raise ModelLoadError(f"model {path}: the file is empty")
    other = what_it_is(data)
    if other is not None:
        raise ModelLoadError(f"model {path}: {other}")
    try:
        slim = slim_model(data)
    except WireError as error:
        raise ModelLoadError(f"model {path}: {_why_not(data, error)}") from error
    if len(slim) > _PROTOBUF_LIMIT_BYTES:
        raise ModelLoadError(
            f"model {path}: {len(slim)} bytes are left without the weights, and protobuf reads at most 2 GiB"
        )
    model = ModelProto()
    try:
        model.ParseFromString(slim)
    except DecodeError as error:
        raise ModelLoadError(f"model {path}: {_why_undecodable(memoryview(slim))}") from error
    if not model.HasField("graph"):
        raise ModelLoadError(f"model {path}: is not an ONNX model: it holds no graph")
    return model


def _why_not(data: memoryview, error: WireError) -> str:
    head = bytes(data[:256])
    if all(byte in b"\t\n\r" or 0x20 <= byte < 0x7F for byte in head):
        return "is plain text, not an ONNX protobuf file"
    if error.truncated:
        return f"is truncated or no ONNX protobuf file: {error}; fetch or export it again"
    return f"is not an ONNX protobuf file: {error}"


def _why_undecodable(data: memoryview) -> str:
    try:
        depth = nesting_depth(data)
    except WireError as error:
        return f"is truncated or damaged: {error}; fetch or export it again"
    if depth > PROTOBUF_NESTING_LIMIT:
        return (
            f"its subgraphs (If, Loop, Scan) nest {depth // 3} deep, {depth} messages, and protobuf reads "
            f"{PROTOBUF_NESTING_LIMIT} levels; flatten the nested control flow before exporting"
        )
    return "is not an ONNX protobuf file: its content does not decode"


