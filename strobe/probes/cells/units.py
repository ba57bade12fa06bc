"""Every unit a model carries, token by token: what a search for cells looks through.

A unit is one number of a carry: an entry of h, of c, of a matrix state, or of a short window (convolution, token
shift). A model without a recurrence carries no such thing, so there, and only there, a unit is a channel of the
residual stream after a block, which `Site.kind` says.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from strobe.core.memory import refuse_if_too_large

_PIECE_BYTES = 2**26
"""Of units held at once: a piece of the tokens is as long as fits."""


@dataclass(frozen=True)
class Site:
    """Units that one hook gives: entries of an array of `shape` after each token. `kind`: "carry" or "residual"."""

    hook: str
    layer: int
    field: str
    kind: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many units."""
        return math.prod(self.shape)

    def name(self, index: int) -> str:
        """The unit of that number, with its place in the array.

        >>> Site("blocks.1.mixer.hook_state_S", 1, "S", "carry", (2, 3, 4)).name(17)
        'block 1 S[1, 1, 1]'
        """
        place = ", ".join(str(int(i)) for i in np.unravel_index(index, self.shape))
        return f"block {self.layer} {self.field}[{place}]"


def sites_of(model: Any) -> list[Site]:
    """Where the units of `model` are: every field of every carry, or the residual stream where there is none."""
    found = []
    for name, mixer in sorted(model.mixers.items(), key=lambda item: (_layer(item[0]), not item[0].endswith(".mixer"))):
        # What a block carries beside its mixer (the channel mix of RWKV has a token shift) goes by its module's name.
        module = name.split(".", 2)[2]
        prefix = "" if module == "mixer" else f"{module}."
        carry = mixer.init_carry(1, torch.float32, torch.device("meta"))
        for field in type(carry)._fields:
            shape = tuple(getattr(carry, field).shape[1:])
            found.append(Site(f"{name}.hook_state_{field}", _layer(name), f"{prefix}{field}", "carry", shape))
    if found:
        return found
    width = (int(model.cfg.d_model),)
    return [
        Site(f"blocks.{layer}.hook_resid_post", layer, "residual", "residual", width)
        for layer in range(model.cfg.n_layers)
    ]


def _layer(name: str) -> int:
    return int(name.split(".")[1])


def stream_units(
    model: Any,
    tokens: Int[np.ndarray, "row time"],
    sites: list[Site],
    *,
    tick: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[int, int, Tensor]]:
    """(start, stop, units [row, stop - start, unit]) along `tokens`, each row from an empty carry.

    Units are in the order of `sites`, in float32. Only one piece is held. Raises ValueError for a carry that is not
    real, and MemoryError where one token's units do not fit.
    """
    rows, time = tokens.shape
    each = rows * sum(site.size for site in sites) * 4
    refuse_if_too_large(3 * each, f"the units of {rows} rows at one token", "give fewer rows at a time")
    length, state = max(1, _PIECE_BYTES // each), None
    ids = torch.as_tensor(tokens, device=next(model.parameters()).device)
    looks = "all" if any(site.kind == "carry" for site in sites) else None
    names = [site.hook for site in sites]
    for start in range(0, time, length):
        stop = min(start + length, time)
        if tick is not None:
            tick(start, time)
        with torch.no_grad():
            (_, state), cache = model.run_with_cache(
                ids[:, start:stop], names_filter=names, states=looks, state=state, return_type="state"
            )
        parts = [cache[name] for name in names]
        if any(part.is_complex() for part in parts):
            raise ValueError(
                f"units of {model.model_name} were asked for; its carry is complex, so a unit is no single number; "
                "use a model with a real carry"
            )
        yield start, stop, torch.cat([part.flatten(2).float() for part in parts], -1)
