"""Fits the translators of a tuned lens: all layers in one pass over the data, each to the model's own output.

The loss of layer l is KL(p_final || p_lens,l) averaged over tokens (Belrose et al. 2023, equation 8); no label is used
and no layer's loss reaches another's translator, so layers are fitted together without learning from each other.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from strobe.probes.lens.fit_report import LensFit, UndertrainedLensWarning
from strobe.probes.lens.reading import kl_divergence
from strobe.probes.lens.readout import Readout, residuals
from strobe.probes.lens.token_rows import TokenRows
from strobe.probes.partial import keeping
from strobe.probes.provenance import provenance_of

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what); what it raises ends the fit."""

# Training losses are averaged over this many steps for the report, and looked at for infinities.
_POINT = 10


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How translators are fitted.

    "adam": AdamW, learning rate falling linearly to zero; the default rate and number of steps suit models of a few
    million parameters and are ours. "sgd": the authors' recipe (github.com/AlignmentResearch/tuned-lens): Nesterov
    momentum 0.9, rate 0.1 falling linearly to zero over 250 steps, gradient clipped to norm 1 (here for each layer, so
    that layers stay independent); theirs has 2^18 tokens a step. Weight decay pulls to the identity, since W and b are
    added to it.
    """

    optimizer: Literal["adam", "sgd"] = "adam"
    steps: int = 400
    batch: int = 16
    learning_rate: float | None = None
    weight_decay: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.optimizer not in ("adam", "sgd"):
            raise ValueError(f"optimizer {self.optimizer!r} was asked for; a lens is fitted with 'adam' or 'sgd'")
        if self.steps < 1 or self.batch < 1:
            raise ValueError(f"{self.steps} steps of {self.batch} rows were asked for; give 1 or more of each")

    def make(self, parameters: list[Tensor]) -> tuple[torch.optim.Optimizer, float]:
        """(the optimizer, its initial learning rate)."""
        if self.optimizer == "sgd":
            rate = 0.1 if self.learning_rate is None else self.learning_rate
            options: dict[str, Any] = {"momentum": 0.9, "nesterov": True}
            return torch.optim.SGD(parameters, lr=rate, weight_decay=self.weight_decay, **options), rate
        rate = 3e-3 if self.learning_rate is None else self.learning_rate
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=self.weight_decay), rate


class Translators(NamedTuple):
    """W [L, d_model, d_model] and b [L, d_model]: layer l's translator is h -> h + W_l h + b_l."""

    weight: Float[Tensor, "layer d_model d_model"]
    bias: Float[Tensor, "layer d_model"]

    def __call__(self, h: Tensor, layer: int) -> Tensor:
        return h + h @ self.weight[layer].T + self.bias[layer]


def untrained(read: Readout, device: torch.device) -> Translators:
    """Zero translators: the logit lens."""
    n, d = read.n_layers, read.d_model
    return Translators(
        torch.zeros(n, d, d, dtype=read.dtype, device=device), torch.zeros(n, d, dtype=read.dtype, device=device)
    )


def layer_losses(read: Readout, h: Tensor, weight: Tensor, bias: Tensor, log_p: Tensor) -> Float[Tensor, " layer"]:
    """KL(final || lens), averaged over tokens, of each of some layers.

    h [layer, tokens, d_model], weight [layer, d_model, d_model], bias [layer, d_model], log_p [tokens, d_vocab].
    """
    moved = h + torch.baddbmm(bias[:, None], h, weight.transpose(1, 2))
    return kl_divergence(log_p.expand(len(h), -1, -1), read(moved).log_softmax(-1)).mean(1)


class Fitted(NamedTuple):
    """`translators`, the training KL [steps, L] in nats, the model's mean output distribution [d_vocab] over the
    batches.
    """

    translators: Translators
    losses: np.ndarray
    mean: Tensor


