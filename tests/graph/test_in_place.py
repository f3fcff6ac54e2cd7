from __future__ import annotations

from dataclasses import replace

import pytest

from cosma.graph import Operator, Part, Tensor
from cosma.graph.in_place import in_place_operands, may_overwrite

FULL = (2, 8)


def tensor(name: str, size: int, shape: tuple[int, ...] | None = FULL) -> Tensor:
    return Tensor(name, size, shape=shape)


@pytest.mark.parametrize(
    ("kind", "operands", "result", "allowed"),
    [
        ("Relu", [("a", 64, FULL)], 64, ["a"]),
        ("Relu", [("a", 32, FULL)], 64, []),  # the result must not be larger
        ("Cast", [("a", 64, FULL)], 16, ["a"]),  # to a narrower width
        ("Cast", [("a", 16, FULL)], 64, []),  # to a wider one
        ("Add", [("a", 64, FULL), ("b", 64, FULL)], 64, ["a", "b"]),
        ("Add", [("a", 64, FULL), ("b", 32, (1, 8))], 64, ["a"]),  # only at full shape
        ("Add", [("a", 64, (16,)), ("b", 64, FULL)], 64, ["b"]),
        ("Where", [("c", 16, FULL), ("a", 64, FULL), ("b", 64, FULL)], 64, ["a", "b"]),
        ("Equal", [("a", 64, FULL), ("b", 64, FULL)], 16, []),  # only to the same width
        ("Equal", [("a", 16, FULL), ("b", 16, FULL)], 16, ["a", "b"]),
        ("Clip", [("a", 64, FULL), ("low", 64, FULL)], 64, ["a"]),  # parameters are not overwritten
        ("BatchNormalization", [("a", 64, FULL), ("scale", 64, FULL)], 64, ["a"]),
        ("Softmax", [("a", 64, FULL)], 64, []),  # not element by element
        (("Conv", "Relu"), [("a", 64, FULL)], 64, []),  # a fused operator is as its parts are
        (("Add", "Relu"), [("a", 64, FULL), ("b", 64, FULL)], 64, ["a", "b"]),
        ("Add+Relu", [("a", 64, FULL), ("b", 64, FULL)], 64, []),  # a text that looks like parts is not parts
        ("Add", [("a", 64, FULL), ("b", 64, (8,))], 64, ["a"]),  # of the same bytes in wider elements, repeated
        ("Relu", [("a", 0, FULL)], 0, []),  # nothing to share
    ],
)
def test_table(
    kind: str | tuple[str, ...], operands: list[tuple[str, int, tuple[int, ...]]], result: int, allowed: list[str]
) -> None:
    given = [tensor(*operand) for operand in operands]
    written = tensor("r", result)
    parts = () if isinstance(kind, str) else tuple(map(Part, kind))
    operator = Operator("o", "+".join(p.type for p in parts) or str(kind), tuple(t.name for t in given), ("r",))
    operator = replace(operator, fused=parts)
    assert [t.name for t in in_place_operands(operator, written, given)] == allowed


def test_sizes_stand_in_for_unknown_shapes() -> None:
    operator = Operator("o", "Add", ("a", "b"), ("r",))
    assert may_overwrite(operator, tensor("r", 64, None), tensor("a", 64, None))
    assert not may_overwrite(operator, tensor("r", 64, None), tensor("b", 32, None))


def test_training_mode_normalisation_is_not_in_place() -> None:
    operator = Operator("o", "BatchNormalization", ("a",), ("r", "mean", "variance"))
    assert not may_overwrite(operator, tensor("r", 64), tensor("a", 64))


def test_training_mode_is_an_attribute_not_a_number_of_results() -> None:
    training = Operator("o", "BatchNormalization", ("a",), ("r",), attributes=(("training_mode", 1),))
    inference = Operator("o", "BatchNormalization", ("a",), ("r",), attributes=(("training_mode", 0),))
    assert not may_overwrite(training, tensor("r", 64), tensor("a", 64))
    assert may_overwrite(inference, tensor("r", 64), tensor("a", 64))
    fused = Operator("o", "Relu+BatchNormalization", ("a",), ("r",), fused=(Part("Relu"), training.parts[0]))
    assert not may_overwrite(fused, tensor("r", 64), tensor("a", 64))
