"""Types of results, completed: what inference leaves open, what the model states, and what bounds it at run time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cosma.errors import ModelLoadError
from cosma.frontend.attributes import further_types
from cosma.frontend.evaluate import Evaluator
from cosma.frontend.inference import Inference
from cosma.frontend.limits import limit_of
from cosma.frontend.nodes import Node
from cosma.frontend.parameters import parameter_positions
from cosma.frontend.rising import least, vary
from cosma.frontend.subgraphs import InnerWalk, Surroundings, subgraph_types
from cosma.frontend.values import Operands, TensorType, Value, lowest
from cosma.frontend.window_rules import Sizing, sizing
from cosma.graph.semantics import is_training

if TYPE_CHECKING:
    from cosma.graph.tensor import Part


class ContradictionError(ModelLoadError):
    """A type that follows is not the one the model states.

    Parameters
    ----------
    message
        Where, and what to do.
    """

    def __init__(self, stated: TensorType, found: TensorType, message: str) -> None:
        super().__init__(message)
        self.stated = stated
        self.found = found


class Completion:
    """Completes the types of results.

    Parameters
    ----------
    declared
        Types the model states itself: checked against what is inferred, and taken where nothing is.
    read
        Names that are read; results nobody reads need no type if they are optional.
    bounds
        The most an axis can hold whose size is known only at run time, by ``tensor`` or ``tensor.axis``.
    preferred
        Shapes to take of several possible ones, by result.
    inner
        Makes a walk over a subgraph; see :class:`Surroundings`.
    """

    def __init__(
        self, inference: Inference, evaluator: Evaluator, declared: Mapping[str, TensorType], read: set[str],
        bounds: Mapping[str, int] | None = None, *, level: int = 0,
        preferred: Mapping[str, tuple[int, ...]] | None = None,
        inner: Callable[[Mapping[str, TensorType], set[str]], InnerWalk],
    ) -> None:  # fmt: skip
        self._inner = inner
        #: Walks over the subgraphs of the node typed last; None where one of them cannot be walked.
        self.walked: list[InnerWalk] | None = []
        self.preferred = dict(preferred or {})
        self._level = level
        self._inside = ""
        self._inference = inference
        self._evaluator = evaluator
        self._declared = declared
        self._read = read
        self.bounds = dict(bounds or {})
        #: What was assumed on the way, one sentence each.
        self.notes: list[str] = []
        #: Bounds that sized an axis, by ``tensor.axis``.
        self.bound: dict[str, int] = {}
        #: Limits of operators that sized an axis, by ``tensor.axis``.
        self.assumed: dict[str, int] = {}
        #: Results of more than one possible shape that the model does not state.
        self.choices: dict[str, Sizing] = {}
        #: Bounds that sized nothing yet.
        self.unused = set(self.bounds)

    def complete(
        self, node: Node, operands: Operands, captured: Mapping[str, Value], *, constant: bool, part: Part
    ) -> list[TensorType | None]:
        """Infer the types of a node's results, fill in what that leaves open and check it against the statements.

        A result that nobody reads and that the operator may leave out is None. In training mode it may leave out
        none that the node declares. Raises ModelLoadError if a type does not follow, or contradicts what the model
        states.
        """
        types = self._infer(node, operands, captured)
        lows = self._at_least(node, operands, captured, types)
        evaluated: list[Any] | None = None
        complete: list[TensorType | None] = []
        schema = self._inference.schema(node)
        choice = sizing(node, operands, types[0], self._evaluator, self._inference.opset) if types else None
        further = further_types(node, part, operands)
        for i, (name, found) in enumerate(zip(node.outputs, types, strict=True)):
            if not name or (name not in self._read and not is_training(part) and _is_optional(schema, i)):
                complete.append(None)
                continue
            if not found.known and further is not None:
                found = further[i]
            if not found.known and constant and schema is not None:
                if evaluated is None:
                    evaluated = self._evaluate(node, operands)
                if i < len(evaluated):
                    found = TensorType(_element(evaluated[i], found), evaluated[i].shape)
            if choice is not None:
                found = self._choose(node, name, found, choice)
            low, found = lows[i], self.check(node, name, _held(found, lows[i]))
            least_sizes = _least_sizes(found, low, self._declared.get(name))
            if not found.known and found.shape is not None:
                found = self._bounded(node, operands, i, found)
            if not found.known:
                raise ModelLoadError(self._unknown(node, name, found, operands))
            complete.append(_with_low(found, least_sizes))
        return complete

    def _at_least(
        self, node: Node, operands: Operands, captured: Mapping[str, Value], types: list[TensorType]
    ) -> list[TensorType | None]:
        """Types of results where every size known only at run time is least; None for those that are the same then."""
        if self.walked and any(found.low is not None for found in types):
            return [None if found.low is None else TensorType(found.element, found.low) for found in types]
        if not vary((*operands, *captured.values())):
            return [None] * len(types)
        if node.subgraphs:
            return [TensorType(found.element, None) for found in types]
        try:
            return [*self._inference.infer(node, lowest(operands), captured)]
        except ModelLoadError:
            return [TensorType(found.element, None) for found in types]

    def _infer(self, node: Node, operands: Operands, captured: Mapping[str, Value]) -> list[TensorType]:
        """Types by inference; for control flow, by a walk over the subgraphs first."""
        self._inside, self.walked = "", []
        own: list[TensorType] | None = None
        if node.subgraphs:
            own = self._walk_inside(node, operands, captured)
        if own is not None:
            own = [*own, *[TensorType(0, None)] * len(node.outputs)][: len(node.outputs)]
            if all(found.known for found, name in zip(own, node.outputs, strict=True) if name):
                return own
        types = self._inference.infer(node, operands, captured)
        if own is None:
            return types
        return [mine if mine.known or not other.known else other for mine, other in zip(own, types, strict=True)]

    def _walk_inside(
        self, node: Node, operands: Operands, captured: Mapping[str, Value]
    ) -> list[TensorType] | None:
        """Types by a walk over the subgraphs; what it assumed is assumed here too."""
        walks: list[InnerWalk] = []

        def inner(stated: Mapping[str, TensorType], read: set[str]) -> InnerWalk:
            walks.append(self._inner(stated, read))
            return walks[-1]

        around, own = Surroundings(self._inference.opset, self._evaluator, self._level, inner), None
        try:
            own = subgraph_types(node, operands, captured, around)
        except ModelLoadError as error:
            self._inside = f"; inside it: {error}"
        self.walked = None if own is None else walks
        for types in (walk.types for walk in self.walked or ()):
            self.bound.update(types.bound)
            self.assumed.update(types.assumed)
            self.choices.update(types.choices)
            self.unused &= types.unused
        notes = [f"inside {node}, {note}" for walk in self.walked or () for note in walk.types.notes]
        self.notes.extend(dict.fromkeys(notes))
        return own

    def _evaluate(self, node: Node, operands: Operands) -> list[Any]:
        arrays = self._evaluator.arrays(node, operands)
        return [] if arrays is None else self._evaluator.run(node, arrays) or []

    def _choose(self, node: Node, name: str, found: TensorType, choice: Sizing) -> TensorType:
        """Take one of several shapes that follow from an operator's definition: the stated one, else ONNX Runtime's."""
        stated = self._declared.get(name)
        shape = choice.shape
        for other in choice.also:
            if stated is not None and stated.shape == other:
                self.notes.append(f"{node} yields {list(other)}, as the model states; {choice.why}: {list(shape)}")
                return TensorType(found.element, other)
        if name in self.preferred:
            shape = self.preferred[name]
            why = f"as what follows states; {choice.why}: {list(choice.shape)}"
            self.notes.append(f"{node} yields {list(shape)}, {why}")
            return TensorType(found.element, shape)
        if choice.also and (stated is None or stated.shape is None or None in stated.shape):
            self.choices[name] = choice
            self.notes.append(f"{node} yields {list(shape)}, not {list(choice.also[0])}: {choice.why}")
        return TensorType(found.element, shape)

    def _bounded(self, node: Node, operands: Operands, index: int, found: TensorType) -> TensorType:
        """Fill in what is known only at run time with the most it can be: as given, else as the operator limits it."""
        name, shape = node.outputs[index], list(found.shape or ())
        limit = limit_of(node, operands, index, self._evaluator)
        for axis, most in enumerate(limit.shape[: len(shape)] if limit is not None else ()):
            if shape[axis] is None and limit is not None and limit.is_exact(axis):
                shape[axis] = most
        open_axes = [axis for axis, size in enumerate(shape) if size is None]
        for axis in open_axes:
            most = None if limit is None or axis >= len(limit.shape) else limit.shape[axis]
            given = self._given(name, axis, alone=len(open_axes) == 1)
            if given is None and (most is None):
                continue
            shape[axis] = min(size for size in (most, given) if size is not None)
            if given is not None:
                self.bound[f"{name}.{axis}"] = given
            else:
                self.assumed[f"{name}.{axis}"] = shape[axis] or 0
            why = "as bound" if given == shape[axis] or limit is None else limit.why
            self.notes.append(f"{node}: axis {axis} of {name!r} is planned for at most {shape[axis]} ({why})")
        return TensorType(found.element, tuple(shape))

    def _given(self, name: str, axis: int, *, alone: bool) -> int | None:
        """A bound that was given for an axis."""
        keys = [key for key in (f"{name}.{axis}", name) if key in self.bounds]
        self.unused.difference_update(keys)
        sizes = [self.bounds[key] for key in keys]
        if alone and len(set(sizes)) > 1:
            raise ModelLoadError(f"axis {axis} of {name!r} is bounded by {sizes[0]} and by {sizes[1]}")
        return sizes[0] if sizes else None

    def narrowed(self, error: ContradictionError) -> dict[str, int] | None:
        """Bounds with which a contradiction vanishes that a limit brought about: the model states less than it."""
        pairs = zip(error.found.shape or (), error.stated.shape or (), strict=False)
        for found, stated in pairs:
            if found is None or stated is None or stated >= found:
                continue
            keys = [key for key, size in self.assumed.items() if size == found]
            if len(keys) == 1:
                return {**self.bounds, keys[0]: stated}
        return None

    def other_choice(self, error: ContradictionError) -> dict[str, tuple[int, ...]] | None:
        """Shapes with which a contradiction vanishes that rounding brought about: the statement goes by another."""
        found, stated = error.found.shape or (), error.stated.shape or ()
        for name, choice in self.choices.items():
            for other in choice.also:
                changed = dict(zip(choice.shape, other, strict=True))
                pairs = list(zip(found, stated, strict=False))
                if len(found) == len(stated) and all(b is None or b in (a, changed.get(a or 0)) for a, b in pairs):
                    return {**self.preferred, name: other}
        return None

    def check(self, node: Node, name: str, found: TensorType) -> TensorType:
        """Merge an inferred type with the one the model states; raises ModelLoadError if they contradict each other."""
        stated = self._declared.get(name)
        if stated is None:
            return found
        element, shape = found.element or stated.element, found.shape if found.shape is not None else stated.shape
        wrong = stated.element not in (0, element)
        if shape is not None and stated.shape is not None:
            wrong = wrong or len(shape) != len(stated.shape)
            pairs = list(zip(shape, stated.shape, strict=False))
            wrong = wrong or any(a is not None and b is not None and a != b for a, b in pairs)
            shape = tuple(b if a is None else a for a, b in pairs) if not wrong else shape
        if wrong:
            raise ContradictionError(
                stated,
                found,
                f"the model states that {name!r} is {stated}, but {node} yields {found}; one of the two is wrong: "
                "remove the statement (value_info, or the graph output's type) or export the model again"
            )
        return TensorType(element, shape)

    def _unknown(self, node: Node, name: str, found: TensorType, operands: Operands) -> str:
        known = self._inference.schema(node) is not None
        missing = f"nothing is known of its result {name!r}"
        if found.element or found.shape:
            missing = f"of its result {name!r} only this is known: {found}"
        given = ", ".join("absent" if o is None else f"{o.name!r} {o.type}" for o in operands) or "none"
        positions = parameter_positions(node, self._inference.opset)
        deciding = [operand for i, operand in enumerate(operands) if i in positions and operand is not None]
        absent = [operand for operand in deciding if operand.constant and operand.array is None]
        if not known and not node.domain and (since := _since(node.type)) is not None:
            why = f"ONNX defines {node.type} from opset {since} on, and the model imports {self._inference.opset}"
        elif not known:
            why = f"no operator {node.type!r} is known in domain {node.domain or 'ai.onnx'!r}"
        elif absent:
            reason = self._evaluator.why_unknown(absent[0])
            missed = "not in the file" if absent[0].source is None else "not known"
            why = f"its shape depends on the content of the constant {absent[0].name!r}, which is {missed}: {reason}"
        else:
            why = "its shape depends on values that are known only when the model runs"
        ways = f"state the type and shape of {name!r} in the model's value_info"
        if found.shape is not None:
            ways += f", give the most that {name!r} can hold (its bound)"
        return (
            f"{node}: {missing}; {why} (operands: {given}){self._inside}. Sizes are never guessed: {ways}, or replace "
            "the node by operators of fixed shape"
        )


def _held(found: TensorType, low: TensorType | None) -> TensorType:
    """The type without the sizes that are larger where sizes known only at run time are least."""
    if low is None or found.shape is None or low.shape is None or len(low.shape) != len(found.shape):
        return found
    pairs = zip(found.shape, low.shape, strict=True)
    return TensorType(found.element, tuple(None if a and b and b > a else a for a, b in pairs))


def _least_sizes(found: TensorType, low: TensorType | None, stated: TensorType | None) -> list[int | None]:
    """Sizes of a result where those known only at run time are least; None where one is yet to be bounded."""
    sizes = list(found.shape or ())
    if low is not None:
        below = low.shape if low.shape is not None and len(low.shape) == len(sizes) else (None,) * len(sizes)
        sizes = [least(a) if b is None and a is not None else a and b for a, b in zip(sizes, below, strict=True)]
    fixed = stated.shape if stated is not None and stated.shape is not None else ()
    given = [*fixed, *[None] * len(sizes)]
    return [size if fixed is None else fixed for size, fixed in zip(sizes, given, strict=False)]


def _with_low(found: TensorType, sizes: list[int | None]) -> TensorType:
    """The type, with the sizes that a run may have at least."""
    shape = [size for size in found.shape or () if size is not None]
    low = tuple(least(size) if given is None else given for size, given in zip(shape, sizes, strict=True))
    return TensorType(found.element, found.shape, None if low == found.shape else low)


def _since(kind: str) -> int | None:
    """First opset in which ONNX defines an operator; None where it never does."""
    from onnx import defs

    versions = [s.since_version for s in defs.get_all_schemas_with_history() if s.name == kind and not s.domain]
    return min(versions, default=None)


def _element(array: Any, found: TensorType) -> int:
    from onnx import helper

    return found.element or helper.np_dtype_to_tensor_dtype(array.dtype)


def _is_optional(schema: Any, index: int) -> bool:
    """Whether an operator may leave out a result; unknown for operators without a definition, so no."""
    if schema is None or index >= len(schema.outputs):
        return False
    return bool(schema.outputs[index].option == schema.outputs[index].option.Optional)
