"""Train a small Mixture-of-Experts language model on text that ships with Python, and record its routing.

    python models/traces/train_moe.py out.npz --experts 8 --layers 6 --steps 300

Needs PyTorch (CPU is enough; minutes). The text is the source of the standard library, as bytes; a held-out part
of the files makes ``eval_in``. Each layer is causal self-attention followed by a top-k Mixture of Experts with a
load-balance loss. The archive holds ``profile`` and ``eval_in`` (``[tokens, layers]``, or ``[tokens, layers, k]``)
and ``meta`` (JSON), as ``cosma place`` reads them.
"""

from __future__ import annotations

import argparse
import json
import sysconfig
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional


def read_text(limit_bytes: int) -> tuple[bytes, bytes]:
    """Return training and held-out bytes: every tenth file of the standard library is held out."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    parts = [b"\n".join(path.read_bytes() for path in chosen) for chosen in (
        [path for i, path in enumerate(files) if i % 10], files[::10]
    )]  # fmt: skip
    return parts[0][:limit_bytes], parts[1][: limit_bytes // 5]


class Experts(nn.Module):
    """A top-k Mixture of Experts that keeps its last routing."""

    def __init__(self, width: int, hidden: int, experts: int, top_k: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts, bias=False)
        self.up = nn.Parameter(torch.randn(experts, width, hidden) / width**0.5)
        self.down = nn.Parameter(torch.randn(experts, hidden, width) / hidden**0.5)
        self.top_k = top_k
        self.chosen = torch.empty(0, dtype=torch.long)
        self.loss = torch.zeros(())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Send every token to its experts and keep which they were."""
        flat = x.reshape(-1, x.shape[-1])
        share = torch.softmax(self.router(flat), dim=-1)
        weight, self.chosen = share.topk(self.top_k, dim=-1)
        out = torch.zeros_like(flat)
        for expert in range(self.up.shape[0]):
            token, place = torch.nonzero(self.chosen == expert, as_tuple=True)
            if len(token):
                served = functional.gelu(flat[token] @ self.up[expert]) @ self.down[expert]
                out.index_add_(0, token, served * weight[token, place, None])
        used = torch.zeros_like(share).scatter_(1, self.chosen, 1.0).mean(0)
        self.loss = self.up.shape[0] * (used * share.mean(0)).sum() / self.top_k
        return out.reshape(x.shape)


class Model(nn.Module):
    """Byte-level language model with a Mixture of Experts in every layer."""

    def __init__(self, layers: int, width: int, experts: int, top_k: int, context: int) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(256, width), nn.Embedding(context, width)
        self.attend = nn.ModuleList(nn.MultiheadAttention(width, 4, batch_first=True) for _ in range(layers))
        self.experts = nn.ModuleList(Experts(width, 2 * width, experts, top_k) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * layers + 1))
        self.out = nn.Linear(width, 256)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Return next-byte scores."""
        x = self.embed(ids) + self.place(torch.arange(ids.shape[1]))
        mask = torch.triu(torch.full((ids.shape[1], ids.shape[1]), float("-inf")), 1)
        for layer, (attend, experts) in enumerate(zip(self.attend, self.experts, strict=True)):
            y = self.norms[2 * layer](x)
            x = x + attend(y, y, y, attn_mask=mask, need_weights=False)[0]
            x = x + experts(self.norms[2 * layer + 1](x))
        return self.out(self.norms[-1](x))


def record(model: Model, data: torch.Tensor, tokens: int, context: int) -> np.ndarray:
    """Route ``tokens`` bytes from the start of the data and return the experts they used."""
    rows = []
    with torch.no_grad():
        for begin in range(0, min(tokens, len(data) - context), context):
            model(data[None, begin : begin + context])
            rows.append(torch.stack([layer.chosen for layer in model.experts], dim=1))
    trace = torch.cat(rows)[:tokens].numpy().astype(np.uint16)
    return trace[:, :, 0] if trace.shape[2] == 1 else trace


def main() -> None:
    """Train and write the archive."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    for name, default in (("layers", 6), ("experts", 8), ("top-k", 1), ("width", 64), ("steps", 300), ("batch", 16),
                          ("context", 128), ("tokens", 12000), ("seed", 0)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    train, held_out = (torch.tensor(list(part)) for part in read_text(2_000_000))
    model = Model(options.layers, options.width, options.experts, options.top_k, options.context)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    loss = torch.zeros(())
    for step in range(options.steps):
        begins = torch.randint(len(train) - options.context - 1, (options.batch,)).tolist()
        batch = torch.stack([train[b : b + options.context + 1] for b in begins])
        logits = model(batch[:, :-1])
        loss = functional.cross_entropy(logits.reshape(-1, 256), batch[:, 1:].reshape(-1))
        total = loss + 0.01 * sum(layer.loss for layer in model.experts)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    meta = {**{k: v for k, v in vars(options).items() if k != "output"}, "loss": loss.item(), "synthetic": False}
    np.savez_compressed(
        options.output,
        profile=record(model, train, options.tokens, options.context),
        eval_in=record(model, held_out, options.tokens // 2, options.context),
        meta=np.array(json.dumps(meta)),
    )


if __name__ == "__main__":
    main()
