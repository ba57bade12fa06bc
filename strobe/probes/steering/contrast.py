"""Contrast pairs to a steering vector: what differs, on average, between two ways a text can be.

Difference of means is the published default (Rimsky et al. 2023; Paulo et al. 2024), not normalised. Ours, not the
papers': the carry read through captured states at any selection of tokens; `norm="equal"`; the sign of a principal
component taken from the difference of means; LDA by scikit-learn with Ledoit and Wolf's shrinkage where Paulo et al.
take the pseudo-inverse of the covariance of all activations.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from strobe.probes.steering.vector import SteeringVector, is_carry, layer_of, site_names

Method = Literal["mean", "pca", "lda"]
Norm = Literal["raw", "equal", "unit"]
SelectorKind = Literal["last", "span", "mask", "mean"]
Tick = Callable[[int, int, str], None]
# A covariance of this width is 32 MiB in float64 and its solution takes seconds; beyond, LDA is refused.
_LDA_LIMIT = 2048
_BATCH = 16


class Pair(NamedTuple):
    """Two texts (or rows of token ids) that differ in what the vector is to be about."""

    positive: str | tuple[int, ...]
    negative: str | tuple[int, ...]


@dataclass(frozen=True)
class Selector:
    """Which tokens of a text are read; what is read at them is averaged.

    "last": the last token. "mean": every token but the first, whose activations are of another size (attention sinks).
    "span": tokens `start` to `stop` (negatives count from the end). "mask": where `mask(ids)` is True, given the row's
    token ids [time] and returning booleans [time].
    """

    kind: SelectorKind = "last"
    start: int | None = None
    stop: int | None = None
    mask: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(SelectorKind):
            raise ValueError(f"selector {self.kind!r} does not exist; there are {', '.join(get_args(SelectorKind))}")
        if (self.kind == "mask") != (self.mask is not None):
            raise ValueError("a selector of kind 'mask', and no other, needs a function of the token ids in `mask`")

    def positions(self, ids: Tensor) -> list[int]:
        """The positions selected in one row of ids [time]. Raises ValueError if there are none."""
        time = len(ids)
        if self.kind == "last":
            return [time - 1]
        if self.kind == "mask":
            assert self.mask is not None
            chosen = torch.as_tensor(self.mask(ids)).nonzero()[:, 0].tolist()
        else:
            low, high = (1, None) if self.kind == "mean" else (self.start, self.stop)
            chosen = list(range(time))[slice(low, high)]
        if not chosen:
            raise ValueError(f"the selector {self} chose no token of a text of {time}; choose another or a longer text")
        return chosen

    def __str__(self) -> str:
        if self.kind == "span":
            return f"span {self.start}:{self.stop}"
        return f"mask {getattr(self.mask, '__name__', 'function')}" if self.kind == "mask" else self.kind


def contrast_vector(
    model: Any,
    pairs: Sequence[Any],
    *,
    point: str = "resid_post",
    layers: Iterable[int] | None = None,
    method: Method = "mean",
    norm: Norm = "raw",
    selector: Selector | SelectorKind = "last",
    info: dict[str, Any] | None = None,
    progress: Tick | None = None,
) -> SteeringVector:
    """The direction from the negative to the positive texts of `pairs`, at `point` of each of `layers` (None: all).

    `point`: "resid_post", "resid_pre", "mixer_out", any activation [batch, time, d] of a layer, or "carry": then a
    direction for each field of the carry. `method`: "mean" difference of means; "pca" the first principal component of
    the pairs' differences about zero, of unit norm; "lda" the coefficients of linear discriminant analysis.
    `norm`: "raw" as the method gives it; "equal" with the norm that the difference of means has at that place; "unit".

    A field of a carry that is the same in every pair, while another field of that layer is not, gets zeros.

    Raises ValueError for no pairs, an empty side, a place where every pair's difference is zero, or LDA on more than
    2048 numbers.
    """
    if method not in get_args(Method) or norm not in get_args(Norm):
        raise ValueError(
            f"method {method!r} and norm {norm!r}; there are {', '.join(get_args(Method))} and "
            f"{', '.join(get_args(Norm))}"
        )
    chosen = selector if isinstance(selector, Selector) else Selector(selector)
    names, rows = site_names(model, point, layers), _rows(model, pairs)
    read = activations(model, [r for pair in rows for r in pair], names, chosen, progress)
    sides = {name: read[name].unflatten(0, (len(rows), 2)) for name in names}
    _check_differences(sides)
    wide = {name: both.double() for name, both in sides.items()}
    directions = {n: _direction(n, both[:, 0], both[:, 1], method, norm).float() for n, both in wide.items()}
    return SteeringVector(
        directions=directions,
        point=point,
        model=model.model_name,
        weights_hash=model.weights_hash(),
        method=method,
        norm=norm,
        selector=str(chosen),
        info={"n_pairs": len(rows), **(info or {})},
    )


def activations(
    model: Any,
    rows: Sequence[Tensor],
    names: Sequence[str],
    selector: Selector,
    progress: Tick | None = None,
    *,
    batch: int = _BATCH,
) -> dict[str, Tensor]:
    """What each of `rows` (token ids [time]) has at `names`, averaged over the selected tokens: [n_rows, ...]."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    read: dict[str, list[Any]] = {name: [None] * len(rows) for name in names}
    device = next(model.parameters()).device
    for first in range(0, len(order), batch):
        if progress is not None:
            progress(first, len(order), "reading activations")
        here = order[first : first + batch]
        positions = [selector.positions(rows[i]) for i in here]
        looks = sorted({p for row in positions for p in row})
        weight = torch.tensor([[(p in row) / len(row) for p in looks] for row in positions], device=device)
        tokens, mask = _padded([rows[i] for i in here], device)
        states = looks if any(map(is_carry, names)) else None
        with torch.no_grad():
            _, cache = model.run_with_cache(tokens, mask=mask, names_filter=list(names), states=states)
        for name in names:
            at = cache[name] if is_carry(name) else cache[name][:, looks]
            mean = torch.einsum("bp,bp...->b...", weight.to(at.dtype), at).cpu()
            for i, value in zip(here, mean, strict=True):
                read[name][i] = value
    return {name: torch.stack(values) for name, values in read.items()}


