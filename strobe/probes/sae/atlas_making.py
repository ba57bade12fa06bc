"""Making a `FeatureAtlas`: one pass over held-out text, kept as the activations that are not zero."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from strobe.core.memory import refuse_if_too_large
from strobe.probes.lens.readout import evaluating, model_readout, residuals
from strobe.probes.provenance import provenance_of
from strobe.probes.sae.atlas import BANDS, PER_BAND, FeatureAtlas
from strobe.probes.sae.autoencoder import SparseAutoencoder
from strobe.probes.sae.stream import rows_of

Progress = Callable[[int, int, str], None]
_ROWS = 16
_BINS, _TOP, _FOUND = 24, 10, 20
_BEFORE, _AFTER = 14, 6


class _Active(NamedTuple):
    """Activations that are not zero: row, position and feature of each, and its value."""

    row: np.ndarray
    position: np.ndarray
    feature: np.ndarray
    value: np.ndarray


@torch.no_grad()
def feature_atlas(
    model: Any,
    sae: SparseAutoencoder,
    data: Any,
    *,
    n_tokens: int = 65_536,
    context: int = 128,
    skip: int = 1,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> FeatureAtlas:
    """The atlas of `sae` on the first `n_tokens` of `data` (a text, token ids, or a corpus: its "valid" split).

    The first `skip` positions of each row are not counted. A carry is read at every position. Raises ValueError for an
    autoencoder of another model, or one that never fires on this text.
    """
    sae.check(model)
    rows = rows_of(model, data, "valid", context).in_order(n_tokens)
    with evaluating(model):
        active = _active(model, sae, rows, skip, on_progress, "reading the text")
        if not len(active.value):
            raise ValueError(
                f"no feature of the autoencoder of {sae.hook_name!r} fires on these {rows.numel()} tokens; it is not "
                "one of this model and hook point, or its thresholds are too high"
            )
        order = np.random.default_rng(seed).permutation(rows.numel())
        shuffled = rows.flatten()[torch.from_numpy(order)].reshape(rows.shape)
        control = _active(model, sae, shuffled[: max(1, len(rows) // 2)], skip, on_progress, "reading it shuffled")
        ids, effects = _logit_effects(model, sae, rows)
    counted = rows.shape[0] * (rows.shape[1] - skip)
    counted_control = max(1, len(rows) // 2) * (rows.shape[1] - skip)
    at, words, values = _passages(active, rows.numpy(), sae.d_sae)
    named, features, means = _by_token(active, rows.numpy(), skip, ids)
    n = np.bincount(active.feature, minlength=sae.d_sae)
    maximum = np.zeros(sae.d_sae)
    np.maximum.at(maximum, active.feature, active.value)
    sums = np.bincount(active.feature, active.value, sae.d_sae)
    part = np.minimum((active.value / maximum[active.feature] * _BINS).astype(int), _BINS - 1)
    histogram = np.bincount(active.feature * _BINS + part, minlength=sae.d_sae * _BINS).reshape(-1, _BINS)
    return FeatureAtlas(
        hook_name=sae.hook_name,
        sae_hash=sae.weights_hash(),
        density=n / counted,
        control_density=np.bincount(control.feature, minlength=sae.d_sae) / counted_control,
        maximum=maximum,
        mean_active=np.divide(sums, n, out=np.zeros(sae.d_sae), where=n > 0),
        histogram=histogram.astype(np.int32),
        logit_tokens=ids,
        logit_effects=effects,
        passage_at=at,
        passage_tokens=words,
        passage_values=values,
        token_ids=named,
        token_texts=[_text(model, int(i)) for i in named],
        token_features=features,
        token_means=means,
        before=_BEFORE,
        n_tokens=counted,
        provenance=provenance_of(
            model,
            seed=seed,
            settings={
                "hook_name": sae.hook_name, "head": sae.head, "kind": sae.kind, "sae": sae.weights_hash(),
                "n_tokens": rows.numel(), "context": rows.shape[1], "skip": skip,
            },
            control="the same tokens in random order (half as many rows)",
        ),
    )  # fmt: skip


def _active(
    model: Any, sae: SparseAutoencoder, rows: Tensor, skip: int, on_progress: Progress | None, what: str
) -> _Active:
    parts: list[tuple[np.ndarray, ...]] = []
    device = next(model.parameters()).device
    positions = list(range(skip, rows.shape[1]))
    for first in range(0, len(rows), _ROWS):
        if on_progress is not None:
            on_progress(first, len(rows), what)
        features = sae.encode(sae.site.read(model, rows[first : first + _ROWS].to(device), positions))
        row, position, feature = features.nonzero(as_tuple=True)
        value = features[row, position, feature]
        if first == 0:
            whole = len(value) * (len(rows) / min(_ROWS, len(rows)))
            refuse_if_too_large(
                int(whole * 64),
                f"the {whole:.0f} activations of {sae.d_sae} features on {rows.numel()} tokens",
                "read fewer tokens",
            )
        found = (row + first, position + skip, feature)
        parts.append((*(i.cpu().numpy() for i in found), value.double().cpu().numpy()))
    return _Active(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _logit_effects(model: Any, sae: SparseAutoencoder, rows: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Top raised and lowered tokens of each feature: the readout's derivative at the mean last residual."""
    if sae.site.is_state or sae.d_in != model.cfg.d_model:
        return np.zeros((sae.d_sae, 2, 0), np.int64), np.zeros((sae.d_sae, 2, 0))
    read = model_readout(model)
    _, resid = residuals(model, rows[:4])
    last = resid[-1].to(read.dtype)
    # The mean direction, at the length a residual usually has: the mean itself is shorter, and the norm divides by it.
    mean = last.flatten(0, 1).mean(0)
    mean = mean * (last.norm(dim=-1).mean() / mean.norm().clamp(min=1e-12))
    top = min(_TOP, read.d_vocab)
    ids, effects = [], []
    for part in sae.decoder.to(read.dtype).split(64):
        moved = torch.as_tensor(torch.autograd.functional.jvp(read, mean.expand_as(part).contiguous(), part)[1])
        moved = moved - moved.mean(-1, keepdim=True)
        high, low = moved.topk(top, dim=-1), moved.topk(top, dim=-1, largest=False)
        ids.append(torch.stack([high.indices, low.indices], 1))
        effects.append(torch.stack([high.values, low.values], 1))
    return torch.cat(ids).cpu().numpy(), torch.cat(effects).double().cpu().numpy()


