"""Plans handed on to whatever executes them: C, TensorFlow Lite Micro, CSV, or a compiler's own visitor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosma.lazy import NamesFrom

if TYPE_CHECKING:
    from cosma.export.executorch import executorch_memory
    from cosma.export.header import c_header
    from cosma.export.off_chip import lay_out
    from cosma.export.tables import instructions_csv, off_chip_csv, stays_csv
    from cosma.export.tflite import offline_tflite, tflite_graph
    from cosma.export.tflm import tflm_metadata
    from cosma.export.visitor import Place, PlanVisitor, visit

__all__ = [
    "Place", "PlanVisitor", "c_header", "executorch_memory", "instructions_csv", "lay_out", "off_chip_csv",
    "offline_tflite", "stays_csv", "tflite_graph", "tflm_metadata", "visit",
]  # fmt: skip

__getattr__ = NamesFrom(__name__, {
    "visitor": "Place PlanVisitor visit",
    "header": "c_header",
    "executorch": "executorch_memory",
    "tables": "instructions_csv off_chip_csv stays_csv",
    "off_chip": "lay_out",
    "tflite": "offline_tflite tflite_graph",
    "tflm": "tflm_metadata",
})  # fmt: skip
