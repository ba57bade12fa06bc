"""Vectors of a site as a function of the step: a bounded buffer, shuffled, that need not be remembered to go on.

Round r of the buffer draws its rows of text, and its order, from (seed, r) alone. A run that was killed therefore goes
on with the very vectors it would have seen, and never holds more than one buffer.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from strobe.core.memory import refuse_if_too_large
from strobe.probes.lens.token_rows import TokenRows, token_rows
from strobe.probes.sae.config import SaeConfig
from strobe.probes.sae.site import Site

# Rows of text in one pass of the model.
_ROWS = 16


def rows_of(model: Any, data: Any, split: str, context: int) -> TokenRows:
    """Rows of a text, of token ids [n_tokens] or [n, time], or of a corpus: its `split`. Raises ValueError."""
    tokens = data.tokens(split) if hasattr(data, "tokens") and callable(data.tokens) else data
    return token_rows(model, tokens, context)


class ActivationStream:
    """``stream(step)`` is the batch [batch, d_in] of that step.

    Raises CaptureTooLarge for a buffer that does not fit, ValueError for rows too short.
    """

    def __init__(self, model: Any, site: Site, rows: TokenRows, config: SaeConfig) -> None:
        self.model, self.site, self.rows, self.config = model, site, rows, config
        if rows.context <= config.skip:
            raise ValueError(
                f"the first {config.skip} positions of a row were to be left out; the rows have {rows.context} tokens; "
                "give longer rows, or a smaller skip"
            )
        self.shape = site.shape(model)
        self.d_in = int(np.prod(self.shape))
        each = len(self._positions(0))
        self._rows_a_round = -(-config.buffer // each)
        self._batches = self._rows_a_round * each // config.batch
        self._round, self._held = -1, torch.empty(0)
        refuse_if_too_large(
            2 * 4 * self._rows_a_round * each * self.d_in,
            f"a shuffled buffer of {self._rows_a_round * each} vectors of {self.d_in} numbers",
            "ask for a smaller buffer, or one head",
        )

    def __call__(self, step: int) -> Float[Tensor, "batch d_in"]:
        """The vectors of update `step`."""
        wanted, i = divmod(step, self._batches)
        if wanted != self._round:
            # Let go of the last round first: two would be twice the memory that was asked for.
            self._held = torch.empty(0)
            self._held, self._round = self._fill(wanted), wanted
        return self._held[i * self.config.batch : (i + 1) * self.config.batch]

    def _positions(self, number: int) -> list[int]:
        first, time = self.config.skip, self.rows.context
        every = min(self.config.state_every, time - first) if self.site.is_state else 1
        # States are captured at another offset in each round; every round holds the same number of vectors, or the
        # step would not say which round it is of.
        return list(range(first + number % every, time, every))[: (time - first) // every]

    def _fill(self, number: int) -> Float[Tensor, "n d_in"]:
        tokens = self.rows.draw(self._rows_a_round, self.config.seed, number)
        device = next(self.model.parameters()).device
        positions = self._positions(number)
        parts = [self.site.read(self.model, part.to(device), positions) for part in tokens.split(_ROWS)]
        vectors = torch.cat([p.flatten(0, 1).float() for p in parts])
        order = np.random.default_rng((self.config.seed, number, 1)).permutation(len(vectors))
        return vectors[torch.from_numpy(order).to(vectors.device)]
