"""Constants kept in files beside the model: where they lie, and the content of small ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cosma.errors import ModelLoadError
from cosma.files import open_regular
from cosma.frontend.values import dtype_name
from cosma.graph.dtypes import size_of

if TYPE_CHECKING:
    from onnx import TensorProto

    from cosma.frontend.values import Array


def external_file(tensor: TensorProto, model: Path) -> Path:
    """The file that holds a constant's content; it need not be there.

    Raises ModelLoadError if it is not in the model's folder or below: a model must not make anyone read other files.
    Where the model's file is a link, the folder it leads to is the model's too: downloads are kept so, all under links
    to one store.
    """
    folder = model.parent
    location = _entry(tensor, "location")
    if not location:
        raise ModelLoadError(f"constant {tensor.name!r} is kept in another file, and the model does not say in which")
    file = folder / location
    try:
        real = file.resolve()
        inside = any(real.is_relative_to(home) for home in (folder.resolve(), model.resolve().parent))
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelLoadError(f"constant {tensor.name!r}: {location!r} cannot be the name of a file: {error}") from error
    if Path(location).is_absolute() or not inside:
        raise ModelLoadError(
            f"constant {tensor.name!r} names the file {location!r}, which is outside the model's folder; it is not read"
        )
    return file


def external_array(tensor: TensorProto, model: Path) -> Array:
    """Content of a constant in a file beside the model.

    Raises ModelLoadError if the file is not there or does not hold it; the message names it.
    """
    from onnx import TensorProto, numpy_helper

    file = external_file(tensor, model)
    needed = size_of(tuple(tensor.dims), dtype_name(tensor.data_type))
    offset, length = _number(tensor, "offset", 0), _number(tensor, "length", needed)
    if length != needed:
        raise ModelLoadError(
            f"constant {tensor.name!r} has {needed} bytes by its type and shape, and {length} in {file.name!r}"
        )
    with open_regular(file, f"file of constant {tensor.name!r}", ModelLoadError) as stream:
        size = os.fstat(stream.fileno()).st_size
        if offset + length > size:
            raise ModelLoadError(
                f"constant {tensor.name!r} ends at byte {offset + length} of {file}, which has {size} bytes"
            )
        stream.seek(offset)
        content = stream.read(length)
    whole = TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=content)
    try:
        return numpy_helper.to_array(whole)
    except (ValueError, TypeError, KeyError) as error:
        raise ModelLoadError(f"constant {tensor.name!r}: {file} does not hold it: {error}") from error


def _entry(tensor: TensorProto, key: str) -> str:
    return next((str(entry.value) for entry in tensor.external_data if entry.key == key), "")


def _number(tensor: TensorProto, key: str, default: int) -> int:
    text = _entry(tensor, key)
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ModelLoadError(f"constant {tensor.name!r}: its {key} {text!r} is no number of bytes")
    return int(text)