def _check_differences(sides: dict[str, Tensor]) -> None:
    """Raises ValueError where nothing differs by more than rounding: at an activation, or in a layer's whole carry."""
    differs: dict[str, bool] = {}
    for name, both in sides.items():
        place = f"the carry of layer {layer_of(name)}" if is_carry(name) else name
        # The same text in two rows of a batch: a row's place in memory can decide how a last digit is rounded.
        rounding = 16 * torch.finfo(both.dtype).eps * torch.linalg.vector_norm(both[:, 0])
        size = torch.linalg.vector_norm(both[:, 0] - both[:, 1])
        differs[place] = differs.get(place, False) or bool(size > rounding)
    if same := [place for place, differ in differs.items() if not differ]:
        raise ValueError(
            f"the positive and negative texts of every pair are the same at {', '.join(same)}: there is nothing to "
            "steer by. Select tokens that differ, or layers that see the difference"
        )


def _direction(name: str, positive: Tensor, negative: Tensor, method: str, norm: str) -> Tensor:
    shape = positive.shape[1:]
    positive, negative = positive.flatten(1), negative.flatten(1)
    mean = positive.mean(0) - negative.mean(0)
    difference = positive - negative
    if not bool(difference.any()):
        return mean.reshape(shape)
    direction = mean
    if method == "pca":
        _, _, components = torch.linalg.svd(difference, full_matrices=False)
        direction = components[0] * (-1.0 if float(components[0] @ mean) < 0 else 1.0)
    elif method == "lda":
        direction = _lda(name, positive, negative)
    if norm == "raw":
        return direction.reshape(shape)
    size = torch.linalg.vector_norm(direction)
    target = 1.0 if norm == "unit" else float(torch.linalg.vector_norm(mean))
    if not (float(size) > 0 and target > 0):
        raise ValueError(f"the direction at {name!r} has norm 0 and cannot be given another; use norm='raw'")
    return (direction * (target / size)).reshape(shape)


def _lda(name: str, positive: Float[Tensor, "pairs width"], negative: Float[Tensor, "pairs width"]) -> Tensor:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    width = positive.shape[1]
    if width > _LDA_LIMIT:
        raise ValueError(
            f"LDA was asked for at {name!r}, which holds {width} numbers; its covariance is fitted up to {_LDA_LIMIT}. "
            "Use method 'mean' or 'pca' there"
        )
    both, labels = torch.cat([positive, negative]).numpy(), np.repeat([1, 0], [len(positive), len(negative)])
    fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(both, labels)
    return torch.from_numpy(fitted.coef_[0].copy())


def _rows(model: Any, pairs: Sequence[Any]) -> list[tuple[Tensor, Tensor]]:
    if not len(pairs):
        raise ValueError("no contrast pairs were given; a vector needs one at least, and is steadier with a hundred")
    rows = []
    for i, pair in enumerate(pairs):
        if len(pair) != 2 or not all(len(side) for side in pair):
            raise ValueError(f"pair {i} has an empty side; give a positive and a negative text, neither of them empty")
        rows.append((token_row(model, pair[0]), token_row(model, pair[1])))
    return rows


def token_row(model: Any, text: Any) -> Tensor:
    """The token ids [time] of a text, or of ids given as a sequence."""
    return model.tokenize(text)[0][0].cpu() if isinstance(text, str) else torch.as_tensor(list(text))


def _padded(rows: Sequence[Tensor], device: Any) -> tuple[Tensor, Tensor | None]:
    longest = max(map(len, rows))
    tokens = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, row in enumerate(rows):
        tokens[i, : len(row)], mask[i, : len(row)] = row, True
    return tokens.to(device), None if bool(mask.all()) else mask.to(device)
