"""Nodes run by ONNX's own reference evaluator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cosma.errors import CosmaError
from cosma.execute.kernels import KernelError, Kernels, write
from cosma.execute.single import single_node

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cosma.arrays import Array
    from cosma.execute.model import Model
    from cosma.frontend.nodes import Node
    from cosma.frontend.values import Value


class ReferenceKernels(Kernels):
    """ONNX's own reference evaluator: slow, readable, always there."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        import onnx

        self.name = f"onnx reference {onnx.__version__}"

    def run(self, node: Node, results: Sequence[Value], feeds: Mapping[str, Array], out: Mapping[str, Array]) -> None:
        """Run a node; see :meth:`Kernels.run`. Results are computed aside and copied to where they belong."""
        for name, array in self.evaluate(node, results, feeds).items():
            write(node, name, out[name], array)

    def evaluate(self, node: Node, results: Sequence[Value], feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run a node; see :meth:`Kernels.evaluate`."""
        from onnx.reference import ReferenceEvaluator

        evaluator = self._ready.get(id(node))
        try:
            if evaluator is None:
                evaluator = ReferenceEvaluator(single_node(self._model, node, results, feeds))
                self._ready[id(node)] = evaluator
            with np.errstate(all="ignore"):
                arrays = evaluator.run(None, {name: feeds[name] for name in evaluator.input_names})
        except (CosmaError, MemoryError):
            raise
        except Exception as error:  # its operators are Python that raises whatever comes up
            raise KernelError(node, feeds, self.name, reference_reason(error)) from error
        return dict(zip(evaluator.output_names, map(np.asarray, arrays), strict=True))


def reference_reason(error: Exception) -> str:
    """One short line from an error of the reference evaluator."""
    text = " ".join(str(error).split())[:200].rstrip(" .")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
