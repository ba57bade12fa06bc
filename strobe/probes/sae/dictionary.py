"""`Dictionary`: the parameters of an autoencoder while it is trained, kept on the unit sphere where they live there.

The decoder's rows have unit length, or shrinking them and growing the features would cheat the sparsity penalty; the
part of their gradient along themselves is taken out before each step, or it would feed Adam's moments with what the
normalisation undoes (Bricken et al. 2023). Rank-1 atoms have both factors of unit length.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from strobe.probes.sae.config import SaeConfig
from strobe.probes.sae.objective import Weights


class Dictionary:
    """`parameters` by name: b_enc, b_dec, (log_threshold), and W_enc, W_dec or the four factors [d_sae, key or value].

    `shape`: of one vector before it was flattened. Raises ValueError where rank-1 atoms are asked for and it is not a
    matrix.
    """

    def __init__(self, config: SaeConfig, shape: tuple[int, ...], device: Any = None) -> None:
        self.config, self.shape = config, shape
        generator = torch.Generator().manual_seed(config.seed)
        d_in = int(torch.Size(shape).numel())
        start: dict[str, Tensor] = {}
        if config.atoms == "rank1":
            if len(shape) != 2:
                raise ValueError(
                    f"rank-1 atoms were asked for; what is there has shape {shape} at each token, and they need a "
                    "matrix: choose one head, or vector atoms"
                )
            for name, width in (("key", shape[0]), ("value", shape[1])):
                unit = F.normalize(torch.randn(config.d_sae, width, generator=generator), dim=1)
                start |= {f"enc_{name}": unit.clone(), f"dec_{name}": unit}
        else:
            unit = F.normalize(torch.randn(config.d_sae, d_in, generator=generator), dim=1)
            start |= {"W_enc": unit.T.contiguous(), "W_dec": unit}
        start |= {"b_enc": torch.zeros(config.d_sae), "b_dec": torch.zeros(d_in)}
        if config.kind == "jumprelu":
            start["log_threshold"] = torch.full((config.d_sae,), config.first_threshold).log()
        self.parameters = {n: t.to(device).requires_grad_() for n, t in start.items()}

    def weights(self) -> Weights:
        """The weights as the loss reads them; gradients reach the parameters."""
        p = self.parameters
        if self.config.atoms == "rank1":
            W_enc = torch.einsum("fk,fv->kvf", p["enc_key"], p["enc_value"]).flatten(0, 1)
            W_dec = torch.einsum("fk,fv->fkv", p["dec_key"], p["dec_value"]).flatten(1)
        else:
            W_enc, W_dec = p["W_enc"], p["W_dec"]
        return Weights(W_enc, p["b_enc"], W_dec, p["b_dec"], p.get("log_threshold"))

    @torch.no_grad()
    def before_step(self) -> None:
        """Take out of the decoder's gradient what is parallel to it."""
        for rows in self._on_sphere():
            if rows.grad is not None:
                rows.grad.sub_((rows.grad * rows).sum(1, keepdim=True) * rows)

    @torch.no_grad()
    def after_step(self) -> None:
        """Bring the decoder's rows back to unit length."""
        for rows in self._on_sphere():
            rows.copy_(F.normalize(rows, dim=1))

    def _on_sphere(self) -> list[Tensor]:
        return [t for n, t in self.parameters.items() if n == "W_dec" or n.startswith("dec_")]
