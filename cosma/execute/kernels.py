"""Kernels: one ONNX node at a time, run by ONNX Runtime or by ONNX's reference evaluator.

Every node becomes a model of its own, without graph optimisations, so that the same node gives the same bits
wherever its operands lie.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cosma.errors import InputError, SolverUnavailableError
from cosma.execute.values import numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto

    from cosma.execute.model import Model
    from cosma.frontend.nodes import Node
    from cosma.frontend.values import Value

    Array = NDArray[Any]

KernelName = Literal["onnxruntime", "reference"]


class Kernels:
    """Runs single nodes; base of the two ways to do so.

    Parameters
    ----------
    model
        Whose nodes.
    """

    name: str

    def __init__(self, model: Model) -> None:
        self._model = model
        self._ready: dict[int, Any] = {}

    def run(
        self, node: Node, results: Sequence[Value], feeds: Mapping[str, Array], out: Mapping[str, Array]
    ) -> None:
        """Run a node on arrays where they lie and write its results where they belong.

        Parameters
        ----------
        node
            The node.
        results
            What it yields; those of a sequence are its tensors.
        feeds
            Operand arrays by the name the node reads them under; elements of a sequence by their own.
        out
            Arrays to write, by name of the result, of its type and shape.
        """
        raise NotImplementedError

    def compute(self, node: Node, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run a node of constants; its results as new arrays, by name."""
        raise NotImplementedError

    def _constants(self, node: Node) -> list[Value]:
        values = self._model.values
        return [values[name] for name in node.outputs if name in values]

    def _single(self, node: Node, results: Sequence[Value], feeds: Mapping[str, Array]) -> ModelProto:
        """Wrap a node as a model of its own: operands become inputs, parameters initializers."""
        from onnx import helper, numpy_helper

        values = self._model.values
        names = {value.name for value in results} | {value.root for value in results}
        before, after, inputs, fixed = [], [], [], []
        for name in dict.fromkeys(node.reads):
            value = values.get(name)
            if value is not None and value.elements is not None:
                elements = [element.root for element in value.elements]
                before.append(helper.make_node("SequenceConstruct", elements, [name]))
                inputs += [(root, feeds[root]) for root in elements]
            elif name in feeds and value is not None and self._model.is_parameter(value):
                fixed.append(numpy_helper.from_array(feeds[name], name))
            elif name in feeds:
                inputs.append((name, feeds[name]))
        outputs = [name if name in names else "" for name in node.outputs]
        sequence = values[node.first_output].elements if node.first_output in values else None
        if sequence is not None:
            outputs = [node.first_output]
            for i, element in enumerate(sequence):
                position = f"{node.first_output}\x01{i}"
                index = helper.make_tensor(position, 7, (), [i])
                before.append(helper.make_node("Constant", [], [position], value=index))
                after.append(helper.make_node("SequenceAt", [node.first_output, position], [element.root]))
        while outputs and not outputs[-1]:
            outputs.pop()
        own = helper.make_node(node.type, list(node.inputs), outputs, domain=node.domain)
        own.attribute.extend(node.attributes.values())
        made = [name for name in outputs if name] if sequence is None else [e.root for e in sequence]
        graph = helper.make_graph(
            [*before, own, *after],
            "node",
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
                for name, array in dict(inputs).items()
            ],
            [helper.make_empty_tensor_value_info(name) for name in made],
            fixed,
        )
        opsets = [helper.make_opsetid(domain, version) for domain, version in self._model.opsets.items()]
        if not any(entry.domain in ("", "ai.onnx") for entry in opsets):
            opsets.append(helper.make_opsetid("", 1))
        if node.domain and node.domain not in self._model.opsets:
            opsets.append(helper.make_opsetid(node.domain, 1))
        return helper.make_model(graph, opset_imports=opsets, ir_version=max(3, min(self._model.ir_version, 10)))


