"""Measuring an autoencoder on held-out text: what it explains, and what the model loses when it reads that instead."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from strobe.probes.lens.readout import evaluating
from strobe.probes.lens.token_rows import fit_and_held_out
from strobe.probes.provenance import provenance_of
from strobe.probes.sae.autoencoder import SparseAutoencoder
from strobe.probes.sae.evaluation import VARIANTS, SaeEvaluation

Progress = Callable[[int, int, str], None]
Replace = Callable[[Tensor], Tensor]
_ROWS = 8
# Principal components and the mean are fitted on this many vectors of the text that is not held out.
_FITTED = 8192


@torch.no_grad()
def evaluate_sae(
    model: Any,
    sae: SparseAutoencoder,
    data: Any,
    *,
    held_out: Any = None,
    n_tokens: int = 8192,
    context: int = 128,
    skip: int = 1,
    state_every: int = 8,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> SaeEvaluation:
    """`sae` in place of what `model` has there, on `n_tokens` of text that the controls were not fitted on.

    `data`, `held_out`: as of `TunedLens.fit`: a corpus ("train" and "valid"), token ids or a text, of which the last
    tenth is kept where `held_out` is None. The first `skip` positions of a row are left alone; a carry is replaced at
    every `state_every`-th position. Raises ValueError for an autoencoder of another model.
    """
    sae.check(model)
    fitted, judged = fit_and_held_out(model, data, held_out, context)
    device = next(model.parameters()).device
    rows = judged.in_order(n_tokens).to(device)
    every = state_every if sae.site.is_state else 1
    positions = list(range(min(skip, rows.shape[1] - 1), rows.shape[1], every))
    with evaluating(model):
        before = _vectors(model, sae, fitted.in_order(_FITTED * every).to(device), positions)[:_FITTED]
        x = _vectors(model, sae, rows, positions)
        features = torch.cat([sae.encode(part) for part in x.split(4096)])
        k = max(1, round(float((features > 0).sum(1).double().mean())))
        replacements = _replacements(sae, before, k, seed)
        total = (x - x.mean(0)).double().square().sum()
        explained, entropy = [], []
        clean = _cross_entropy(model, sae, rows, positions, None)
        for i, name in enumerate(VARIANTS):
            if on_progress is not None:
                on_progress(i, len(VARIANTS), f"measuring: {name}")
            swap = replacements[name]
            left = sum((part - swap(part)).double().square().sum() for part in x.split(4096))
            explained.append(float(1 - left / total))
            entropy.append(_cross_entropy(model, sae, rows, positions, swap))
    return SaeEvaluation(
        variants=VARIANTS,
        l0=np.array([float((features > 0).sum(1).double().mean()), k, k, np.nan, np.nan]),
        explained_variance=np.array(explained),
        cross_entropy=np.array(entropy),
        clean=clean,
        density=(features > 0).double().mean(0).cpu().numpy(),
        n_vectors=len(x),
        n_tokens=rows.numel(),
        provenance=provenance_of(
            model,
            seed=seed,
            settings={
                "hook_name": sae.hook_name, "head": sae.head, "kind": sae.kind, "d_sae": sae.d_sae,
                "sae": sae.weights_hash(), "n_tokens": rows.numel(), "context": rows.shape[1], "skip": skip,
                "every": every,
            },
            control=f"PCA with {k} components, an untrained dictionary with {k} active, mean and zero ablation",
        ),
    )  # fmt: skip


def _vectors(model: Any, sae: SparseAutoencoder, rows: Tensor, positions: list[int]) -> Float[Tensor, "n d_in"]:
    parts = [sae.site.read(model, part, positions).flatten(0, 1).float() for part in rows.split(_ROWS)]
    return torch.cat(parts)


def _replacements(sae: SparseAutoencoder, fitted: Tensor, k: int, seed: int) -> dict[str, Replace]:
    from sklearn.decomposition import PCA

    mean = fitted.mean(0)
    pca = PCA(min(k, *fitted.shape), svd_solver="covariance_eigh").fit(fitted.cpu().double().numpy())
    components = torch.from_numpy(pca.components_).to(fitted)
    dictionary = _untrained(sae, fitted - mean, k, seed)
    made: list[Replace] = [
        sae.reconstruct,
        lambda x: mean + (x - mean) @ components.T @ components,
        lambda x: mean + dictionary(x - mean),
        lambda x: mean.expand_as(x),
        torch.zeros_like,
    ]
    return dict(zip(VARIANTS, made, strict=True))


def _untrained(sae: SparseAutoencoder, centred: Tensor, k: int, seed: int) -> Replace:
    """Random unit rows read and written by the `k` most active, times the gain that fits `centred` best."""
    generator = torch.Generator().manual_seed(seed)
    rows = F.normalize(torch.randn(sae.d_sae, sae.d_in, generator=generator), dim=1).to(centred)

    def raw(x: Tensor) -> Tensor:
        top = (x @ rows.T).topk(k, dim=-1, sorted=False)
        features = x.new_zeros(*x.shape[:-1], len(rows)).scatter(-1, top.indices, torch.relu(top.values))
        return features @ rows

    said = raw(centred)
    gain = (said * centred).sum() / said.square().sum().clamp(min=1e-12)
    return lambda x: gain * raw(x)


def _cross_entropy(
    model: Any, sae: SparseAutoencoder, rows: Tensor, positions: list[int], swap: Replace | None
) -> float:
    """Nats a token, the first `positions` of a row left alone."""
    hooks = []
    if swap is not None:

        def replace(x: Tensor) -> Tensor:
            return swap(x.float())

        chosen = None if sae.site.is_state else (lambda first, time: positions)
        hooks = [sae.site.hook(replace, chosen)]
    total = 0.0
    for part in rows.split(_ROWS):
        states: Any = positions if sae.site.is_state else None
        logits = model.run_with_hooks(part, fwd_hooks=hooks, states=states)
        log_p = logits[:, :-1].float().log_softmax(-1)
        total -= float(log_p.gather(-1, part[:, 1:, None]).double().sum())
    return total / (rows.shape[0] * (rows.shape[1] - 1))
