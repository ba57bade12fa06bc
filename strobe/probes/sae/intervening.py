"""Features turned up, held or truly ablated in a running model, everything else of the activation left as it is.

An autoencoder explains x as decode(f) plus an error. What is changed here is f alone: x becomes
x + (f' - f) W_dec, which is decode(f') plus the same error. Ablating a feature that is not active is therefore a no-op
to the bit. (The code released with Repeat Curse, arXiv:2504.14218, adds 0.01 W_dec and calls it deactivation.)
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from strobe.probes.sae.autoencoder import SparseAutoencoder
from strobe.probes.steering.apply import Where, WhereKind

Mode = Literal["set", "add", "ablate"]
Hooks = list[tuple[str, Callable[..., Any]]]


def feature_hooks(
    sae: SparseAutoencoder,
    features: Mapping[int, float | int] | Iterable[int],
    mode: Mode = "set",
    *,
    where: Where | WhereKind = "all",
    model: Any = None,
    prompt_end: int | None = None,
) -> Hooks:
    """Forward hooks for ``model.run_with_hooks(fwd_hooks=...)`` and ``model.generate(fwd_hooks=...)``.

    `features`: index -> value for "set" (the activation becomes the value) and "add" (is raised by it, active or not);
    indices for "ablate" (becomes 0). `where`: at which absolute positions (`strobe.probes.steering.Where`), so that it
    means the same while decoding token by token; anything but "all" needs `model`, and what counts from the end of the
    prompt needs `prompt_end`. A hook on a carry acts at the positions that the run looks at (``states``; while decoding
    the last prompt token and every new one).

    Raises IndexError for a feature that does not exist, ValueError for values that do not fit the mode.
    """
    indices, values = _checked(sae, features, mode)
    chosen = Where(where) if isinstance(where, str) else where
    select = None if chosen.kind == "all" else _select(chosen, model, prompt_end)

    def change(x: Tensor) -> Tensor:
        return changed(sae, x, indices, values, mode)

    return [sae.site.hook(change, select)]


def ablate_features(
    sae: SparseAutoencoder, x: Float[Tensor, "*batch d_in"], features: Iterable[int]
) -> Float[Tensor, "*batch d_in"]:
    """`x` without what `features` contribute to it; the autoencoder's error and all other features stay."""
    indices, values = _checked(sae, features, "ablate")
    return changed(sae, x, indices, values, "ablate")


def changed(sae: SparseAutoencoder, x: Tensor, indices: list[int], values: list[float], mode: Mode) -> Tensor:
    """`x` [..., d_in] with `indices` changed as `mode` says, in the dtype of `x`."""
    wanted = torch.tensor(values, dtype=sae.W_dec.dtype, device=x.device)
    amounts = wanted.expand(*x.shape[:-1], len(indices)) if mode == "add" else wanted - sae.encode(x)[..., indices]
    return x + sae.written(amounts, indices, x).to(x.dtype)


def _checked(sae: SparseAutoencoder, features: Any, mode: str) -> tuple[list[int], list[float]]:
    if mode not in get_args(Mode):
        raise ValueError(f"mode {mode!r} does not exist; there are {', '.join(get_args(Mode))}")
    by_index: dict[int, Any] = dict(features) if isinstance(features, Mapping) else dict.fromkeys(features)
    indices, given = sae.check_features(by_index), list(by_index.values())
    if not indices:
        raise ValueError(f"no feature was given to {mode}; give one at least")
    if mode == "ablate":
        if any(v not in (None, 0) for v in given):
            raise ValueError(f"features were to be ablated with the values {given}; ablating makes them 0: use 'set'")
        return indices, [0.0] * len(indices)
    if any(v is None for v in given):
        raise ValueError(f"mode {mode!r} needs a value for every feature; give {{index: value}}")
    values = [float(v) for v in given]
    if not bool(torch.isfinite(torch.tensor(values)).all()):
        raise ValueError(f"features were to be {mode} with {values}, which are not all finite; give numbers")
    return indices, values


def _select(where: Where, model: Any, prompt_end: int | None) -> Callable[[int, int], list[int]]:
    if model is None:
        raise ValueError(f"where={where.kind!r} is about absolute positions, which the model knows; give model=")
    from_end = where.kind in ("prompt", "generated") or any(p < 0 for p in (*where.positions, where.start or 0))
    if from_end and prompt_end is None:
        raise ValueError(f"{where} counts from the end of the prompt; give prompt_end, its length in tokens")

    def select(first: int, time: int) -> list[int]:
        start = first if first >= 0 else _offset(model)
        return [i for i in range(time) if where.selects(start + i, prompt_end or 0)]

    return select


def _offset(model: Any) -> int:
    # Every carrier of a pass is given the same run, attention's included; a model without one begins at 0.
    carrier = next(iter(model.carriers.values()), None)
    return 0 if carrier is None else carrier.run.offset
