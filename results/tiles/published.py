"""Networks and sizes of published figures, planned on the same work.

- Alwani, Chen, Ferdman, Milder, "Fused-Layer CNN Accelerators", MICRO 2016: the first five convolutions of VGGNet-E
  (VGG-19) and the two poolings between them, float32. 362 KB of buffers between layers leave 3.6 MB of feature maps to
  move for an image: input and output once. Weights lie elsewhere in that design.
- Lin, Chen, Cai, Gan, Han, "MCUNetV2", NeurIPS 2021: MobileNetV2 at 224x224, int8, needs 172 kB at its peak without
  the input when its first stages run in 4x4 patches, whose overlaps are computed again. Weights lie in flash.

In both, weights never take room in the scratchpad: ``weights = stream``. Weights that are read again are told apart.
VGG-19's tiles are one pixel of the last map and what it lacks of all maps before it, cut along rows and columns: two
rows of four maps wait, 336 KiB, and little else. MobileNetV2's are stripes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cells import Cell

if TYPE_CHECKING:
    from pathlib import Path

    from cosma import Tiling

#: Output channels of the convolutions; ``pool`` stands between them.
VGG = (64, 64, "pool", 128, 128, "pool", 256)


def published_cells(folder: Path, shared: Path) -> list[Cell]:
    """Cells of the published figures; the model that no file holds is written first."""
    vgg = folder / "vgg19_first_five.onnx"
    if not vgg.exists():
        folder.mkdir(exist_ok=True)
        write_vgg(vgg)
    mobile = shared / "tiles" / "models" / "mobilenet_v2_224.onnx"
    return [
        Cell("published", "vgg19_first_five", vgg, 362 * 1024, "pixels, weights pass by", dtype=None),
        Cell("published", "mobilenet_v2_224", mobile, 172_000, "stripes, weights pass by"),
    ]


def pixels(step: int = 1) -> Tiling:
    """Cut the first five convolutions of VGG-19 along rows and columns, so that each tile computes what is new.

    Parameters
    ----------
    step
        Pixels of the last map along both axes.
    """
    from cosma import Tiling
    from cosma.rewrite.tiling import Cuts

    def between(stops: list[int], size: int) -> Cuts:
        # What the first tile needs beyond the others comes in tiles of the same size.
        width = stops[1] - stops[0]
        return tuple(sorted({at for at in (*stops, *range(stops[0] % width, stops[0], width)) if 0 < at < size}))

    size = 56
    stops = list(range(step, size + 1, step))
    cuts = {}
    for i, layer in reversed(list(enumerate(VGG))):
        both = between(stops, size)
        cuts[f"pool{i}" if layer == "pool" else f"conv{i}"] = ((), (), both, both)
        if layer == "pool":
            size, stops = 2 * size, [2 * at for at in stops]
        else:
            stops = [min(at + 1, size) for at in stops]
    return Tiling(cuts)


def write_vgg(path: Path) -> None:
    """Write the first five convolutions of VGG-19 without weights; activations are part of them and move nothing."""
    import onnx
    from onnx import TensorProto, helper

    nodes, weights, last, channels = [], [], "x", 3
    for i, layer in enumerate(VGG):
        if layer == "pool":
            window = {"kernel_shape": [2, 2], "strides": [2, 2]}
            nodes.append(helper.make_node("MaxPool", [last], [f"t{i}"], name=f"pool{i}", **window))
            last = f"t{i}"
            continue
        assert isinstance(layer, int)
        for name, shape in ((f"w{i}", [layer, channels, 3, 3]), (f"b{i}", [layer])):
            weight = TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT)
            weight.data_location = TensorProto.EXTERNAL
            weight.external_data.add(key="location", value="absent.bin")
            weights.append(weight)
        window = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
        nodes.append(helper.make_node("Conv", [last, f"w{i}", f"b{i}"], [f"t{i}"], name=f"conv{i}", **window))
        last, channels = f"t{i}", layer
    graph = helper.make_graph(
        nodes, "vgg19_first_five", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 224, 224])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, 256, 56, 56])], weights,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)
