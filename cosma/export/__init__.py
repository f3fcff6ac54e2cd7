"""Plans handed on to whatever executes them: C, TensorFlow Lite Micro, CSV, or a compiler's own visitor."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cosma.export.executorch import executorch_memory
    from cosma.export.header import c_header
    from cosma.export.off_chip import lay_out
    from cosma.export.tables import instructions_csv, off_chip_csv, stays_csv
    from cosma.export.tflite import offline_tflite, tflite_graph
    from cosma.export.tflm import tflm_metadata
    from cosma.export.visitor import Place, PlanVisitor, visit

_HOME = {
    "Place": "visitor",
    "PlanVisitor": "visitor",
    "c_header": "header",
    "executorch_memory": "executorch",
    "instructions_csv": "tables",
    "lay_out": "off_chip",
    "off_chip_csv": "tables",
    "offline_tflite": "tflite",
    "stays_csv": "tables",
    "tflite_graph": "tflite",
    "tflm_metadata": "tflm",
    "visit": "visitor",
}

__all__ = [
    "Place", "PlanVisitor", "c_header", "executorch_memory", "instructions_csv", "lay_out", "off_chip_csv",
    "offline_tflite", "stays_csv", "tflite_graph", "tflm_metadata", "visit",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'cosma.export' has no attribute {name!r}")
    value = getattr(import_module(f"cosma.export.{_HOME[name]}"), name)
    globals()[name] = value
    return value
