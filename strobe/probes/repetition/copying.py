"""Whether a head writes the token that it looks at: eigenvalues of the OV circuit, measured by experiment.

Elhage et al. 2021 ("Summary statistic: eigenvalues"): with M = W_E W_V W_O W_U from token to token, a head copies where
sum(lambda) / sum |lambda| is near 1. The eigenvalues of M other than 0 are those of (W_U W_E) OV, which is d_model
wide. Here OV is what an attention layer writes when each unit vector stands at a position of its own and a query of
zeros looks at it alone: pattern and input are put there by hooks, so no name of a weight matrix is needed, and the gate
of an attention that has one stands at what zeros make of it. Norms are left out, as there.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from strobe.core import hook_names
from strobe.probes.lens.readout import evaluating

# Unit vectors of one pass; as many queries follow them.
_PIECE = 64


def through_tokens(model: Any) -> Float[Tensor, "d_model d_model"]:
    """W_U W_E in float64: from what is written to the tokens' logits, and back from those tokens to what they embed."""
    W_U, W_E = (w.detach().double() for w in (model.W_U, model.W_E))
    return W_U @ W_E


def copying_scores(
    model: Any, layer: int, heads: int, through: Float[Tensor, "d_model d_model"] | None = None
) -> Float[np.ndarray, " head"]:
    """sum(l) / sum |l| of each of the `heads` of the attention in block `layer`, in [-1, 1].

    `through`: `through_tokens` of the model, the same for every layer. Other mixers have no such score: their value
    path also has a convolution, a gate or a norm, so that no one matrix is their OV circuit.
    """
    through = through_tokens(model) if through is None else through
    eigenvalues = torch.linalg.eigvals(through @ ov_circuits(model, layer, heads).to(through))
    return (eigenvalues.real.sum(-1) / eigenvalues.abs().sum(-1)).cpu().numpy()


def ov_circuits(model: Any, layer: int, heads: int) -> Float[Tensor, "heads d_model d_model"]:
    """What each head of an attention layer writes for each unit vector at its input: row i for unit vector i."""
    d = model.cfg.d_model
    like = next(model.parameters())
    units = torch.eye(d, device=like.device, dtype=like.dtype)
    rows = []
    for piece in units.split(_PIECE):
        silent = _written(model, layer, torch.zeros_like(piece), heads)
        rows.append(_written(model, layer, piece, heads) - silent)
    return torch.cat(rows, 1)


def _written(model: Any, layer: int, x: Float[Tensor, "time d_model"], heads: int) -> Tensor:
    """The mixer's output [heads, time, d_model] at queries of zeros of which each sees, by head h in row h, one of `x`
    alone."""
    out: list[Tensor] = []
    n = len(x)
    pattern = next(p for p in model.hook_dict if p.endswith("hook_pattern") and hook_names.parse(p).layer == layer)
    # The attention's own output, before a norm that some blocks put behind it.
    own = pattern.replace("hook_pattern", "hook_out")
    tokens = torch.zeros(heads, 2 * n, dtype=torch.long, device=x.device)

    def put(inputs: Tensor, hook: Any) -> Tensor:
        return torch.cat([x, torch.zeros_like(x)]).to(inputs).expand(inputs.shape)

    def look(attention: Tensor, hook: Any) -> Tensor:
        alone = torch.zeros_like(attention)
        identity = torch.eye(n, device=attention.device, dtype=attention.dtype)
        alone[range(heads), range(heads), n:, :n] = identity
        return alone

    hooks = [
        (hook_names.hook_name("mixer_in", layer), put),
        (pattern, look),
        (
            own if own in model.hook_dict else hook_names.mixer_out(layer),
            lambda y, hook: out.append(y.detach().clone()),
        ),
    ]
    with evaluating(model), torch.no_grad():
        model.run_with_hooks(tokens, fwd_hooks=hooks, return_type=None)
    return out[0][:, n:].float()
