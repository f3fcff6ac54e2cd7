"""Offsets for ExecuTorch's tensor specs: checked by its own verifier, compared with its planners, and executed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cosma.errors import InputError
from cosma.export import executorch_memory

torch = pytest.importorskip("torch", reason="the extra mobile is not installed")
pytest.importorskip("executorch.exir", reason="the extra mobile is not installed")

from executorch.exir import ExecutorchBackendConfig, to_edge  # noqa: E402
from executorch.exir.memory_planning import MemoryPlanningAlgorithmSuite, greedy, naive  # noqa: E402
from executorch.exir.passes import MemoryPlanningPass  # noqa: E402
from executorch.exir.tensor import TensorSpec  # noqa: E402

nn = torch.nn


class Residual(nn.Module):  # type: ignore[misc, name-defined]
    """Three residual blocks that widen and narrow."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.ModuleList(nn.Conv2d(4, 8, 3, padding=1) for _ in range(3))
        self.narrow = nn.ModuleList(nn.Conv2d(8, 4, 3, padding=1) for _ in range(3))

    def forward(self, x: Any) -> Any:
        for wide, narrow in zip(self.wide, self.narrow, strict=True):
            x = x + torch.relu(narrow(torch.relu(wide(x))))
        return x


class Dense(nn.Module):  # type: ignore[misc, name-defined]
    """A dense block."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(4 + 4 * i, 4, 3, padding=1) for i in range(4))

    def forward(self, x: Any) -> Any:
        parts = [x]
        for layer in self.layers:
            parts.append(torch.relu(layer(torch.cat(parts, 1))))
        return torch.cat(parts, 1)


class Attention(nn.Module):  # type: ignore[misc, name-defined]
    """Attention and a feed-forward layer, with skips."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
        self.wide, self.narrow = nn.Linear(32, 128), nn.Linear(128, 32)

    def forward(self, x: Any) -> Any:
        q, k, v = self.qkv(x).chunk(3, -1)
        x = x + self.out(torch.softmax(q @ k.transpose(-1, -2) / 5.6, -1) @ v)
        return x + self.narrow(torch.relu(self.wide(x)))


CASES = {
    "residual": (Residual, (1, 4, 16, 16)), "dense": (Dense, (1, 4, 16, 16)), "attention": (Attention, (1, 24, 32)),
}  # fmt: skip


def program(name: str, *algorithms: Any) -> tuple[Any, Any, Any]:
    """An ExecuTorch program planned by some algorithms, the model and its input; its verifier has passed it."""
    kind, shape = CASES[name]
    torch.manual_seed(3)
    model, data = kind().eval(), torch.randn(shape)
    edge = to_edge(torch.export.export(model, (data,)))
    planning = MemoryPlanningPass(MemoryPlanningAlgorithmSuite(list(algorithms)))
    return edge.to_executorch(ExecutorchBackendConfig(memory_planning_pass=planning)), model, data


def arena(planned: Any) -> int:
    return sum(planned.executorch_program.execution_plan[0].non_const_buffer_sizes)


@pytest.mark.parametrize(
    ("name", "best", "theirs"), [("residual", 20480, 24576), ("dense", 40960, 40960), ("attention", 34816, 44032)]
)
def test_the_arena_is_lower(name: str, best: int, theirs: int) -> None:
    ours, *_ = program(name, executorch_memory)
    assert arena(ours) == best
    assert arena(program(name, greedy)[0]) == theirs
    assert arena(program(name, naive)[0]) > theirs
    assert arena(program(name, greedy, executorch_memory)[0]) == best


@pytest.mark.parametrize("name", CASES)
def test_the_program_runs(name: str) -> None:
    """ExecuTorch's runtime in the planned arena gives what the model gives."""
    runtime = pytest.importorskip("executorch.runtime", reason="this ExecuTorch has no runtime for Python")
    planned, model, data = program(name, executorch_memory)
    method = runtime.Runtime.get().load_program(planned.buffer).load_method("forward")
    (found,) = method.execute([data])
    assert torch.allclose(found, model(data), atol=1e-5)


def _spec(size: int, first: int, last: int, **more: Any) -> Any:
    spec = TensorSpec(torch.uint8, [size])
    spec.lifetime = [first, last]
    for name, value in more.items():
        setattr(spec, name, value)
    return spec


def test_lifetimes_are_inclusive() -> None:
    """A tensor last used where another is made overlaps it."""
    specs = [_spec(32, 0, 1), _spec(64, 1, 2), _spec(32, 2, 3)]
    result = executorch_memory(16, specs, SimpleNamespace(), None)
    offsets = [result.spec_dict[spec].mem_offset for spec in specs]
    assert result.bufsizes == [0, 96]
    assert {offsets[0], offsets[2]} == {offsets[0]}
    assert executorch_memory(16, specs[::-1], SimpleNamespace(), None).spec_dict == result.spec_dict


def test_memories_padding_and_what_is_taken() -> None:
    specs = [_spec(16, 0, 1, mem_id=1), _spec(48, 0, 1, mem_id=3)]
    result = executorch_memory(16, specs, SimpleNamespace(input_mem_buffer_sizes=[0, 40]), None, 64)
    assert result.bufsizes == [0, 48 + 16 + 64, 0, 48 + 64]
    assert [result.spec_dict[s].mem_offset for s in specs] == [48, 0]


def test_specs_in_the_storage_of_others() -> None:
    base = _spec(64, 0, 3)
    inner = _spec(16, 1, 2, storage_base=base, storage_base_offset=32)
    innermost = _spec(16, 1, 2, storage_base=inner, storage_base_offset=0)
    result = executorch_memory(16, [innermost, inner, base], SimpleNamespace(), None)
    assert result.bufsizes == [0, 64]
    assert [result.spec_dict[s].mem_offset - result.spec_dict[base].mem_offset for s in (inner, innermost)] == [32, 32]
    with pytest.raises(InputError, match="not planned with it"):
        executorch_memory(16, [inner], SimpleNamespace(), None)
    inner.storage_base_offset = 56
    with pytest.raises(InputError, match="reaches beyond the 64 bytes"):
        executorch_memory(16, [inner, base], SimpleNamespace(), None)


def test_a_spec_without_a_life_is_refused() -> None:
    with pytest.raises(InputError, match="has no lifetime"):
        executorch_memory(16, [_spec(64, None, None)], SimpleNamespace(), None)
