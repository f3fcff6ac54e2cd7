"""Nodes, and whole models, run by ONNX Runtime."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from cosma.errors import SolverUnavailableError
from cosma.execute.elements import bits_of, is_numpy_type
from cosma.execute.exact import with_unsigned_weights
from cosma.execute.kernels import KernelError, Kernels, ResultMismatchError, write
from cosma.execute.single import single_node

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cosma.arrays import Array
    from cosma.execute.model import Model
    from cosma.frontend.nodes import Node
    from cosma.frontend.values import Value


class OrtKernels(Kernels):
    """ONNX Runtime, one thread, no graph optimisation; operands and results stay where they lie."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self._ort = import_ort()
        self.name = f"onnxruntime {self._ort.__version__}"
        self._options = session_options(self._ort)
        self._errors = ort_errors()

    def _session(self, node: Node, results: Sequence[Value], feeds: Mapping[str, Array]) -> Any:
        session = self._ready.get(id(node))
        if session is None:
            proto = single_node(self._model, node, results, feeds)
            elements = {name: _element(array) for name, array in feeds.items()}
            nodes = list(with_unsigned_weights(proto.graph.node, elements.get))
            del proto.graph.node[:]
            proto.graph.node.extend(nodes)
            try:
                session = self._ort.InferenceSession(
                    proto.SerializeToString(), self._options, providers=["CPUExecutionProvider"]
                )
            except self._errors as error:
                raise KernelError(node, feeds, self.name, plain_reason(error)) from error
            self._ready[id(node)] = session
        return session

    def run(self, node: Node, results: Sequence[Value], feeds: Mapping[str, Array], out: Mapping[str, Array]) -> None:
        """Run a node; see :meth:`Kernels.run`."""
        types = {id(array): _element(array) for array in (*feeds.values(), *out.values())}
        if any(bits_of(element) < 8 for element in types.values()):
            raise KernelError(node, feeds, self.name, "it takes no packed elements from Python")
        session = self._session(node, results, feeds)
        wanted = {entry.name: feeds[entry.name] for entry in session.get_inputs()}
        made = [entry.name for entry in session.get_outputs()]
        try:
            if all(array.size for array in wanted.values()) and all(out[name].size for name in made):
                self._run_bound(session, wanted, {name: out[name] for name in made}, types)
                return
            arrays = session.run(made, wanted)
        except self._errors as error:
            self._check_shapes(node, session, wanted, out, types)
            raise KernelError(node, feeds, self.name, plain_reason(error)) from error
        for name, array in zip(made, arrays, strict=True):
            write(node, name, out[name], array)

    def evaluate(self, node: Node, results: Sequence[Value], feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run a node; see :meth:`Kernels.evaluate`."""
        if not all(is_numpy_type(array.dtype) for array in feeds.values()):
            raise KernelError(node, feeds, self.name, "it takes no such elements from Python")
        session = self._session(node, results, feeds)
        made = [entry.name for entry in session.get_outputs()]
        try:
            arrays = session.run(made, {entry.name: feeds[entry.name] for entry in session.get_inputs()})
        except self._errors as error:
            raise KernelError(node, feeds, self.name, plain_reason(error)) from error
        return dict(zip(made, map(np.asarray, arrays), strict=True))

    def _run_bound(
        self, session: Any, feeds: Mapping[str, Array], out: Mapping[str, Array], types: Mapping[int, int]
    ) -> None:
        binding = session.io_binding()
        for name, array in feeds.items():
            kind = array.dtype if is_numpy_type(array.dtype) else types[id(array)]
            binding.bind_input(name, "cpu", 0, kind, array.shape, array.ctypes.data)
        for name, array in out.items():
            kind = array.dtype if is_numpy_type(array.dtype) else types[id(array)]
            binding.bind_output(name, "cpu", 0, kind, array.shape, array.ctypes.data)
        session.run_with_iobinding(binding)

    def _check_shapes(
        self, node: Node, session: Any, feeds: Mapping[str, Array], out: Mapping[str, Array], types: Mapping[int, int]
    ) -> None:
        """Find out whether a node failed because its results did not fit where they belong."""
        if not all(is_numpy_type(array.dtype) for array in (*feeds.values(), *out.values())):
            return
        made = [entry.name for entry in session.get_outputs()]
        try:
            arrays = session.run(made, dict(feeds))
        except self._errors:
            return
        for name, array in zip(made, arrays, strict=True):
            if array.shape != out[name].shape:
                raise ResultMismatchError(node, name, out[name], array)


def import_ort() -> Any:
    """ONNX Runtime's module; raises SolverUnavailableError if it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise SolverUnavailableError(
            "onnxruntime is not installed; install the extra `cosma[ort]`, or use the reference kernels"
        ) from error
    return onnxruntime


def session_options(ort: Any) -> Any:
    """Options of a session that gives the same bits every time: one thread, no graph optimisation."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.use_deterministic_compute = True
    return options


def ort_errors() -> tuple[type[Exception], ...]:
    """Every exception that ONNX Runtime raises."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, RuntimeError, ValueError, TypeError)


def plain_reason(error: Exception) -> str:
    """One short line from an error of ONNX Runtime: no codes, no source files, no names of its own."""
    text = " ".join(str(error).split())
    text = re.sub(r"^(Error in execution: )?(\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : )?", "", text)
    text = re.sub(r"^(Error in execution: )?Non-zero status code returned while running .*?Status Message: ", "", text)
    text = re.sub(r"(Exception during initialization: )?/\S+\.(cc|h):\d+ (\S+ )*?\S*\(.*?\) ", "", text)
    text = re.sub(r"/\S+\.(cc|h):\d+ ", "", text)
    text = re.sub(r" with name '[^']*'", "", text)
    return text[:200].rstrip(" .") or type(error).__name__


def _element(array: Array) -> int:
    from onnx import helper

    return int(helper.np_dtype_to_tensor_dtype(array.dtype))
