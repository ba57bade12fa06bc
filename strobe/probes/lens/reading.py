"""Reads one text through a lens: torch in, a `LensTrajectory` of numpy arrays out."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from strobe.probes.lens.logit_lens import Lens, LogitLens, checked_readout, signed_permutation
from strobe.probes.lens.readout import Readout, residuals
from strobe.probes.lens.trajectory import LensTrajectory
from strobe.probes.provenance import provenance_of

_CONSTANT = (
    "constant lens: at every token the model's output distribution averaged over the tokens the lens was fitted on"
)
_SCRAMBLED = (
    "residual stream of equal norm with its coordinates permuted and their signs drawn at random, then read out"
)


class Reading(NamedTuple):
    """What one layer's lens says at each of `time` tokens. Nats; ranks count from 1; the last token's target is unknown
    (NaN).
    """

    top_ids: Int[Tensor, "time k"]
    top_probabilities: Float[Tensor, "time k"]
    final_rank: Int[Tensor, " time"]
    target_rank: Float[Tensor, " time"]
    target_probability: Float[Tensor, " time"]
    entropy: Float[Tensor, " time"]
    kl: Float[Tensor, " time"]
    cross_entropy: Float[Tensor, " time"]


class _Truth(NamedTuple):
    """What lenses are compared with, worked out once for all of them: the model's log-probabilities and probabilities,
    its most probable token, and the next token of the text (-1 where unknown).
    """

    log_p: Float[Tensor, "time vocab"]
    p: Float[Tensor, "time vocab"]
    final: Int[Tensor, " time"]
    targets: Int[Tensor, " time"]

    def rows(self, which: slice) -> "_Truth":
        return _Truth(*(x[which] for x in self))


def _read_layer(log_q: Float[Tensor, "time vocab"], truth: _Truth, k: int) -> Reading:
    """Compare a lens's log-probabilities `log_q` with the model's."""
    top = log_q.topk(k, -1)
    q = log_q.exp()
    cross_entropy = _cross_entropy(log_q, truth.targets)
    known = truth.targets >= 0
    rank = token_rank(log_q, truth.targets.clamp(min=0)).to(log_q.dtype)
    return Reading(
        top_ids=top.indices,
        top_probabilities=top.values.exp(),
        final_rank=token_rank(log_q, truth.final),
        target_rank=torch.where(known, rank, torch.nan),
        target_probability=(-cross_entropy).exp(),
        # A token that is ruled out (-inf) adds nothing.
        entropy=-torch.where(q > 0, q * log_q, 0.0).sum(-1),
        kl=_kl(truth.p, truth.log_p, log_q),
        cross_entropy=cross_entropy,
    )


def _cross_entropy(log_q: Tensor, targets: Tensor) -> Tensor:
    """Nats [time] of the next token; NaN where it is unknown."""
    nats = -log_q.gather(-1, targets.clamp(min=0)[:, None])[:, 0]
    return torch.where(targets >= 0, nats, torch.nan)


def kl_divergence(
    log_p: Float[Tensor, "*batch vocab"], log_q: Float[Tensor, "*batch vocab"]
) -> Float[Tensor, "*batch"]:
    """KL(p || q) = Σ p (log p - log q), nats, from log-probabilities. In that order: p is the model's, q the lens's."""
    return _kl(log_p.exp(), log_p, log_q)


def _kl(p: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
    # A token that both rule out (-inf) adds nothing.
    return torch.where(p > 0, p * (log_p - log_q), 0.0).sum(-1)


def token_rank(log_q: Float[Tensor, "time vocab"], ids: Int[Tensor, " time"]) -> Int[Tensor, " time"]:
    """1 plus the number of tokens that are strictly more probable than `ids`."""
    return 1 + (log_q > log_q.gather(-1, ids[:, None])).sum(-1)


def lens_trajectory(
    lens: Lens, model: Any, text_or_tokens: Any, *, top_k: int, max_tokens: int, seed: int
) -> LensTrajectory:
    """See `Lens.trajectory`."""
    read = checked_readout(lens, model)
    tokens = one_row(model, text_or_tokens, max_tokens)
    k = min(top_k, read.d_vocab)
    logits, resid = residuals(model, tokens)
    log_p = logits[0].double().log_softmax(-1)
    targets = torch.cat([tokens[0, 1:], tokens.new_full((1,), -1)]).to(log_p.device)
    lenses = [lens] if lens.kind == "logit" else [lens, LogitLens()]
    truth = _Truth(log_p, log_p.exp(), log_p.argmax(-1), targets)
    # The last layer is the model's own output, which the readout only approximates where the model is in half
    # precision; it is the same whatever the lens.
    last = _in_chunks(lambda rows: _read_layer(log_p[rows], truth.rows(rows), k), read, len(log_p))
    rows = [[*_layers(each, read, resid[:-1], truth, k), last] for each in lenses]
    control = _control(lens, read, resid, truth, seed)

    def stack(name: str) -> Any:
        return torch.stack([torch.stack([getattr(r, name) for r in layers]) for layers in rows]).cpu().numpy()

    arrays = {name: stack(name) for name in Reading._fields}
    ids = tokens[0].tolist()
    seen = sorted({*ids, *arrays["top_ids"].ravel().tolist()})
    n_bytes, n_spelling = _bytes(model, text_or_tokens, ids)
    return LensTrajectory(
        lenses=tuple(each.kind for each in lenses),
        token_ids=tokens[0].cpu().numpy(),
        vocabulary={i: token_text(model, i) for i in seen},
        **arrays,
        control_kl=control.kl,
        control_cross_entropy=control.cross_entropy,
        n_bytes=n_bytes,
        n_spelling_tokens=n_spelling,
        provenance=provenance_of(
            model,
            seed=seed,
            settings={"lens": lens.kind, "top_k": k, "tokens": len(ids)},
            control=_SCRAMBLED if lens.mean_probabilities is None else _CONSTANT,
        ),
    )


def _layers(lens: Lens, read: Readout, resid: list[Tensor], truth: _Truth, k: int) -> list[Reading]:
    def reading(h: Tensor, layer: int, rows: slice) -> Reading:
        return _read_layer(_log_q(lens, read, h[0, rows], layer), truth.rows(rows), k)

    return [
        _in_chunks(lambda rows, h=h, layer=layer: reading(h, layer, rows), read, h.shape[1])
        for layer, h in enumerate(resid)
    ]


def _in_chunks(reading: Callable[[slice], Reading], read: Readout, time: int) -> Reading:
    """`reading` of all tokens, so many at a time that their logits are not too large."""
    size = read.chunk_rows()
    parts = [reading(slice(i, i + size)) for i in range(0, time, size)]
    return Reading(*(torch.cat(field) for field in zip(*parts, strict=True)))


def _log_q(lens: Lens, read: Readout, h: Tensor, layer: int) -> Tensor:
    with torch.no_grad():
        return lens.logits(read, h, layer).double().log_softmax(-1)


class _Control(NamedTuple):
    kl: Any
    cross_entropy: Any


def _control(lens: Lens, read: Readout, resid: list[Tensor], truth: _Truth, seed: int) -> _Control:
    """KL and cross-entropy [L+1, time] of the null lens, which knows nothing of the residual stream it reads.

    For a fitted lens: a constant distribution, the model's own average output. Fitting translators to activations
    shuffled over positions tends to this, since nothing but the average can then be learned and no constant has a
    smaller expected KL; so it is that control at its best, exact and free. For a logit lens, which is not fitted: the
    residual stream with its coordinates permuted and sign-flipped at random, which keeps every norm and destroys the
    alignment with W_U.
    """
    if lens.mean_probabilities is not None:
        log_q = lens.mean_probabilities.to(truth.log_p.device).double().log().expand_as(truth.log_p)
        every = [_null(log_q, truth)] * len(resid)
    else:
        order, signs = signed_permutation(read.d_model, seed, truth.log_p.device)
        scrambled = (h[0].to(read.dtype)[:, order] * signs.to(read.dtype) for h in resid)
        every = [_null(_log_q(lens, read, h, layer), truth) for layer, h in enumerate(scrambled)]
    return _Control(*(torch.stack(rows).cpu().numpy() for rows in zip(*every, strict=True)))


def _null(log_q: Tensor, truth: _Truth) -> tuple[Tensor, Tensor]:
    return _kl(truth.p, truth.log_p, log_q), _cross_entropy(log_q, truth.targets)


def one_row(model: Any, text_or_tokens: Any, max_tokens: int) -> Tensor:
    """Token ids [1, time] of one text or one row of ids. Raises ValueError for several rows or too many tokens."""
    if isinstance(text_or_tokens, str):
        tokens, _ = model.tokenize(text_or_tokens)
    else:
        tokens = torch.as_tensor(text_or_tokens)
        tokens = tokens[None] if tokens.ndim == 1 else tokens
    if tokens.ndim != 2 or tokens.shape[0] != 1 or tokens.shape[1] == 0:
        raise ValueError(
            f"a trajectory is of one text; found token ids of shape {tuple(tokens.shape)}; give [time] or [1, time]"
        )
    if tokens.shape[1] > max_tokens:
        raise ValueError(
            f"a trajectory of at most {max_tokens} tokens was asked for; the text has {tokens.shape[1]}; give a "
            "shorter text or a larger max_tokens"
        )
    return tokens.long()


def token_text(model: Any, token: int) -> str:
    """The text of a token id, or the id itself as text where the model came without a tokenizer."""
    return str(token) if model.tokenizer is None else str(model.tokenizer.decode([token]))


def _bytes(model: Any, text_or_tokens: Any, ids: list[int]) -> tuple[int | None, int]:
    """(bytes of text that the tokens spell, how many tokens spell them); None where there is no tokenizer."""
    if model.tokenizer is None:
        return None, len(ids)
    special = set(model.tokenizer.all_special_ids)
    spelling = [i for i in ids if i not in special]
    text = text_or_tokens if isinstance(text_or_tokens, str) else model.tokenizer.decode(spelling)
    return len(text.encode()), len(spelling)
