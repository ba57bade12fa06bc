"""Measures a `LensTransfer`: every translator on every layer's activations."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from strobe.probes.lens.logit_lens import Lens, checked_readout
from strobe.probes.lens.readout import residuals
from strobe.probes.lens.token_rows import token_rows
from strobe.probes.lens.transfer import LensTransfer
from strobe.probes.provenance import provenance_of


@torch.no_grad()
def transfer_penalty(lens: Lens, model: Any, tokens: Any, *, context: int, batch: int) -> LensTransfer:
    """See `Lens.transfer`. Raises ValueError for a logit lens, which has nothing to transfer."""
    if lens.kind == "logit":
        raise ValueError(
            "a transfer penalty was asked for; a logit lens has one translator for all layers; use a TunedLens"
        )
    read = checked_readout(lens, model)
    rows = token_rows(model, tokens, context).in_order()
    n, device = read.n_layers, next(model.parameters()).device
    losses = torch.zeros(n + 1, n, dtype=torch.float64, device=device)
    covariances = [_Covariance(read.d_model, device) for _ in range(n)]
    for part in rows.split(batch):
        _, resid = residuals(model, part)
        targets = part[:, 1:].to(device)
        for at, h in enumerate(resid[:n]):
            covariances[at].add(h[:, 1:].flatten(0, 1))
            for layer in range(n):
                losses[layer, at] += _nats(lens.logits(read, h[:, :-1], layer), targets)
            losses[n, at] += _nats(read(h[:, :-1]), targets)
    losses /= rows.shape[0] * (rows.shape[1] - 1)
    return LensTransfer(
        cross_entropy=losses[:n].cpu().numpy(),
        identity=losses[n].cpu().numpy(),
        covariance_cosine=_cosines([c.value() for c in covariances]),
        n_tokens=rows.numel(),
        provenance=provenance_of(
            model,
            settings={"lens": lens.kind, "rows": rows.shape[0], "context": rows.shape[1]},
            control="no translator at all (the logit lens) on the same activations",
        ),
    )


def _nats(logits: Tensor, targets: Tensor) -> Tensor:
    return -logits.log_softmax(-1).gather(-1, targets[..., None]).double().sum()


class _Covariance:
    def __init__(self, d: int, device: torch.device) -> None:
        self.n, self.sum = 0, torch.zeros(d, dtype=torch.float64, device=device)
        self.outer = torch.zeros(d, d, dtype=torch.float64, device=device)

    def add(self, h: Tensor) -> None:
        h = h.double()
        self.n += len(h)
        self.sum += h.sum(0)
        self.outer += h.T @ h

    def value(self) -> Tensor:
        mean = self.sum / self.n
        return self.outer / self.n - torch.outer(mean, mean)


def _cosines(covariances: list[Tensor]) -> np.ndarray:
    flat = torch.stack([c.flatten() / c.norm() for c in covariances])
    return (flat @ flat.T).cpu().numpy()