def fit_translators(
    model: Any,
    read: Readout,
    rows: TokenRows,
    recipe: Recipe,
    *,
    bias: bool = True,
    on_progress: Progress | None = None,
    partial: Callable[["Fitted"], None] | None = None,
) -> "Fitted":
    """Fit a translator for every layer.

    Raises FloatingPointError, naming step and layer, if a loss is not finite; whatever `on_progress` raises passes
    through, after `partial` was given what was fitted by then.
    """
    device = next(model.parameters()).device
    start = untrained(read, device)
    # As many layers at a time as their distributions over the vocabulary fit: one, where the vocabulary is large.
    size = max(1, read.chunk_rows() // (recipe.batch * rows.context))
    groups = [
        (slice(i, i + size), start.weight[i : i + size].clone().requires_grad_(), start.bias[i : i + size].clone())
        for i in range(0, read.n_layers, size)
    ]
    for _, _, b in groups:
        b.requires_grad_(bias)
    optimizer, rate = recipe.make([t for _, *both in groups for t in both if t.requires_grad])
    losses = torch.zeros(recipe.steps, read.n_layers, dtype=torch.float64, device=device)
    mean = torch.zeros(read.d_vocab, dtype=torch.float64, device=device)

    def fitted(steps: int) -> Fitted:
        parts = zip(*(both for _, *both in groups), strict=True)
        translators = Translators(*(torch.cat(part).detach() for part in parts))
        return Fitted(translators, losses[:steps].cpu().numpy(), mean / steps)

    tick = keeping(on_progress, partial, lambda: fitted(step + 1))
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / recipe.steps)
        logits, resid = residuals(model, rows.draw(recipe.batch, recipe.seed, step))
        log_p = logits.to(read.dtype).log_softmax(-1).flatten(0, 1)
        mean += log_p.exp().double().mean(0)
        optimizer.zero_grad()
        for layers, w, b in groups:
            h = torch.stack(resid[: read.n_layers][layers]).to(read.dtype).flatten(1, 2)
            by_layer = layer_losses(read, h, w, b, log_p)
            by_layer.sum().backward()
            losses[step, layers] = by_layer.detach().double()
            if recipe.optimizer == "sgd":
                _clip_by_layer(w, b)
        optimizer.step()
        if (step + 1) % _POINT == 0 or step + 1 == recipe.steps:
            _check_finite(losses[: step + 1], recipe)
        tick(step + 1, recipe.steps, f"fitting the lens: step {step + 1} of {recipe.steps}")
    return fitted(recipe.steps)


def _clip_by_layer(w: Tensor, b: Tensor) -> None:
    """Scale the gradient of each layer's translator down to norm 1 where it is longer."""
    gradients = [g for g in (w.grad, b.grad) if g is not None]
    norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)
    for g in gradients:
        g.div_(norms.clamp(min=1.0).view(-1, *[1] * (g.ndim - 1)))


def _check_finite(losses: Tensor, recipe: Recipe) -> None:
    bad = torch.nonzero(~losses.isfinite())
    if len(bad):
        step, layer = bad[0].tolist()
        raise FloatingPointError(
            f"the lens was to be fitted with {recipe.optimizer}, learning rate {recipe.learning_rate or 'default'}; "
            f"the loss of layer {layer} is not finite at step {step}; give a smaller learning_rate"
        )


class HeldOut(NamedTuple):
    """KL(final || lens) per row and layer [row, layer] of tuned and logit lens, and of the constant lens [row]."""

    tuned: Tensor
    logit: Tensor
    constant: Tensor


@torch.no_grad()
def held_out_kl(model: Any, read: Readout, translators: Translators, mean: Tensor, rows: Tensor, batch: int) -> HeldOut:
    """Mean KL of each row of `rows` [row, time], in nats, float64."""
    zero = untrained(read, translators.weight.device)
    parts = []
    for tokens in rows.split(batch):
        logits, resid = residuals(model, tokens)
        log_p = logits.to(read.dtype).log_softmax(-1)

        def kl(which: Translators, log_p: Tensor = log_p, resid: list[Tensor] = resid) -> Tensor:
            by_layer = [
                kl_divergence(log_p, read(which(h.to(read.dtype), layer)).log_softmax(-1)).double().mean(1)
                for layer, h in enumerate(resid[: read.n_layers])
            ]
            return torch.stack(by_layer, 1)

        constant = kl_divergence(log_p.double(), mean.log().expand_as(log_p)).mean(1)
        parts.append(HeldOut(kl(translators), kl(zero), constant))
    return HeldOut(*(torch.cat(field) for field in zip(*parts, strict=True)))


def report(
    model: Any, found: HeldOut, losses: np.ndarray, n_tokens: int, settings: dict[str, Any], seed: int
) -> LensFit:
    """The `LensFit` of a fit; warns (UndertrainedLensWarning) where the tuned lens is worse than the logit lens."""
    n, difference = len(found.tuned), found.tuned - found.logit
    ends = np.unique([*range(_POINT, len(losses), _POINT), len(losses)])
    starts = [0, *ends[:-1]]
    made = LensFit(
        steps=ends,
        training_kl=np.stack([losses[a:b].mean(0) for a, b in zip(starts, ends, strict=True)]),
        tuned_kl=found.tuned.mean(0).cpu().numpy(),
        logit_kl=found.logit.mean(0).cpu().numpy(),
        standard_error=(difference.std(0) / n**0.5 if n > 1 else torch.full_like(difference[0], torch.nan))
        .cpu()
        .numpy(),
        control_kl=float(found.constant.mean()),
        n_held_out_tokens=n_tokens,
        provenance=provenance_of(
            model,
            seed=seed,
            settings=settings,
            control="the logit lens, and a constant lens: the model's output averaged over the fitted tokens",
        ),
    )
    if (text := made.warning()) is not None:
        warnings.warn(text, UndertrainedLensWarning, stacklevel=3)
    return made
