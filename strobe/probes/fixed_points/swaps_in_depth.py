"""`layer_swaps`: which blocks can do one another's work, tried by exchanging them, beside blocks in random order.

That two blocks' activations are alike does not say that the blocks are: a depth that reuses a block shows it by losing
nothing when one takes another's place (Raptor, arXiv:2512.19941, exchanges layers within and across its blocks; the
replacement test, the null and the threshold here are ours).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from strobe.core.result import Result
from strobe.probes.fixed_points.block_passes import apply_block, n_blocks, read_out, streams
from strobe.probes.fixed_points.held import as_inputs
from strobe.probes.partial import keeping
from strobe.probes.provenance import provenance_of

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects


@dataclass(frozen=True)
class LayerSwaps(Result):
    """Divergence of the model's predictions after blocks are exchanged.

    KL(model || changed model), mean over the tokens, nats. `swapped` [block, block]: blocks i and j in each other's
    place. `replaced` [block, block]: block i does j's work as well as its own. Both 0 on the diagonal; NaN where it was
    not tried. `shuffled` [draw]: all blocks in a random order, the control. Of a run that was cut short, the pairs that
    were tried.
    """

    swapped: Float64[np.ndarray, "block block"]
    replaced: Float64[np.ndarray, "block block"]
    shuffled: Float64[np.ndarray, " draw"]

    @property
    def partial(self) -> str:
        """How many of the pairs were tried, in words; empty where all were."""
        asked = self.provenance.settings.get("pairs", 0)
        tried = self.provenance.settings.get("tried", asked)
        return "" if tried == asked else f"cut short after {tried} of {asked} pairs of blocks"

    @property
    def neighbours_tried(self) -> bool:
        """Whether all adjacent blocks were, which come first and without which nothing is known of runs."""
        return not self.partial or self.provenance.settings["tried"] >= len(self.swapped) - 1

    def groups(self, share: float = 0.02) -> list[list[int]]:
        """Contiguous runs of blocks in which any neighbour does the next one's work, and the other way round, at less
        than `share` (ours) of the median divergence of a random order. Alone: a block that no neighbour stands for.

        Raises ValueError for a run that was cut short before all neighbours were tried.
        """
        if not self.neighbours_tried:
            raise ValueError(
                f"runs of blocks that do one another's work were asked for; this run was {self.partial}, before all "
                "neighbours were tried; run it again to its end"
            )
        limit = share * float(np.median(self.shuffled))
        runs = [[0]]
        for block in range(1, len(self.replaced)):
            worst = max(self.replaced[block - 1, block], self.replaced[block, block - 1])
            if worst <= limit:
                runs[-1].append(block)
            else:
                runs.append([block])
        return runs

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Both matrices, on one scale that ends at the median of random orders."""
        from strobe.probes.fixed_points import depth_figures

        return depth_figures.swaps(self, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per ordered pair of blocks."""
        import pandas as pd

        n = len(self.swapped)
        return pd.DataFrame(
            {
                "block": np.repeat(np.arange(n), n),
                "other": np.tile(np.arange(n), n),
                "swapped": self.swapped.ravel(),
                "replaced": self.replaced.ravel(),
                "shuffled_median": float(np.median(self.shuffled)),
            }
        )

    def summary(self) -> str:
        """Neighbours' divergences, the runs that stand for one another, the control, and the provenance."""
        n = len(self.swapped)
        beside = [v for v in np.diagonal(self.swapped, 1) if np.isfinite(v)]
        lines = [
            f"exchanging the {n} blocks of {self.provenance.model}: neighbours swapped cost "
            f"{', '.join(f'{v:.3g}' for v in beside)} nats; blocks in random order {np.median(self.shuffled):.3g} "
            f"(median of {len(self.shuffled)}, control)",
            *([f"  runs that do one another's work: {self.groups()}"] if self.neighbours_tried else []),
            *([f"  {self.partial}"] if self.partial else []),
        ]
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])


@torch.no_grad()
def layer_swaps(
    model: Any,
    text: Any,
    *,
    neighbours_only: bool | None = None,
    draws: int = 6,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
    partial: Callable[[LayerSwaps], None] | None = None,
) -> LayerSwaps:
    """Exchange the blocks of `model` pair by pair and compare its predictions on `text` (a text, ids, real inputs).

    `neighbours_only`: try adjacent pairs alone; None for that above eight blocks. `draws`: random orders, identity
    excluded. Where `progress` raises, `partial` is given the pairs that were tried, neighbours first, if any. Raises
    ValueError for a model of real outputs (its readout is no distribution) or of one block.
    """
    tokens, n = as_inputs(model, text), n_blocks(model)
    if n < 2 or tokens.is_floating_point():
        why = f"has {n} block" if n < 2 else "reads and answers in real numbers"
        raise ValueError(f"exchanging blocks was asked for; {model.model_name} {why}; give a language model of several")
    few = n > 8 if neighbours_only is None else neighbours_only
    every = sorted(combinations(range(n), 2), key=lambda pair: pair[1] - pair[0])
    pairs = [(i, j) for i, j in every if j - i == 1 or not few]
    generator, orders = np.random.default_rng(seed), []
    while len(orders) < draws:
        order = generator.permutation(n).tolist()
        if order != list(range(n)):
            orders.append(order)
    first = streams(model, tokens)[0]
    usual = read_out(model, tokens, _through(model, tokens, first, list(range(n)))).double().log_softmax(-1)
    swapped, replaced = np.full((n, n), np.nan), np.full((n, n), np.nan)
    np.fill_diagonal(swapped, 0)
    np.fill_diagonal(replaced, 0)
    plain, total, done, tried, shuffled = list(range(n)), 3 * len(pairs) + draws, 0, 0, list[float]()

    def result() -> LayerSwaps:
        return LayerSwaps(
            swapped=swapped,
            replaced=replaced,
            shuffled=np.array(shuffled),
            provenance=provenance_of(
                model,
                seed=seed,
                settings={"tokens": tokens[0].tolist(), "neighbours_only": few, "pairs": len(pairs), "tried": tried},
                control=f"all blocks in {draws} random orders",
            ),
        )

    tick = keeping(progress, partial, lambda: result() if tried else None)

    def cost(order: list[int]) -> float:
        nonlocal done
        other = read_out(model, tokens, _through(model, tokens, first, order)).double().log_softmax(-1)
        done += 1
        tick(done, total, "exchanging blocks")
        return float((usual.exp() * (usual - other)).sum(-1).mean())

    # First, so that what is cut short has its control.
    shuffled += [cost(order) for order in orders]
    for i, j in pairs:
        order = plain.copy()
        order[i], order[j] = j, i
        both, *works = (cost(o) for o in (order, *([a if l == b else l for l in plain] for a, b in ((i, j), (j, i)))))
        # All three at once: a pair is tried or it is not.
        swapped[i, j] = swapped[j, i] = both
        replaced[i, j], replaced[j, i] = works
        tried += 1
    return result()


def _through(model: Any, tokens: Tensor, stream: Tensor, order: list[int]) -> Tensor:
    for block in order:
        stream = apply_block(model, tokens, block, stream)
    return stream
