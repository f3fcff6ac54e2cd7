from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx
import onnx.parser
import pytest

from cosma.frontend import LoadedModel, NodeFate, load_onnx


def check_invariants(loaded: LoadedModel) -> None:
    """What holds for every model: each node is covered once or accounted for, and the graph holds what it says."""
    covered = Counter(output for operator in loaded.graph.operators for output in operator.covers)
    assert all(count == 1 for count in covered.values())
    assert set(covered) == {node.output for node in loaded.nodes if node.operator is not None}
    owner = {output: operator.name for operator in loaded.graph.operators for output in operator.covers}
    for node in loaded.nodes:
        if node.operator is not None:
            assert owner[node.output] == node.operator
            assert node.fate in (NodeFate.OPERATOR, NodeFate.VIEW, NodeFate.FUSED)
        else:
            assert node.fate not in (NodeFate.OPERATOR, NodeFate.FUSED)
    assert len({node.output for node in loaded.nodes}) == len(loaded.nodes)
    own = {node.output for node in loaded.nodes if node.fate is NodeFate.OPERATOR}
    assert {operator.covers[0] for operator in loaded.graph.operators} == own
    for tensor in loaded.graph.tensors.values():
        assert tensor.dtype is not None
        assert tensor.shape is not None


@pytest.fixture
def check() -> Callable[[LoadedModel], None]:
    return check_invariants


@pytest.fixture
def load_proto(tmp_path: Path) -> Callable[..., LoadedModel]:
    """Load a model message through a file."""

    def load(model: onnx.ModelProto, dims: Mapping[str, int] | None = None) -> LoadedModel:
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString())
        loaded = load_onnx(path, dims=dims)
        check_invariants(loaded)
        return loaded

    return load


@pytest.fixture
def load_text(load_proto: Callable[..., LoadedModel]) -> Callable[..., LoadedModel]:
    """Load a graph in ONNX's text form; ``weights`` are declared external, by name: element type and shape."""

    def load(
        graph: str,
        dims: Mapping[str, int] | None = None,
        *,
        opset: int = 20,
        domains: str = "",
        ir_version: int = 10,
        weights: Mapping[str, tuple[int, tuple[int, ...]]] | None = None,
    ) -> LoadedModel:
        header = f'<ir_version: {ir_version}, opset_import: ["" : {opset}{domains}]>'
        model = onnx.parser.parse_model(header + graph)
        for name, (element, shape) in (weights or {}).items():
            tensor = model.graph.initializer.add(name=name, data_type=element, dims=shape)
            tensor.data_location = onnx.TensorProto.EXTERNAL
        return load_proto(model, dims)

    return load


@pytest.fixture(scope="session")
def shared_models() -> Path:
    folder = Path(__file__).parents[3] / "shared" / "models"
    if not folder.is_dir():
        pytest.skip("the folder of shared models is not beside the repository")
    return folder