def _passages(active: _Active, rows: np.ndarray, d_sae: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row and position, tokens, values) of each feature's passages, -1, -1 and 0 where there is none."""
    count, width = sum(PER_BAND), _BEFORE + 1 + _AFTER
    at = np.full((d_sae, count, 2), -1, np.int32)
    words = np.full((d_sae, count, width), -1, np.int32)
    values = np.zeros((d_sae, count, width), np.float32)
    order = np.lexsort((-active.value, active.feature))
    bounds = np.searchsorted(active.feature[order], np.arange(d_sae + 1))
    for feature in range(d_sae):
        mine = order[bounds[feature] : bounds[feature + 1]]
        if not len(mine):
            continue
        lookup = dict(zip(zip(active.row[mine], active.position[mine], strict=True), active.value[mine], strict=True))
        for slot, i in _chosen(active, mine):
            row, position = int(active.row[i]), int(active.position[i])
            at[feature, slot] = row, position
            for w in range(width):
                p = position - _BEFORE + w
                if 0 <= p < rows.shape[1]:
                    words[feature, slot, w] = rows[row, p]
                    values[feature, slot, w] = lookup.get((row, p), 0.0)
    return at, words, values


def _chosen(active: _Active, mine: np.ndarray) -> list[tuple[int, int]]:
    """(slot, index) of the passages of one feature, whose activations `mine` are in falling order. At most one a row in
    each band, so that one repetitive line does not fill it."""
    share = active.value[mine] / active.value[mine[0]]
    low = (0.0, 0.75, 0.5, 0.25, 0.0)
    high = (2.0, 2.0, 0.75, 0.5, 0.25)
    found, slot, used = [], 0, set()
    for band in range(len(BANDS)):
        rows: set[int] = set()
        here = mine[(share > low[band]) & (share <= high[band])]
        if band:
            # Spread over the band, not its strongest end.
            here = here[np.random.default_rng(band).permutation(len(here))]
        taken = []
        for i in here:
            if len(taken) == PER_BAND[band]:
                break
            if int(active.row[i]) not in rows and i not in used:
                taken.append(int(i))
                rows.add(int(active.row[i]))
        used.update(taken)
        taken.sort(key=lambda i: -active.value[i])
        found += [(slot + n, i) for n, i in enumerate(taken)]
        slot += PER_BAND[band]
    return found


def _by_token(
    active: _Active, rows: np.ndarray, skip: int, logit_tokens: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(ids of all tokens that are named, the features with the largest mean on each, those means)."""
    seen = np.bincount(rows[:, skip:].ravel(), minlength=int(rows.max()) + 1)
    ids = np.union1d(np.unique(rows), np.unique(logit_tokens)).astype(np.int64)
    n_features = int(active.feature.max()) + 1
    token = rows[active.row, active.position]
    every = token.astype(np.int64) * n_features + active.feature
    pairs = np.asarray(np.unique(every))
    inverse = np.searchsorted(pairs, every)
    means = np.bincount(inverse, active.value) / seen[pairs // n_features]
    features, best = np.full((len(ids), _FOUND), -1, np.int32), np.zeros((len(ids), _FOUND), np.float32)
    place = np.searchsorted(ids, pairs // n_features)
    order = np.lexsort((-means, place))
    starts = np.searchsorted(place[order], np.arange(len(ids) + 1))
    for i in range(len(ids)):
        mine = order[starts[i] : starts[i + 1]][:_FOUND]
        features[i, : len(mine)] = pairs[mine] % n_features
        best[i, : len(mine)] = means[mine]
    return ids, features, best


def _text(model: Any, token: int) -> str:
    return f"[{token}]" if model.tokenizer is None else str(model.to_string([token]))
