"""Kernels: one ONNX node at a time, run by ONNX Runtime or by ONNX's reference evaluator.

Every node becomes a model of its own, without graph optimisations, so that the same node gives the same bits
wherever its operands lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from cosma.errors import InputError, PlanInvalidError
from cosma.execute.elements import numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cosma.arrays import Array
    from cosma.execute.model import Model
    from cosma.frontend.nodes import Node
    from cosma.frontend.values import Value

T = TypeVar("T")
KernelName = Literal["onnxruntime", "reference"]


class KernelError(InputError):
    """Kernels cannot run a node.

    Parameters
    ----------
    node
        The node.
    feeds
        What it was given.
    kernels
        Name and version of the kernels.
    reason
        One line of theirs.
    """

    def __init__(self, node: Node, feeds: Mapping[str, Array], kernels: str, reason: str) -> None:
        given = ", ".join(describe(feeds[name]) for name in node.inputs if name in feeds)
        can = "can" if kernels.startswith("neither ") else "cannot"
        super().__init__(f"{node} of {given or 'no operands'}: {kernels} {can} run it: {reason}")
        self.node, self.kernels, self.reason = node, kernels, reason


#: What another shape than planned means where nothing was bounded.
MISREAD = "the model was read wrongly, or its kernel does not follow the operator's definition"

#: What it means where a result is planned for the most it can hold.
TOO_MUCH = (
    "with these inputs it holds more than the most that it was planned for; plan with a larger bound of it, or give "
    "inputs that keep to this one"
)


class ResultMismatchError(PlanInvalidError):
    """A node yields a tensor of another shape than it was planned with.

    Parameters
    ----------
    node, name
        The node and its result.
    planned, found
        Arrays as planned and as found.
    why
        What that means.
    """

    def __init__(self, node: Node, name: str, planned: Array, found: Array, why: str = MISREAD) -> None:
        super().__init__(
            f"{node} yields {describe(found)} as {name!r}, which the plan counts as {describe(planned)}: {why}"
        )


@dataclass(frozen=True, slots=True)
class TakenOver:
    """A node that the preferred kernels could not run, so that others took over.

    Attributes
    ----------
    node, type
        First result and operator type of the node.
    kernels
        What ran it instead.
    reason
        Why the preferred kernels could not.
    """

    node: str
    type: str
    kernels: str
    reason: str


class Kernels:
    """Runs single nodes; base of the ways to do so.

    Parameters
    ----------
    model
        Whose nodes.
    """

    name: str

    def __init__(self, model: Model) -> None:
        self._model = model
        self._ready: dict[int, Any] = {}

    @property
    def taken_over(self) -> tuple[TakenOver, ...]:
        """Nodes that other kernels than the preferred ones have run so far."""
        return ()

    def run(self, node: Node, results: Sequence[Value], feeds: Mapping[str, Array], out: Mapping[str, Array]) -> None:
        """Run a node on arrays where they lie and write its results where they belong.

        The tensors of a sequence are results of their own. ``feeds`` are the operands by the name the node reads them
        under; elements of a sequence by their own. ``out`` are arrays to write, by name of the result, of its type and
        shape. Raises KernelError if the node cannot be run, ResultMismatchError if a result has another shape than its
        array.
        """
        raise NotImplementedError

    def evaluate(self, node: Node, results: Sequence[Value], feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run a node whose results may be smaller than planned; the results as they come, by name.

        Raises KernelError if the node cannot be run.
        """
        raise NotImplementedError

    def compute(self, node: Node, results: Sequence[Value], feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run a node; its results as new arrays, by the name the node gives them."""
        out = {
            value.name if value.name in node.outputs else value.root: np.empty(
                value.shape, numpy_dtype(value.element, value.name)
            )
            for value in results
        }
        self.run(node, results, feeds, out)
        return out


class PreferredKernels(Kernels):
    """The first kernels that can run a node do so; which ones is settled when it runs for the first time.

    Parameters
    ----------
    model
        Whose nodes.
    first, second
        Kernels in the order they are tried.
    """

    def __init__(self, model: Model, first: Kernels, second: Kernels) -> None:
        super().__init__(model)
        self._first, self._second = first, second
        self._settled: dict[int, Kernels] = {}
        self._taken_over: list[TakenOver] = []
        self.name = first.name

    @property
    def taken_over(self) -> tuple[TakenOver, ...]:
        """Nodes that the second kernels have run so far; see :attr:`Kernels.taken_over`."""
        return tuple(self._taken_over)

    def run(self, node: Node, results: Sequence[Value], feeds: Mapping[str, Array], out: Mapping[str, Array]) -> None:
        """Run a node; see :meth:`Kernels.run`."""
        self._with_either(node, feeds, lambda kernels: kernels.run(node, results, feeds, out))

    def evaluate(self, node: Node, results: Sequence[Value], feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run a node; see :meth:`Kernels.evaluate`."""
        return self._with_either(node, feeds, lambda kernels: kernels.evaluate(node, results, feeds))

    def _with_either(self, node: Node, feeds: Mapping[str, Array], run: Callable[[Kernels], T]) -> T:
        settled = self._settled.get(id(node))
        if settled is not None:
            return run(settled)
        try:
            found = run(self._first)
            self._settled[id(node)] = self._first
        except KernelError as first:
            try:
                found = run(self._second)
            except KernelError as second:
                names, reasons = f"{first.kernels} nor {second.kernels}", f"{first.reason}; {second.reason}"
                raise KernelError(node, feeds, f"neither {names}", reasons) from second
            self._settled[id(node)] = self._second
            self._taken_over.append(
                TakenOver(node.first_output, node.qualified_type, self._second.name, first.reason)
            )
        return found


def write(node: Node, name: str, target: Array, found: Any) -> None:
    """Copy what a kernel yields to where it belongs; raises ResultMismatchError if it has another shape."""
    array = np.asarray(found)
    if array.shape != target.shape:
        raise ResultMismatchError(node, name, target, array)
    target[...] = array


def describe(array: Array) -> str:
    """Element type and shape of an array."""
    return f"{array.dtype.name}[{','.join(map(str, array.shape))}]"
