"""Which kernels run a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.errors import InputError
from cosma.execute.kernels import PreferredKernels

if TYPE_CHECKING:
    from cosma.execute.kernels import KernelName, Kernels
    from cosma.execute.model import Model


def make_kernels(name: KernelName | None, model: Model) -> Kernels:
    """Choose kernels by name; without one, ONNX Runtime where it has a kernel, else the reference evaluator.

    Raises SolverUnavailableError if ONNX Runtime is asked for and not installed. Raises InputError if the name is
    unknown.
    """
    from importlib.util import find_spec

    from cosma.execute.ort import OrtKernels
    from cosma.execute.reference import ReferenceKernels

    if name == "reference" or (name is None and not find_spec("onnxruntime")):
        return ReferenceKernels(model)
    if name == "onnxruntime":
        return OrtKernels(model)
    if name is not None:
        raise InputError(f"kernels are 'onnxruntime' or 'reference', not {name!r}")
    return PreferredKernels(model, OrtKernels(model), ReferenceKernels(model))
