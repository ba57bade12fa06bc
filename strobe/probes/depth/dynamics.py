"""`depth_dynamics`: the residual stream of many tokens as trajectories through depth.

With h_l a token's residual stream after l blocks, u_l = h_l+1 - h_l and a hat for unit length (formulas ours; the
quantities are those of arXiv:2512.19941):

directional convergence   cos(h_l, h_L)
angular speed             arccos(h^_l . h^_l+1), degrees a block
stable rank of updates    |U_l|_F^2 / |U_l|_2^2, U_l the matrix of all tokens' updates
token coherence           mean of cos(u_l(i), u_l(j)) over pairs of tokens
similarity of blocks      mean over tokens of cos(h_l, h_m), and of cos(u_l, u_m)
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from strobe.probes.depth.result import DepthDynamics
from strobe.probes.depth.tying import kinds
from strobe.probes.geometry.sequences import Sequences, library_sequences, sequences_of
from strobe.probes.lens.readout import evaluating, residuals
from strobe.probes.partial import keeping
from strobe.probes.provenance import provenance_of

Tick = Callable[[int, int, str], None]
# Numbers of the residual stream held at a time, over all layers: the deeper the model, the fewer rows at once.
_NUMBERS = 2**24
_CONTROL = (
    "directions of another token in the place of the token's own (convergence, speed, similarity); random directions "
    "with the updates' lengths (stable rank, coherence)"
)


def depth_dynamics(
    model: Any,
    tokens: Any = None,
    *,
    n_tokens: int = 2048,
    context: int = 64,
    seed: int = 0,
    progress: Tick | None = None,
    partial: Callable[[DepthDynamics], None] | None = None,
) -> DepthDynamics:
    """Trajectories through depth of the tokens after each row's first.

    `tokens`: `Sequences`, rows [n, time], a text or stream (cut into rows of `context`; a shorter one is a row), or
    None for about `n_tokens` tokens of held-out files of Python's library. Where `progress` raises, `partial` is given
    the trajectories of the rows that were read, if any: rows go through the model together, up to some 2**24 numbers,
    so that of a small model they are read all or none. Raises ValueError for a model of numbers, or fewer than 4
    tokens.
    """
    if getattr(getattr(model, "config", None), "d_input", 0):
        raise ValueError(
            f"trajectories of tokens were asked for; {model.model_name} takes real-valued inputs; use a language model"
        )
    given = _rows(model, tokens, n_tokens, context, seed)
    rows = torch.from_numpy(given.rows)
    n_layers, time = model.cfg.n_layers, rows.shape[1]
    together = max(1, _NUMBERS // ((n_layers + 1) * time * model.cfg.d_model))
    total = _Trajectories(n_layers, model.cfg.d_model, seed)
    settings = {
        "rows": len(rows), "context": time, "sequences": len(np.unique(given.sequence)),
        "tokens": "library" if tokens is None else "given",
    }  # fmt: skip

    def result() -> DepthDynamics:
        found = total.found()
        return DepthDynamics(
            **found,
            kinds=kinds(model),
            n_tokens=found["convergence"].shape[1],
            provenance=provenance_of(model, seed=seed, settings=settings, control=_CONTROL),
        )

    tick = keeping(progress, partial, lambda: result() if total.n_rows else None)
    with evaluating(model):
        for part in rows.split(together):
            tick(total.n_rows, len(rows), "through the blocks")
            _, resid = residuals(model, part)
            total.add(torch.stack([h[:, 1:].flatten(0, 1).double().cpu() for h in resid]), len(part))
    return result()


def _rows(model: Any, tokens: Any, n_tokens: int, context: int, seed: int) -> Sequences:
    given = (
        library_sequences(model, max(1, n_tokens // (context - 1)), context, seed)
        if tokens is None
        else sequences_of(model, tokens, context)
    )
    n = given.rows.shape[0] * (given.rows.shape[1] - 1)
    if n < 4:
        raise ValueError(f"trajectories of {n} tokens were asked for, without the first of each row; give 4 or more")
    return given


class _Trajectories:
    """Sums over tokens, and the two measures kept for each."""

    def __init__(self, n_layers: int, d_model: int, seed: int) -> None:
        self.n_layers, self.n_rows = n_layers, 0
        self.kept: dict[str, list[np.ndarray]] = {}
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, Tensor] = {}
        self.generator = torch.Generator().manual_seed(seed)

    def add(self, h: Float[Tensor, "depth token d_model"], n_rows: int) -> None:
        """Tokens of `n_rows` rows: their residual stream after 0..L blocks."""
        self.n_rows += n_rows
        n = h.shape[1]
        # Another token of these rows for each: a cycle in random order, so that none is its own.
        order = torch.randperm(n, generator=self.generator)
        other = torch.empty_like(order)
        other[order] = order.roll(1)
        u = h[1:] - h[:-1]
        state, update = _unit(h, h.norm(dim=-1)), _unit(u, h[1:].norm(dim=-1))
        for suffix, b in (("", state), ("_control", state[:, other])):
            self._keep(f"convergence{suffix}", (state * b[-1]).sum(-1))
            cosine = (state[:-1] * b[1:]).sum(-1).clamp(-1, 1)
            self._keep(f"speed{suffix}", torch.rad2deg(torch.arccos(cosine)))
            self._similar(f"similarity_state{suffix}", state, b)
        for suffix, b in (("", update), ("_control", update[:, other])):
            self._similar(f"similarity_update{suffix}", update, b)
        random = torch.randn(u.shape, generator=self.generator, dtype=u.dtype)
        random = random * (u.norm(dim=-1) / random.norm(dim=-1))[..., None]
        for suffix, v, unit in (("", u, update), ("_control", random, _unit(random, h[1:].norm(dim=-1)))):
            self._sum(f"gram{suffix}", v.mT @ v)
            known = torch.isfinite(unit[..., 0])
            self._sum(f"units{suffix}", torch.where(known[..., None], unit, 0.0).sum(1))
            self._sum(f"known{suffix}", known.sum(1).double())

    def found(self) -> dict[str, np.ndarray]:
        """The measures over all tokens."""
        out = {name: np.concatenate(parts, 1) for name, parts in self.kept.items()}
        for name in ("similarity_state", "similarity_update"):
            for full in (name, f"{name}_control"):
                out[full] = (self.sums[full] / self.counts[full]).numpy()
        for suffix in ("", "_control"):
            gram, n = self.sums[f"gram{suffix}"], self.sums[f"known{suffix}"]
            largest = torch.linalg.eigvalsh(gram)[:, -1]
            trace = gram.diagonal(dim1=1, dim2=2).sum(1)
            out[f"stable_rank{suffix}"] = torch.where(trace > 0, trace / largest, torch.nan).numpy()
            square = self.sums[f"units{suffix}"].square().sum(1)
            out[f"coherence{suffix}"] = torch.where(n > 1, (square - n) / (n * (n - 1)), torch.nan).numpy()
        return out

    def _keep(self, name: str, values: Tensor) -> None:
        self.kept.setdefault(name, []).append(values.numpy())

    def _sum(self, name: str, values: Tensor) -> None:
        self.sums[name] = self.sums[name] + values if name in self.sums else values

    def _similar(self, name: str, a: Tensor, b: Tensor) -> None:
        """Sums of cosines over tokens where both have a direction, and how many those are."""
        known_a, known_b = (torch.isfinite(x[..., 0]).double() for x in (a, b))
        self._sum(name, torch.einsum("ltd,mtd->lm", torch.nan_to_num(a), torch.nan_to_num(b)))
        count = known_a @ known_b.mT
        self.counts[name] = self.counts[name] + count if name in self.counts else count


def _unit(v: Tensor, size: Tensor) -> Tensor:
    """`v` at unit length; NaN where it is the rounding of float32, against `size`."""
    long = v.norm(dim=-1)
    short = long <= 4 * torch.finfo(torch.float32).eps * size
    return torch.where(short[..., None], torch.nan, v / long[..., None])
