"""Causal basis extraction (Belrose et al. 2023, section 4): directions of most influence on a lens, found one after the
other.

The i-th direction maximises the energy σ(v) = E KL(lens(h) || lens(r(h, v))) over unit vectors orthogonal to those
before it. σ is not concave on the sphere, and a single start gets stuck: each direction is the best of several, one of
them from the quadratic approximation of σ (see `_local_start`), the rest random.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from strobe.core import hook_names
from strobe.probes.lens.causal_basis import CausalBasis
from strobe.probes.lens.fitting import Progress
from strobe.probes.lens.logit_lens import Lens, checked_readout
from strobe.probes.lens.reading import kl_divergence
from strobe.probes.lens.readout import Readout, evaluating, residuals
from strobe.probes.lens.token_rows import token_rows
from strobe.probes.provenance import provenance_of

# The relative gain below which an ascent has arrived (the authors' figure), and how many L-BFGS iterations go between
# looks.
_ARRIVED, _ROUND = 1e-4, 20


def extract_causal_basis(
    lens: Lens,
    model: Any,
    tokens: Any,
    *,
    layer: int,
    k: int | None = None,
    context: int = 128,
    max_tokens: int = 2048,
    restarts: int = 6,
    max_iter: int = 100,
    n_random: int = 20,
    batch: int = 16,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> CausalBasis:
    """The `k` directions (all d_model where None) at `layer` 0..L-1 that `lens` reads most from, and what they do in
    the model.

    `tokens` as in `Lens.evaluate`, at most about `max_tokens` of them. Position 0 is neither counted nor ablated (its
    activations are often huge and would be the mean). `restarts`: ascents per direction, of at most `max_iter` L-BFGS
    iterations. `n_random`: random unit directions, the control. Raises ValueError for a layer or k there is not.
    """
    read = checked_readout(lens, model)
    if not 0 <= layer < read.n_layers:
        raise ValueError(
            f"layer {layer} was asked for; {model.model_name} has translators for 0 to {read.n_layers - 1}"
        )
    count = read.d_model if k is None else k
    if not 1 <= count <= read.d_model or restarts < 1 or n_random < 1:
        raise ValueError(
            f"{count} directions, {restarts} restarts and {n_random} random directions were asked for; give 1 to "
            f"{read.d_model} directions, and 1 or more of the others"
        )
    rows = token_rows(model, tokens, context).in_order(max_tokens)
    parts = [residuals(model, part) for part in rows.split(batch)]
    h = torch.cat([resid[layer][:, 1:].flatten(0, 1) for _, resid in parts]).to(read.dtype)
    energy = _Energy(lens, read, layer, h)
    generator = torch.Generator().manual_seed(seed)
    vectors = _extract(energy, count, restarts, max_iter, generator, on_progress)
    random = torch.nn.functional.normalize(_normal((n_random, read.d_model), generator, h), dim=1)
    with torch.no_grad():
        found, control = (torch.stack([energy(v) for v in directions]) for directions in (vectors, random))
    order = found.argsort(descending=True)
    vectors, found = vectors[order], found[order]
    in_model = _Ablation(model, rows, batch, layer, energy.mean, [logits for logits, _ in parts])
    return CausalBasis(
        layer=layer,
        n_layers=read.n_layers,
        lens=lens.kind,
        vectors=vectors.cpu().numpy(),
        energies=found.cpu().numpy(),
        model_energies=torch.stack([in_model(v) for v in vectors]).cpu().numpy(),
        random_energies=control.cpu().numpy(),
        random_model_energies=torch.stack([in_model(v) for v in random]).cpu().numpy(),
        mean=energy.mean.cpu().numpy(),
        n_tokens=len(h),
        provenance=provenance_of(
            model,
            seed=seed,
            settings={
                "lens": lens.kind,
                "layer": layer,
                "k": count,
                "restarts": restarts,
                "max_iter": max_iter,
                "tokens": len(h),
            },
            control=f"random unit directions, {n_random} draws",
        ),
    )


class _Energy:
    """σ(v) over the residual vectors h [n, d_model], for unit v."""

    def __init__(self, lens: Lens, read: Readout, layer: int, h: Float[Tensor, "n d_model"]) -> None:
        self.lens, self.read, self.layer, self.h = lens, read, layer, h
        self.mean = h.mean(0)
        with torch.no_grad():
            self.log_p = lens.logits(read, h, layer).log_softmax(-1)

    def __call__(self, v: Float[Tensor, " d_model"]) -> Tensor:
        logits = self.lens.logits(self.read, ablate(self.h, v, self.mean), self.layer)
        return kl_divergence(self.log_p, logits.log_softmax(-1)).mean()

    def covariance_root(self) -> Tensor:
        """Σ^{1/2} of the residual vectors [d_model, d_model]; directions without variance get a millionth of the
        largest.
        """
        centred = (self.h - self.mean).double()
        values, basis = torch.linalg.eigh(centred.T @ centred / len(centred))
        return (basis * values.clamp(min=float(values[-1]) * 1e-12).sqrt() @ basis.T).to(self.h.dtype)

    def fisher(self, generator: torch.Generator) -> Tensor:
        """E[g gᵀ] [d_model, d_model], g the gradient in h of log lens(y | h) at a y drawn from lens(h)."""
        draws = torch.rand(len(self.h), 1, generator=generator).to(self.h.device)
        y = (self.log_p.exp().cumsum(-1) < draws).sum(-1).clamp(max=self.log_p.shape[-1] - 1)
        h = self.h.clone().requires_grad_()
        log_q = self.lens.logits(self.read, h, self.layer).log_softmax(-1)
        (g,) = torch.autograd.grad(log_q.gather(-1, y[:, None]).sum(), h)
        return g.T @ g / len(g)


def ablate(h: Float[Tensor, "*batch d_model"], v: Float[Tensor, " d_model"], mean: Float[Tensor, " d_model"]) -> Tensor:
    """r(h, v) = h - ((h - mean)·v) v for a unit vector v: the variation of h along v is gone."""
    return h - ((h - mean) @ v)[..., None] * v


def _extract(
    energy: _Energy, k: int, restarts: int, max_iter: int, generator: torch.Generator, on_progress: Progress | None
) -> Float[Tensor, "k d_model"]:
    root, fisher = energy.covariance_root(), energy.fisher(generator)
    d = len(root)
    found = root.new_zeros(0, d)
    for i in range(k):
        project = torch.eye(d, dtype=root.dtype, device=root.device) - found.T @ found
        # Ascent in whitened coordinates w, v ∝ P Σ^{1/2} w: σ grows with the variance along v, which the root evens
        # out.
        to_v = project @ root
        starts = [_local_start(to_v, fisher), *_normal((restarts - 1, d), generator, root)]
        ascents = [_ascend(energy, to_v, w, max_iter) for w in starts]
        best = max(ascents, key=lambda ascent: ascent[1])[0]
        # Projected once more: after many directions the first projection leaves rounding behind.
        found = torch.cat([found, _unit(project @ best)[None]])
        if on_progress is not None:
            on_progress(i + 1, k, f"causal basis: direction {i + 1} of {k}")
    return found


def _local_start(to_v: Tensor, fisher: Tensor) -> Tensor:
    """The w of the direction with the most energy to second order.

    KL(f(h) || f(h + δ)) ≈ δᵀF δ / 2 with F the Fisher matrix, and ablation has δ = -((h - mean)·v) v; with the variance
    along v taken together with F that is (vᵀΣv)(vᵀFv) / 2, whose whitened quadratic form has the matrix below. Ours, in
    place of the authors' left singular vectors of W_U, which a final norm and a translator do not leave in place.
    """
    return torch.linalg.eigh(to_v.T @ fisher @ to_v)[1][:, -1]


def _ascend(energy: _Energy, to_v: Tensor, start: Tensor, max_iter: int) -> tuple[Tensor, float]:
    """(the unit vector reached from `start`, its energy)."""
    w = start.clone().requires_grad_()
    done, last, now = 0, -1.0, 0.0
    while done < max_iter:
        steps = min(_ROUND, max_iter - done)
        now = _lbfgs(energy, to_v, w, steps)
        done += steps
        if abs(now - last) <= _ARRIVED * abs(now):
            break
        last = now
    return _unit(to_v @ w).detach(), now


def _lbfgs(energy: _Energy, to_v: Tensor, w: Tensor, steps: int) -> float:
    optimizer = torch.optim.LBFGS([w], max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -energy(_unit(to_v @ w))
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        # Only the direction of w matters: keep its length where the line search expects it.
        w /= w.norm()
        return float(energy(_unit(to_v @ w)))


def _unit(x: Tensor) -> Tensor:
    return x / x.norm().clamp(min=torch.finfo(x.dtype).tiny)


def _normal(shape: tuple[int, int], generator: torch.Generator, like: Tensor) -> Tensor:
    return torch.randn(shape, generator=generator).to(like)


class _Ablation:
    """Mean KL(final || final with v ablated at `layer`) in the model, over positions from 1 on."""

    def __init__(self, model: Any, rows: Tensor, batch: int, layer: int, mean: Tensor, logits: list[Tensor]) -> None:
        self.model, self.rows, self.batch, self.mean = model, rows, batch, mean
        self.name = hook_names.resid_pre(layer)
        self.logits = logits

    @torch.no_grad()
    def __call__(self, v: Tensor) -> Tensor:
        def hook(resid: Tensor, hook: Any) -> Tensor:
            changed = ablate(resid[:, 1:].to(v.dtype), v, self.mean).to(resid.dtype)
            return torch.cat([resid[:, :1], changed], 1)

        total, n = torch.zeros((), dtype=torch.float64, device=v.device), 0
        device = next(self.model.parameters()).device
        with evaluating(self.model):
            for part, logits in zip(self.rows.split(self.batch), self.logits, strict=True):
                ablated = self.model.run_with_hooks(part.to(device), fwd_hooks=[(self.name, hook)])
                log_p, log_q = (x[:, 1:].to(v.dtype).log_softmax(-1) for x in (logits, ablated))
                kl = kl_divergence(log_p, log_q)
                total, n = total + kl.double().sum(), n + kl.numel()
        return total / n
