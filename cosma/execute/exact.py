"""Integer products that are the same on every processor.

ONNX Runtime multiplies unsigned activations by signed weights with 16-bit sums of two products each where an x86
processor has no 8-bit dot product (VNNI). Those sums saturate, so results depend on the processor and on which products
stand next to each other: a product cut into partial sums differs from the whole one. Unsigned weights never saturate.
Weights and their zero point move up by 128 together, which changes no result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from onnx import NodeProto

#: Products of 8-bit integers by operator: the operands that are activations, weights, zero point of the weights.
_PRODUCTS = {
    "ConvInteger": ((0, 1, 3),),
    "DynamicQuantizeLSTM": ((0, 1, 9), (0, 2, 11)),  # the state is quantised as the input is, to unsigned bytes
    "DynamicQuantizeMatMul": ((0, 1, 3),),
    "MatMulInteger": ((0, 1, 3),),
    "MatMulIntegerToFloat": ((0, 1, 5),),
    "QAttention": ((0, 1, 7),),
    "QGemm": ((0, 3, 5),),
    "QLinearConv": ((0, 3, 5),),
    "QLinearMatMul": ((0, 3, 5),),
}
#: Distance from a signed byte to the unsigned byte that stands for it.
_SHIFT = 128


def with_unsigned_weights(nodes: Iterable[NodeProto], element_of: Callable[[str], int | None]) -> Iterator[NodeProto]:
    """Nodes in their order, signed weights of products with unsigned activations made unsigned before them.

    ``element_of`` tells the ONNX element type of a tensor, None where it is not known. Floating-point activations
    become unsigned within their operator. Nodes in subgraphs stay as they are: no plan cuts them.
    """
    from onnx import NodeProto, TensorProto, helper

    shifted: set[str] = set()
    for node in nodes:
        products = [
            (weights, zero) for activations, weights, zero in _PRODUCTS.get(node.op_type, ())
            if element_of(node.input[weights]) == TensorProto.INT8
            and element_of(node.input[activations]) in (TensorProto.UINT8, TensorProto.FLOAT)
        ]  # fmt: skip
        if not products:
            yield node
            continue
        changed = NodeProto()
        changed.CopyFrom(node)
        changed.input.extend([""] * (1 + max(zero for _, zero in products) - len(node.input)))
        for place in (place for product in products for place in product):
            name = changed.input[place]
            unsigned = f"{name}\x01unsigned"
            changed.input[place] = unsigned
            if unsigned in shifted:
                continue
            shifted.add(unsigned)
            if name:
                yield from _shifted(name, unsigned)
            else:
                yield helper.make_node(
                    "Constant", [], [unsigned], value=helper.make_tensor(unsigned, TensorProto.UINT8, (), [_SHIFT])
                )
        yield changed


def _shifted(name: str, unsigned: str) -> Iterator[NodeProto]:
    """Nodes that turn signed bytes into the unsigned bytes 128 above them."""
    from onnx import TensorProto, helper

    wide, shift, moved = (f"{unsigned}\x01{part}" for part in ("wide", "shift", "moved"))
    yield helper.make_node("Cast", [name], [wide], to=TensorProto.INT32)
    yield helper.make_node("Constant", [], [shift], value=helper.make_tensor(shift, TensorProto.INT32, (), [_SHIFT]))
    yield helper.make_node("Add", [wide, shift], [moved])
    yield helper.make_node("Cast", [moved], [unsigned], to=TensorProto.UINT8)
