"""Evaluates a lens over many tokens: torch in, a `LensEvaluation` of numpy arrays out."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from strobe.probes.lens.evaluation import LensEvaluation
from strobe.probes.lens.logit_lens import Lens, LogitLens, checked_readout
from strobe.probes.lens.prediction_depth import PredictionDepth, prediction_depths
from strobe.probes.lens.reading import kl_divergence
from strobe.probes.lens.readout import Readout, residuals
from strobe.probes.lens.token_rows import token_rows
from strobe.probes.provenance import provenance_of

_CONTROL = "the best constant prediction: the model's output distribution averaged over these tokens"


class _Sums:
    """Sums over tokens of one lens, by layer."""

    def __init__(self, read: Readout, device: torch.device) -> None:
        n = read.n_layers + 1
        wide: dict[str, Any] = {"dtype": torch.float64, "device": device}
        self.cross_entropy, self.kl, self.entropy = (torch.zeros(n, **wide) for _ in range(3))
        self.mean = torch.zeros(n, read.d_vocab, **wide)
        self.top: list[Tensor] = []

    def add(self, layer: int, log_q: Tensor, log_p: Tensor, targets: Tensor) -> Tensor:
        """Add a batch [row, time, vocab]; returns its most probable tokens."""
        self.cross_entropy[layer] -= log_q[:, :-1].gather(-1, targets[..., None]).double().sum()
        self.kl[layer] += kl_divergence(log_p, log_q).double().sum()
        self.entropy[layer] += torch.special.entr(log_q.exp()).double().sum()
        self.mean[layer] += log_q.exp().double().sum((0, 1))
        return log_q.argmax(-1).flatten()


@torch.no_grad()
def evaluate_lens(
    lens: Lens, model: Any, tokens: Any, n_bytes: int | None, *, context: int, batch: int, transfer_tokens: int
) -> LensEvaluation:
    """See `Lens.evaluate`."""
    read = checked_readout(lens, model)
    given = token_rows(model, tokens, context)
    rows = given.in_order()
    if n_bytes is None and isinstance(tokens, str):
        n_bytes = len(tokens.encode())
    if n_bytes is not None and n_bytes < 1:
        raise ValueError(
            f"bits per byte were asked for, of {n_bytes} bytes; give the number of bytes that the tokens spell"
        )
    lenses = [lens] if lens.kind == "logit" else [lens, LogitLens()]
    device = next(model.parameters()).device
    sums = [_Sums(read, device) for _ in lenses]
    token_counts = torch.zeros(read.d_vocab, dtype=torch.float64, device=device)
    for part in rows.split(batch):
        logits, resid = residuals(model, part)
        log_p = logits.to(read.dtype).log_softmax(-1)
        targets = part[:, 1:].to(device)
        token_counts += torch.bincount(targets.flatten(), minlength=read.d_vocab).double()
        for one, total in zip(lenses, sums, strict=True):
            tops = []
            for layer, h in enumerate(resid):
                log_q = log_p if layer == read.n_layers else one.logits(read, h, layer).log_softmax(-1)
                tops.append(total.add(layer, log_q, log_p, targets))
            total.top.append(torch.stack(tops))
    provenance = provenance_of(
        model,
        settings={"lens": lens.kind, "rows": rows.shape[0], "context": rows.shape[1], "n_bytes": n_bytes},
        control=_CONTROL,
    )
    n, n_scored = rows.numel(), rows.shape[0] * (rows.shape[1] - 1)
    marginal = sums[0].mean[-1] / n
    transfer = None
    if transfer_tokens and lens.kind != "logit":
        from strobe.probes.lens.transferring import transfer_penalty

        transfer = transfer_penalty(
            lens, model, rows[: max(1, transfer_tokens // rows.shape[1])], context=context, batch=batch
        )
    kinds = tuple(one.kind for one in lenses)
    return LensEvaluation(
        lenses=kinds,
        cross_entropy=_numpy([s.cross_entropy / n_scored for s in sums]),
        kl=_numpy([s.kl / n for s in sums]),
        entropy=_numpy([s.entropy / n for s in sums]),
        bias=_numpy([kl_divergence(marginal.log().expand_as(s.mean), (s.mean / n).log()) for s in sums]),
        # Σ p log p of the model averaged, minus the marginal's: KL(p || mean p) averaged over tokens.
        control_kl=float(torch.special.entr(marginal).sum() - sums[0].entropy[-1] / n),
        control_cross_entropy=float(
            -(token_counts * marginal.clamp_min(torch.finfo(torch.float64).tiny).log()).sum() / n_scored
        ),
        depth=_depth(kinds, sums, provenance),
        transfer=transfer,
        n_tokens=n,
        bytes_per_token=None if n_bytes is None else n_bytes / given.n_tokens,
        provenance=provenance,
    )


def _depth(kinds: tuple[str, ...], sums: list[_Sums], provenance: Any) -> PredictionDepth:
    tops = [torch.cat(s.top, 1).cpu().numpy() for s in sums]
    n = len(tops[0])
    return PredictionDepth(
        lenses=kinds,
        counts=np.stack([np.bincount(prediction_depths(top), minlength=n) for top in tops]),
        agreement=np.stack([(top == top[-1]).mean(1) for top in tops]),
        constant_agreement=float(np.bincount(tops[0][-1]).max() / tops[0].shape[1]),
        provenance=provenance,
    )


def _numpy(tensors: list[Tensor]) -> np.ndarray:
    return torch.stack(tensors).cpu().numpy()
