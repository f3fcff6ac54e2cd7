"""ONNX in: a model file becomes a tensor DAG, without its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cosma.frontend.loaded import LoadedModel, NodeFate, NodeRecord

__all__ = ["LoadedModel", "NodeFate", "NodeRecord", "load_onnx"]


def load_onnx(path: Path | str, *, dims: Mapping[str, int] | None = None) -> LoadedModel:
    """Read an ONNX model as a graph of operators over tensors whose sizes are all known.

    Weights are declared, never read: external data need not be there and is not looked for.

    Parameters
    ----------
    path
        The ``.onnx`` file.
    dims
        Sizes of the model's dynamic dimensions, by symbol; a dimension without a name is ``input.axis``.

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

    return import_model(Path(path), dict(dims or {}))
