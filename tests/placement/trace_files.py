"""Files of routing in the forms that servers log it in."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def save(folder: Path, array: np.ndarray, name: str = "t.npy") -> Path:
    np.save(folder / name, array)
    return folder / name


def lines(folder: Path, records: list[Any], name: str = "t.jsonl") -> Path:
    (folder / name).write_text("\n".join(json.dumps(record) for record in records))
    return folder / name


def text_of(array: np.ndarray) -> str:
    return base64.b64encode(npy(array)).decode()


def responses(tokens: np.ndarray, form: str) -> list[Any]:
    parts = [tokens[i : i + 50] for i in range(0, len(tokens), 50)]
    if form == "choices":
        return [{"id": i, "choices": [{"routed_experts": part.tolist()}]} for i, part in enumerate(parts)]
    if form == "prompt and choices":
        return [
            {"prompt_routed_experts": part[:20].tolist(), "choices": [{"routed_experts": part[20:].tolist()}]}
            for part in parts
        ]
    if form == "base64 npy":
        return [{"choices": [{"routed_experts": text_of(part.astype(np.uint8))}]} for part in parts]
    if form == "base64 with shape":
        return [
            {"routed_experts": {
                "data": base64.b64encode(part.astype(np.int16).tobytes()).decode(), "dtype": "int16",
                "shape": list(part.shape),
            }}
            for part in parts
        ]  # fmt: skip
    if form == "bare base64":
        return [
            {"meta_info": {"routed_experts": base64.b64encode(part.astype(np.int32).tobytes()).decode()}}
            for part in parts
        ]
    assert form == "batch file"
    return [{"custom_id": "a", "response": {"body": {"choices": [{"routed_experts": p.tolist()}]}}} for p in parts]


FORMS = ["choices", "prompt and choices", "base64 npy", "base64 with shape", "bare base64", "batch file"]


def csv_file(folder: Path, tokens: np.ndarray, form: str) -> Path:
    path = folder / "t.csv"
    if form == "one choice a row":
        rows = [
            f"{t},{layer},{e}" for t, row in enumerate(tokens) for layer, chosen in enumerate(row) for e in chosen
        ]
        path.write_text("token_id,layer_id,expert_id\n" + "\n".join(rows) + "\n")
    elif form == "one token a row":
        header = ",".join(f"layer_{layer}" for layer in range(tokens.shape[1]))
        path.write_text(header + "\n" + "\n".join(",".join(f"{a} {b}" for a, b in row) for row in tokens) + "\n")
    else:
        path.write_text("\n".join(";".join(f"[{a}, {b}]" for a, b in row) for row in tokens) + "\n")
    return path
