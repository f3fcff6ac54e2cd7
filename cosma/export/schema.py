"""The plan file's JSON schema, made from the reader itself so that the two cannot drift apart.

``python -m cosma.export.schema > docs/plan.schema.json`` writes it.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from cosma.plan import format as form

_TEXT = {"type": "string"}
_SIZE = {"type": "integer", "minimum": 0}

#: What each key of the file means; shown by editors that know JSON schema.
_MEANING = {
    "format": "always 'cosma-plan'",
    "version": "of the format; 2 where tensors were cut into parts, operators have modes, or something is forced",
    "dtype": "every floating-point tensor is counted as if its elements had this type (a what-if)",
    "dims": "sizes that the model's dynamic dimensions were bound to, by symbol",
    "stopped_by": "what cut the run short, a clock (time) or an interrupt; absent where nothing did",
    "reproducible": "false where a clock or an interrupt cut the run short",
    "model": "what was planned; sha256 is that of the .onnx file, or null",
    "accelerator": "what was planned for; sizes in bytes",
    "constraints": "version 2: what the plan keeps to beside the rules of the accelerator, by exact names",
    "tensors": "every tensor: its ONNX name, true size in bytes and kind",
    "roots": "version 2: tensors that were cut into parts; their parts are among the tensors, each with the box "
    "that it holds (region); and tensors that nobody writes, because they consist of others (pieces), with the nodes "
    "that this stands for (covers)",
    "operators": "every operator: activations read (inputs), constants read (weights), results (outputs), and the "
    "first output name of every ONNX node it stands for (covers); version 2: the way it runs (mode), what it may then "
    "stream (may_stream) and bytes of scratch space (workspace), whose address is with its execute, and the roots "
    "that it reads by their pieces (joined)",
    "instructions": "what to do, in order",
    "traffic": "off-chip bytes as replayed; total = loaded + stored + streamed = compulsory + noncompulsory",
    "peak": "most bytes in the scratchpad at any instant, each tensor rounded up to the alignment",
    "certificate": "claimed: a lower bound on the noncompulsory bytes of any valid plan, and how it was found",
    "off_chip": "version 2: where tensors lie off-chip: size of the area of spilled tensors, their offsets, a lower "
    "bound on that size, and areas of their own for inputs, weights and outputs",
    "solver": "settings that reproduce the plan",
}


#: What a file may leave out; a checker counts what is not claimed.
_OPTIONAL = (
    "dtype", "dims", "constraints", "roots", "stopped_by", "reproducible", "model", "traffic", "peak", "certificate",
    "off_chip", "solver",
)  # fmt: skip


def plan_schema() -> dict[str, Any]:
    """Build the schema (JSON Schema 2020-12) of plan files, versions 1 and 2."""
    generated = msgspec.json.schema(form.Plan)
    definitions = generated["$defs"]
    root = definitions.pop("Plan")
    properties: dict[str, Any] = {
        name: {**root["properties"][name], "description": meaning} for name, meaning in _MEANING.items()
    }
    properties["format"] = {"const": "cosma-plan", "description": _MEANING["format"]}
    properties["version"] = {"enum": list(form.VERSIONS), "description": _MEANING["version"]}
    properties["peak"] |= {"minimum": 0}
    definitions["Instruction"] = {"oneOf": _instructions()}
    for definition in definitions.values():
        definition.pop("title", None)
        if "description" in definition:  # a summary, without the attributes
            definition["description"] = definition["description"].split("\n\n")[0].replace("\n", " ")
        for name, entry in definition.get("properties", {}).items():
            for kind in (entry, *entry.get("anyOf", ())):
                if kind.get("type") == "integer" and name != "noncompulsory":
                    kind["minimum"] = 0
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "cosma-plan, versions 1 and 2",
        "description": "A plan for a neural network on an accelerator with a scratchpad. Unknown keys are ignored.",
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in _OPTIONAL],
        "$defs": definitions,
    }


def _instructions() -> list[dict[str, Any]]:
    def one(do: str, required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {"do": {"const": do}, **required, **(optional or {})},
            "required": ["do", *required],
        }

    return [
        one("load", {"tensor": _TEXT, "address": _SIZE}),
        one("allocate", {"tensor": _TEXT, "address": _SIZE}, {"in_place_of": {"type": ["string", "null"]}}),
        one("execute", {"operator": _TEXT}, {"streamed": {"type": "array", "items": _TEXT}, "workspace": _SIZE}),
        one("store", {"tensor": _TEXT}),
        one("free", {"tensor": _TEXT}),
    ]


def plan_schema_json() -> str:
    """Write the schema as text; the same version of cosma always gives the same text."""
    return json.dumps(plan_schema(), indent=2) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(plan_schema_json())
