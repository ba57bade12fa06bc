"""What every lens can do, and the logit lens (nostalgebraist 2020): ``W_U LN_f(h_l)``, the readout applied too
early.
"""

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from strobe.probes.lens.readout import Readout, model_readout

if TYPE_CHECKING:
    from strobe.probes.lens.evaluation import LensEvaluation
    from strobe.probes.lens.trajectory import LensTrajectory
    from strobe.probes.lens.transfer import LensTransfer


class Lens:
    """A map from ``resid[l]``, l = 0..L-1, to what goes through the model's readout; l = L is left as it is.

    As a callable it is what ``transformer_lens.tools.analysis.logit_lens(..., lens=lens)`` takes.
    """

    kind: str
    mean_probabilities: Tensor | None = None
    """The model's output distribution averaged over the tokens the lens was fitted on [d_vocab]; None if it was not
    fitted.
    """

    def transform(self, h: Float[Tensor, "*batch d_model"], layer: int) -> Float[Tensor, "*batch d_model"]:
        """What the readout is given in place of ``resid[layer]``."""
        raise NotImplementedError

    def __call__(self, h: Tensor, layer: int) -> Tensor:
        """Same as `transform`."""
        return self.transform(h, layer)

    def logits(self, read: Readout, h: Tensor, layer: int) -> Tensor:
        """The lens's logits [..., d_vocab] at `layer` for residual vectors `h` [..., d_model]."""
        return read(self.transform(h.to(read.dtype), layer))

    def check_model(self, model: Any) -> None:
        """Raise ValueError if this lens was fitted on another model. A logit lens fits every model."""

    def trajectory(
        self, model: Any, text_or_tokens: Any, *, top_k: int = 10, max_tokens: int = 512, seed: int = 0
    ) -> "LensTrajectory":
        """What the model would predict after each layer at each token of one text, by this lens and by the logit lens.

        `text_or_tokens`: a text, or token ids [time] or [1, time]. `seed`: of the control's permutation, where it has
        one. Raises ValueError for more than `max_tokens` tokens, and for a lens of another model.
        """
        from strobe.probes.lens.reading import lens_trajectory

        return lens_trajectory(self, model, text_or_tokens, top_k=top_k, max_tokens=max_tokens, seed=seed)

    def evaluate(
        self,
        model: Any,
        tokens: Any,
        n_bytes: int | None = None,
        *,
        context: int = 128,
        batch: int = 16,
        transfer_tokens: int = 4096,
    ) -> "LensEvaluation":
        """Per layer: cross-entropy, KL, entropy, bias, prediction depth and transfer penalty, over many tokens.

        `tokens`: token ids [rows, time], or a text or stream [n_tokens] that is cut into rows of `context`. `n_bytes`:
        how many bytes of text they spell; without it (and without a text) cross-entropies are shown in bits per token.
        `transfer_tokens`: about how many tokens the transfer matrix (L² readouts) is measured on; 0 for none. Raises
        ValueError for a lens of another model.
        """
        from strobe.probes.lens.evaluating import evaluate_lens

        return evaluate_lens(
            self, model, tokens, n_bytes, context=context, batch=batch, transfer_tokens=transfer_tokens
        )

    def transfer(self, model: Any, tokens: Any, *, context: int = 128, batch: int = 16) -> "LensTransfer":
        """Cross-entropy of each layer's translator on each layer's activations; `tokens` as in `evaluate`."""
        from strobe.probes.lens.transferring import transfer_penalty

        return transfer_penalty(self, model, tokens, context=context, batch=batch)


class LogitLens(Lens):
    """The identity at every layer. Nothing to fit: it is also what an untrained tuned lens is."""

    kind = "logit"

    def transform(self, h: Float[Tensor, "*batch d_model"], layer: int) -> Float[Tensor, "*batch d_model"]:
        """`h` itself."""
        return h


def checked_readout(lens: Lens, model: Any) -> Readout:
    """The checked readout of `model`, after `lens` agreed that this is its model."""
    lens.check_model(model)
    return model_readout(model)


def signed_permutation(d: int, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(order [d], signs [d]) of a random signed permutation of d coordinates: an orthogonal map that costs nothing."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(d, generator=generator)
    signs = torch.randint(0, 2, (d,), generator=generator) * 2.0 - 1.0
    return order.to(device), signs.to(device)
