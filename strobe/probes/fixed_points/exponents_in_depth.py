"""`layer_exponents`: how a disturbance of one token's residual stream grows or fades on its way through the blocks.

Blocks with weights of their own are a different map at every depth, so there is nothing to stand still and no Lyapunov
exponent in the limit. What there is are finite-time exponents: with J_l the Jacobian of block l at the stream of one
token (by causality its part of the whole Jacobian is a diagonal block), Q_0 = 1 and J_l Q_l-1 = Q_l R_l,

    exponent_i = (1 / L) sum_l ln |R_l,ii|         in nats a block; their sum is that of ln |det J_l| / L

(Benettin et al. 1980's method, over depth instead of time: ours).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from strobe.core.result import Result
from strobe.probes.fixed_points.block_passes import apply_block, n_blocks, streams
from strobe.probes.fixed_points.held import as_inputs
from strobe.probes.provenance import provenance_of

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

# Rows of a Jacobian that one pass gives: copies of the text in a batch.
_ROWS = 64


@dataclass(frozen=True)
class LayerExponents(Result):
    """Finite-time exponents over depth, largest first.

    `positions` [position], `tokens` [position]: whose streams. `exponents` [position, d_model]: nats a block. `stretch`
    [block, position]: ln of the largest singular value of that block's Jacobian. `shuffled` [position, draw]: the
    control, the largest exponent when the same Jacobians come in a random order.
    """

    positions: list[int]
    tokens: list[str]
    exponents: Float64[np.ndarray, "position d_model"]
    stretch: Float64[np.ndarray, "block position"]
    shuffled: Float64[np.ndarray, "position draw"]

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """The exponents of each token by rank, with the largest one's range under shuffled orders."""
        from strobe.probes.fixed_points import depth_figures

        return depth_figures.exponents(self, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per token and rank."""
        import pandas as pd

        n, d = self.exponents.shape
        return pd.DataFrame(
            {
                "position": np.repeat(self.positions, d),
                "token": np.repeat(np.array(self.tokens, dtype=object), d),
                "rank": np.tile(np.arange(d), n),
                "exponent": self.exponents.ravel(),
                "largest_shuffled": np.repeat(self.shuffled.mean(1), d),
            }
        )

    def summary(self) -> str:
        """The largest exponent, how many are positive, the control, and the provenance."""
        largest, null = self.exponents[:, 0], self.shuffled
        lines = [
            f"finite-time exponents over {len(self.stretch)} blocks of {self.provenance.model}, {len(largest)} tokens",
            f"  largest {np.mean(largest):.3g} nats a block (blocks in random order: {null.mean():.3g} ± "
            f"{null.std():.2g}); {(self.exponents > 0).mean():.0%} of all are positive",
        ]
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])


def layer_exponents(
    model: Any, text: Any, positions: list[int] | None = None, *, draws: int = 8, seed: int = 0
) -> LayerExponents:
    """The exponents of the streams of `text` (a text, ids, or real inputs) at `positions` (None: the last token).

    Any model with residual blocks, recurrent or not. Raises ValueError for a position outside the text.
    """
    tokens, n = as_inputs(model, text), n_blocks(model)
    time = tokens.shape[1]
    chosen = [time - 1] if positions is None else [p % time if -time <= p < time else p for p in positions]
    if not chosen or any(not 0 <= p < time for p in chosen):
        raise ValueError(f"positions {positions} were asked for; the text has {time} tokens")
    before = streams(model, tokens)
    jacobians = [[_jacobian(model, tokens, block, before[block], p) for block in range(n)] for p in chosen]
    generator = np.random.default_rng(seed)
    orders = [generator.permutation(n).tolist() for _ in range(draws)]
    ids = None if tokens.is_floating_point() else tokens[0].tolist()
    return LayerExponents(
        positions=chosen,
        tokens=[str(p) if ids is None else _word(model, ids[p]) for p in chosen],
        exponents=np.stack([_exponents(J) for J in jacobians]),
        stretch=np.array([[float(torch.linalg.svdvals(J[l])[0].log()) for J in jacobians] for l in range(n)]),
        shuffled=np.array([[_exponents([J[l] for l in order])[0] for order in orders] for J in jacobians]),
        provenance=provenance_of(
            model,
            seed=seed,
            settings={"tokens": tokens[0].tolist(), "positions": chosen, "draws": draws},
            control=f"the same blocks' Jacobians in {draws} random orders",
        ),
    )


def _jacobian(model: Any, tokens: Tensor, block: int, stream: Tensor, position: int) -> Tensor:
    """The derivative d (block's output at `position`) / d (its input there) [d_model, d_model], float64.

    As many rows as the batch has copies of the text: copy i is asked for output i alone, in one backward pass.
    """
    d, parts = stream.shape[-1], []
    for first in range(0, d, _ROWS):
        rows = min(_ROWS, d - first)
        copies = tokens.expand(rows, *tokens.shape[1:])
        with torch.enable_grad():
            x = stream.expand(rows, *stream.shape[1:]).clone().requires_grad_(True)
            out = apply_block(model, copies, block, x)
            asked = out[torch.arange(rows), position, first + torch.arange(rows)].sum()
            parts.append(torch.autograd.grad(asked, x)[0][:, position])
    return torch.cat(parts).double()


def _exponents(jacobians: list[Tensor]) -> np.ndarray:
    Q = torch.eye(len(jacobians[0]), dtype=torch.float64)
    total = torch.zeros(len(Q), dtype=torch.float64)
    for J in jacobians:
        Q, R = torch.linalg.qr(J @ Q)
        total += R.diagonal().abs().log()
    return (total / len(jacobians)).sort(descending=True).values.numpy()


def _word(model: Any, token: int) -> str:
    return model.tokenizer.decode([token]) if getattr(model, "tokenizer", None) is not None else str(token)
