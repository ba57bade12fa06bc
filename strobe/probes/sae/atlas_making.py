"""Making a `FeatureAtlas`: one pass over held-out text, kept as the activations that are not zero."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from strobe.core import Provenance
from strobe.core.memory import refuse_if_too_large
from strobe.probes.lens.readout import evaluating, model_readout, residuals
from strobe.probes.partial import keeping
from strobe.probes.provenance import provenance_of
from strobe.probes.sae.atlas import BANDS, PER_BAND, FeatureAtlas
from strobe.probes.sae.autoencoder import SparseAutoencoder
from strobe.probes.sae.stream import rows_of
from strobe.probes.side_by_side import words_of

Progress = Callable[[int, int, str], None]
_ROWS = 16
_BINS, _TOP, _FOUND = 24, 10, 20
_BEFORE, _AFTER = 14, 6
_CONTROL = "the same tokens in random order (half as many rows)"


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
    partial: Callable[[FeatureAtlas], None] | None = None,
) -> FeatureAtlas:
    """The atlas of `sae` on the first `n_tokens` of `data` (a text, token ids, or a corpus: its "valid" split).

    The first `skip` positions of each row are not counted. A carry is read at every position. Where `on_progress`
    raises, `partial` is given the atlas of the rows that were read, if any feature fired on them. Raises ValueError for
    an autoencoder of another model, or one that never fires on this text.
    """
    sae.check(model)
    rows = rows_of(model, data, "valid", context).in_order(n_tokens)
    order = np.random.default_rng(seed).permutation(rows.numel())
    shuffled = rows.flatten()[torch.from_numpy(order)].reshape(rows.shape)[: max(1, len(rows) // 2)]
    settings = {
        "hook_name": sae.hook_name, "head": sae.head, "kind": sae.kind, "sae": sae.weights_hash(),
        "n_tokens": rows.numel(), "context": rows.shape[1], "skip": skip,
    }  # fmt: skip
    with evaluating(model):
        effects = _logit_effects(model, sae, rows)
        text, control = _Reading(model, sae, rows, skip), _Reading(model, sae, shuffled, skip)

        def result() -> FeatureAtlas:
            said = provenance_of(model, seed=seed, settings=settings, control=_CONTROL)
            return _atlas(model, sae, text, control, effects, said)

        tick = keeping(on_progress, partial, lambda: result() if text.fired and control.done else None)
        while text.done < len(rows):
            # The control keeps up, so that an atlas that is cut short has it too.
            behind = control.done * len(rows) < text.done * len(shuffled)
            tick(text.done, len(rows), "reading the text, and shuffled")
            (control if behind else text).read()
        while control.done < len(shuffled):
            tick(len(rows), len(rows), "reading it shuffled")
            control.read()
        if not text.fired:
            raise ValueError(
                f"no feature of the autoencoder of {sae.hook_name!r} fires on these {rows.numel()} tokens; it is not "
                "one of this model and hook point, or its thresholds are too high"
            )
        return result()


class _Reading:
    """What fires on `rows` [n, time], a piece of them at a time; the first `done` were read."""

    def __init__(self, model: Any, sae: SparseAutoencoder, rows: Tensor, skip: int) -> None:
        self.model, self.sae, self.rows, self.skip = model, sae, rows, skip
        self.done = 0
        self.parts: list[tuple[np.ndarray, ...]] = []

    @property
    def fired(self) -> bool:
        """Whether any feature did."""
        return any(len(part[-1]) for part in self.parts)

    @property
    def counted(self) -> int:
        """Tokens that were read, without the first of each row."""
        return self.done * (self.rows.shape[1] - self.skip)

    def read(self) -> None:
        """Read the next rows. Raises CaptureTooLarge if all that fires would not fit in memory."""
        piece = self.rows[self.done : self.done + _ROWS]
        positions = list(range(self.skip, self.rows.shape[1]))
        device = next(self.model.parameters()).device
        features = self.sae.encode(self.sae.site.read(self.model, piece.to(device), positions))
        row, position, feature = features.nonzero(as_tuple=True)
        value = features[row, position, feature]
        if not self.done:
            whole = len(value) * (len(self.rows) / len(piece))
            refuse_if_too_large(
                int(whole * 64),
                f"the {whole:.0f} activations of {self.sae.d_sae} features on {self.rows.numel()} tokens",
                "read fewer tokens",
            )
        found = (row + self.done, position + self.skip, feature)
        self.parts.append((*(i.cpu().numpy() for i in found), value.double().cpu().numpy()))
        self.done += len(piece)

    def active(self) -> _Active:
        """All that fired so far."""
        return _Active(*(np.concatenate(column) for column in zip(*self.parts, strict=True)))


def _atlas(
    model: Any,
    sae: SparseAutoencoder,
    text: _Reading,
    control: _Reading,
    effects: tuple[np.ndarray, np.ndarray],
    provenance: Provenance,
) -> FeatureAtlas:
    """Of what was read so far."""
    active, rows, n_features = text.active(), text.rows[: text.done].numpy(), sae.d_sae
    at, tokens, values = _passages(active, rows, n_features)
    named, features, means = _by_token(active, rows, text.skip, effects[0])
    n = np.bincount(active.feature, minlength=n_features)
    maximum = np.zeros(n_features)
    np.maximum.at(maximum, active.feature, active.value)
    sums = np.bincount(active.feature, active.value, n_features)
    part = np.minimum((active.value / maximum[active.feature] * _BINS).astype(int), _BINS - 1)
    histogram = np.bincount(active.feature * _BINS + part, minlength=n_features * _BINS).reshape(-1, _BINS)
    return FeatureAtlas(
        hook_name=sae.hook_name,
        sae_hash=sae.weights_hash(),
        density=n / text.counted,
        control_density=np.bincount(control.active().feature, minlength=n_features) / control.counted,
        maximum=maximum,
        mean_active=np.divide(sums, n, out=np.zeros(n_features), where=n > 0),
        histogram=histogram.astype(np.int32),
        logit_tokens=effects[0],
        logit_effects=effects[1],
        passage_at=at,
        passage_tokens=tokens,
        passage_values=values,
        token_ids=named,
        token_texts=words_of(model, named.tolist()),
        token_features=features,
        token_means=means,
        before=_BEFORE,
        n_tokens=text.counted,
        provenance=provenance,
    )


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
