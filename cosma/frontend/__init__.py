"""ONNX in: a model file becomes a tensor DAG, without its weights.

What counts as what, decided once here for every model:

- **Names.** A tensor keeps its ONNX name. An operator has its node's name, else its type and first result; repeats
  are numbered. Operators of domains other than ONNX's and ONNX Runtime's are written ``domain.Type``.
- **Views** move no data: Reshape, Flatten, Squeeze, Unsqueeze, Identity, inference-mode Dropout, Optional and
  sequences taken apart or put together; Cast, CastLike, Expand, Tile, Pad and Slice whose result is their operand;
  Transpose that moves dimensions of size 1 only; Concat, Sum, Mean, Max, Min of one operand. The result *is* the
  operand, under the name its producer gave it, also where it is a graph output.
- **Constants.** Initializers are weights however they are declared, each counted once however it is reached. What
  depends on constants alone is folded: it counts itself, or what it is computed from where that is smaller
  (:mod:`~cosma.frontend.stored`). Operands that decide an operator's layout (shapes, axes, amounts
  of padding; see :mod:`~cosma.frontend.parameters`) are no memory traffic; scalars that are data are.
- **Dead** nodes and results nobody reads are dropped; a result is dropped only if the operator may leave it out.
- **Control flow** is opaque and reads what its subgraphs capture, except that an If of known condition is the
  branch it takes, and a Loop that carries sequences through a known number of rounds is unrolled. Local functions
  are inlined.
- **Shapes** follow from the inputs, one node at a time; none is guessed, and what the model states itself must agree.
  Where rounding decides, ONNX Runtime's result is taken. A size known only at run time is planned for the most it
  can be, with a note.

One stage per module: :mod:`~cosma.frontend.reader` (bytes to message), :mod:`~cosma.frontend.nodes` (checked and
sorted), :mod:`~cosma.frontend.dims` (dynamic dimensions), :mod:`~cosma.frontend.walk` (types, views and constants,
with :mod:`~cosma.frontend.inference`), :mod:`~cosma.frontend.assemble` (the graph).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import SupportsIndex

import cosma.door as door
from cosma.errors import ModelLoadError
from cosma.frontend.loaded import LoadedModel, NodeFate, NodeRecord

__all__ = ["LoadedModel", "NodeFate", "NodeRecord", "load_onnx"]


def load_onnx(
    path: Path | str,
    *,
    dims: Mapping[str, SupportsIndex] | None = None,
    bounds: Mapping[str, SupportsIndex] | None = None,
) -> LoadedModel:
    """Read an ONNX model as a graph of operators over tensors whose sizes are all known.

    Weights are declared, not read: external data need not be there. Only a small constant on which a shape depends is
    read from the file beside the model that holds it.

    Parameters
    ----------
    path
        The ``.onnx`` file.
    dims
        Sizes of the model's dynamic dimensions, by symbol; a dimension without a name is ``input.axis``.
    bounds
        The most that results can hold whose size is known only when the model runs, by tensor, or by ``tensor.axis``
        where several axes are open. An operator that limits its own result is planned for that limit without.

    Returns
    -------
    LoadedModel
        The graph and what became of every node; the same file and dims give the same result.

    Raises
    ------
    ModelLoadError
        If the file is no ONNX model, contradicts itself, has an unbound dimension, or a shape it needs is not
        in the model and does not follow from it.
    """
    from cosma.frontend.importer import import_model

    sizes = door.counts_by_name(dims, "dims", error=ModelLoadError)
    sizes.update(door.counts_by_name(bounds, "bounds", error=ModelLoadError))
    return import_model(door.path(path, "model"), sizes)
