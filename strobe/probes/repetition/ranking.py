"""Which features of a sparse autoencoder may be about repetition, and ordinary ones to compare them with.

Two rankings: what a feature does when a loop sets in, mean activation over the tokens after it less that before
(Hiraoka and Inui 2024 rank neurons so, over 30 tokens to each side), and how its direction writes towards the repeated
token (Yao et al. 2025, arXiv:2504.14218, project the decoder on W_U[repeated] - W_U[other]). Neither is evidence: that
a feature causes repetition is measured in `strobe.probes.repetition.features`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from strobe.core import hook_names
from strobe.probes.attribution.components import decompose
from strobe.probes.attribution.frozen_norm import freeze_norm
from strobe.probes.lens.readout import evaluating, model_readout
from strobe.probes.repetition.looping import LoopText


class Ranking(NamedTuple):
    """Of every feature: `delta`, mean activation after the loop set in less before it; `projection`, what a unit of its
    direction adds to the repeated token's logit less the next best one's (NaN where it does not write to the residual
    stream); `density`, the share of ordinary tokens at which it is active; `largest`, its largest activation in all of
    these texts."""

    delta: Float[Tensor, " d_sae"]
    projection: Float[Tensor, " d_sae"]
    density: Float[Tensor, " d_sae"]
    largest: Float[Tensor, " d_sae"]


def rank_features(
    model: Any, sae: Any, loops: Sequence[LoopText], ordinary: Int[Tensor, "batch time"], *, window: int = 30
) -> Ranking:
    """Rank every feature of `sae` by the loops and by its direction. Position 0 is left out everywhere.

    Raises ValueError for no loop, or an autoencoder that is not of `model`.
    """
    if not loops:
        raise ValueError(
            "features were to be ranked by what they do when a loop sets in, and no text with a loop was given; give "
            "planted ones (planted_loops), or more prompts or tokens to looping_texts"
        )
    sae.check(model)
    deltas, largest = [], torch.zeros(sae.d_sae)
    for loop in loops:
        f = _features(model, sae, loop.tokens[None])[0]
        before = f[max(1, loop.repeats - window) : loop.repeats]
        after = f[loop.repeats : loop.repeats + window]
        deltas.append(after.mean(0) - before.mean(0))
        largest = torch.maximum(largest, f[1:].amax(0))
    f = _features(model, sae, ordinary)[:, 1:].flatten(0, 1)
    return Ranking(
        delta=torch.stack(deltas).mean(0),
        projection=_projection(model, sae, loops),
        density=(f > 0).float().mean(0),
        largest=torch.maximum(largest, f.amax(0)),
    )


def candidates(ranking: Ranking, n: int) -> list[tuple[int, str]]:
    """The `n` foremost features with what brought each here, taken in turns from the top of both rankings."""
    names = ["delta", *(["projection"] if bool(ranking.projection.isfinite().all()) else [])]
    # Neither a feature that falls silent in a loop nor one that is never active is a candidate.
    alive = ranking.largest > 0
    tops = []
    for name in names:
        values = getattr(ranking, name)
        order = values.argsort(descending=True)
        tops.append([(int(i), name) for i in order.tolist() if bool(alive[i]) and float(values[i]) > 0])
    chosen: dict[int, str] = {}
    for rank in range(max((len(top) for top in tops), default=0)):
        for top in tops:
            if rank < len(top) and len(chosen) < n:
                chosen.setdefault(*top[rank])
    return list(chosen.items())


def ordinary_features(ranking: Ranking, chosen: Sequence[int], seed: int) -> list[int]:
    """For each of `chosen` another feature that is about as often active on ordinary text, none twice and none of
    `chosen`; among equally near ones a random one. Raises ValueError where too few are left."""
    free = ((ranking.largest > 0) & (ranking.density > 0)).clone()
    free[list(chosen)] = False
    if int(free.sum()) < len(chosen):
        raise ValueError(
            f"{len(chosen)} ordinary features were to stand beside as many candidates; only {int(free.sum())} other "
            "features are ever active; ask for fewer candidates"
        )
    order = torch.randperm(len(free), generator=torch.Generator().manual_seed(seed))
    taken = []
    for i in chosen:
        distance = (ranking.density.clamp_min(1e-6).log() - ranking.density[i].clamp_min(1e-6).log()).abs()
        distance = torch.where(free, distance, torch.inf)[order]
        j = int(order[distance.argmin()])
        free[j] = False
        taken.append(j)
    return taken


def _features(model: Any, sae: Any, tokens: Tensor) -> Float[Tensor, "batch time d_sae"]:
    device = next(model.parameters()).device
    with evaluating(model), torch.no_grad():
        return sae.encode(sae.site.read(model, tokens.to(device))).float().cpu()


def _projection(model: Any, sae: Any, loops: Sequence[LoopText]) -> Float[Tensor, " d_sae"]:
    """What a unit of each direction adds to ``logit[repeated] - logit[likeliest other]``, the final norm's scale held
    at what it is in each loop; mean over loops."""
    point = hook_names.parse(sae.hook_name).point
    writes = point.startswith("resid") or point.endswith("_out") or point in ("in", "out", "embed")
    if not writes or sae.d_in != model.cfg.d_model:
        return torch.full((sae.d_sae,), torch.nan)
    W_U, shares = model_readout(model).W_U.float().cpu(), []
    for loop in loops:
        at = min(loop.repeats + loop.period, len(loop.tokens) - 1)
        found = decompose(model, loop.tokens[None, :at], -1)
        logits = found.logits[0, 0].float().cpu()
        repeated = int(loop.tokens[at])
        logits[repeated] = -torch.inf
        norm = freeze_norm(model, found.final[0])
        share = (norm.weight / norm.scale[0]).float().cpu() * (W_U[repeated] - W_U[int(logits.argmax())])
        # Centring is its own transpose.
        shares.append(norm.unscaled(share))
    return sae.decoder.float().cpu() @ torch.stack(shares).mean(0)