class OrtKernels(Kernels):
    """ONNX Runtime, one thread, no graph optimisation; operands and results stay where they lie."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        try:
            import onnxruntime
        except ImportError as error:
            raise SolverUnavailableError(
                "onnxruntime is not installed; install the extra `cosma[ort]`, or use --kernels reference"
            ) from error
        self._ort = onnxruntime
        self.name = f"onnxruntime {onnxruntime.__version__}"
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = 1
        self._options.inter_op_num_threads = 1
        self._options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._options.log_severity_level = 4
        self._options.enable_cpu_mem_arena = False
        self._options.enable_mem_pattern = False
        self._options.use_deterministic_compute = True
        self._errors = _ort_errors()

    def _session(self, node: Node, results: Sequence[Value], feeds: Mapping[str, Array]) -> Any:
        session = self._ready.get(id(node))
        if session is None:
            proto = self._single(node, results, feeds)
            try:
                session = self._ort.InferenceSession(
                    proto.SerializeToString(), self._options, providers=["CPUExecutionProvider"]
                )
            except self._errors as error:
                raise InputError(f"{node}: {self.name} has no kernel for it: {str(error)[:300]}") from error
            self._ready[id(node)] = session
        return session

    def run(
        self, node: Node, results: Sequence[Value], feeds: Mapping[str, Array], out: Mapping[str, Array]
    ) -> None:
        """Run a node; see :meth:`Kernels.run`."""
        session = self._session(node, results, feeds)
        wanted = [entry.name for entry in session.get_inputs()]
        made = [entry.name for entry in session.get_outputs()]
        plain = all(feeds[name].size for name in wanted) and all(out[name].size for name in made)
        try:
            if not plain or any(a.dtype.kind == "V" for a in (*feeds.values(), *out.values())):
                arrays = session.run(made, {name: feeds[name] for name in wanted})
                for name, array in zip(made, arrays, strict=True):
                    out[name][...] = array
                return
            binding = session.io_binding()
            for name in wanted:
                array = feeds[name]
                binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            for name in made:
                array = out[name]
                binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            session.run_with_iobinding(binding)
        except self._errors as error:
            raise InputError(f"{node}: {self.name} failed on it: {str(error)[:300]}") from error

    def compute(self, node: Node, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run a node of constants; see :meth:`Kernels.compute`."""
        session = self._session(node, self._constants(node), feeds)
        made = [entry.name for entry in session.get_outputs()]
        try:
            arrays = session.run(made, {entry.name: feeds[entry.name] for entry in session.get_inputs()})
        except self._errors as error:
            raise InputError(f"{node}: {self.name} failed on it: {str(error)[:300]}") from error
        return {name: np.asarray(array) for name, array in zip(made, arrays, strict=True)}


def _ort_errors() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("Fail", "InvalidArgument", "InvalidGraph", "NotImplemented", "RuntimeException", "InvalidProtobuf")
    return (*(getattr(state, name) for name in names), RuntimeError, ValueError)


class ReferenceKernels(Kernels):
    """ONNX's own reference evaluator: slow, readable, always there."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        import onnx

        self.name = f"onnx reference {onnx.__version__}"

    def _evaluate(self, node: Node, results: Sequence[Value], feeds: Mapping[str, Array]) -> dict[str, Array]:
        from onnx.reference import ReferenceEvaluator

        evaluator = self._ready.get(id(node))
        try:
            if evaluator is None:
                evaluator = self._ready[id(node)] = ReferenceEvaluator(self._single(node, results, feeds))
            with np.errstate(all="ignore"):
                arrays = evaluator.run(None, {name: feeds[name] for name in evaluator.input_names})
        except (RuntimeError, TypeError, ValueError, NotImplementedError, IndexError, KeyError) as error:
            raise InputError(f"{node}: {self.name} failed on it: {error}; try --kernels onnxruntime") from error
        return dict(zip(evaluator.output_names, arrays, strict=True))

    def run(
        self, node: Node, results: Sequence[Value], feeds: Mapping[str, Array], out: Mapping[str, Array]
    ) -> None:
        """Run a node; see :meth:`Kernels.run`. Results are computed aside and copied to where they belong."""
        for name, array in self._evaluate(node, results, feeds).items():
            out[name][...] = np.asarray(array).reshape(out[name].shape)

    def compute(self, node: Node, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run a node of constants; see :meth:`Kernels.compute`."""
        return {
            name: np.ascontiguousarray(np.asarray(array).astype(numpy_dtype(self._model.values[name].element, name)))
            for name, array in self._evaluate(node, self._constants(node), feeds).items()
        }


def make_kernels(name: KernelName | None, model: Model) -> Kernels:
    """Choose kernels by name; without one, ONNX Runtime where it is installed, else the reference evaluator.

    Raises
    ------
    SolverUnavailableError
        If ONNX Runtime is asked for and not installed.
    InputError
        If the name is unknown.
    """
    if name == "reference":
        return ReferenceKernels(model)
    if name == "onnxruntime":
        return OrtKernels(model)
    if name is not None:
        raise InputError(f"--kernels must be onnxruntime or reference, not {name!r}")
    from importlib.util import find_spec

    return OrtKernels(model) if find_spec("onnxruntime") else ReferenceKernels(model)
