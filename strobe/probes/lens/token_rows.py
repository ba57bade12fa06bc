"""Token ids as a lens is fitted and evaluated on them: rows, and rows kept apart from those the fit sees."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Of a caller's tokens, kept for the held-out figures where the caller gives none.
_HELD_OUT = 0.1


@dataclass(frozen=True)
class TokenRows:
    """A stream of token ids cut as wanted, or rows that are already cut; `context` tokens to a row."""

    stream: np.ndarray | None
    rows: np.ndarray | None
    context: int
    n_tokens: int
    """how many token ids were given, before cutting"""

    def draw(self, batch: int, seed: int, step: int) -> Tensor:
        """`batch` rows [batch, context] for `step`, drawn by a generator seeded with (seed, step)."""
        rng = np.random.default_rng((seed, step))
        if self.rows is not None:
            return _tensor(self.rows[rng.integers(len(self.rows), size=batch)])
        assert self.stream is not None
        starts = rng.integers(len(self.stream) - self.context + 1, size=batch)
        return _tensor(np.stack([self.stream[s : s + self.context] for s in starts]))

    def in_order(self, limit: int | None = None) -> Tensor:
        """Rows [n, context] from the beginning, without overlap, at most `limit` tokens' worth (at least one row)."""
        rows = self.rows
        if rows is None:
            assert self.stream is not None
            n = len(self.stream) // self.context
            rows = self.stream[: n * self.context].reshape(n, self.context)
        return _tensor(rows if limit is None else rows[: max(1, limit // self.context)])


def token_rows(model: Any, data: Any, context: int | None, default_context: int = 128) -> TokenRows:
    """Rows of `data`: a text, a stream [n_tokens] to be cut into rows of `context`, or rows [n, time], which stay as
    they are.

    Raises ValueError for token ids that are not, for too few tokens, and for ids outside the vocabulary.
    """
    if isinstance(data, str):
        data = model.tokenize(data)[0][0].cpu()
    ids = np.asarray(data.cpu() if isinstance(data, Tensor) else data)
    if ids.dtype.kind not in "iu" or ids.ndim not in (1, 2):
        raise ValueError(
            f"token ids were wanted, as a stream [n_tokens] or rows [n, time]; found {ids.dtype} of shape {ids.shape}; "
            "give integers in one of these shapes, or a text"
        )
    time = ids.shape[1] if ids.ndim == 2 else context or min(default_context, ids.size)
    if time < 2 or ids.shape[-1] < time:
        raise ValueError(
            f"rows of {time} tokens were asked for; found token ids of shape {ids.shape}; rows need 2 tokens or "
            "more: give more tokens or a shorter context"
        )
    if ids.min() < 0 or ids.max() >= model.cfg.d_vocab:
        raise ValueError(
            f"token ids from {ids.min()} to {ids.max()} were given; {model.model_name} has 0 to "
            f"{model.cfg.d_vocab - 1}; use the model's own tokenizer"
        )
    return TokenRows(ids, None, time, ids.size) if ids.ndim == 1 else TokenRows(None, ids, time, ids.size)


def fit_and_held_out(model: Any, data: Any, held_out: Any, context: int | None) -> tuple[TokenRows, TokenRows]:
    """(rows to fit on, rows to judge by). A corpus (``.tokens(split)``) has splits "train" and "valid"; of anything
    else the last tenth is kept where `held_out` is None.
    """
    if hasattr(data, "tokens") and callable(data.tokens):
        return (
            token_rows(model, data.tokens("train"), context),
            token_rows(model, data.tokens("valid") if held_out is None else held_out, context),
        )
    rows = token_rows(model, data, context)
    if held_out is not None:
        return rows, token_rows(model, held_out, context)
    if rows.rows is not None:
        kept = max(1, round(len(rows.rows) * _HELD_OUT))
        if kept >= len(rows.rows):
            raise ValueError(
                f"a tenth of the rows is kept to judge the lens by; found {len(rows.rows)} row; give more, or held_out"
            )
        return _part(rows, slice(None, -kept)), _part(rows, slice(-kept, None))
    assert rows.stream is not None
    kept = max(rows.context, round(len(rows.stream) * _HELD_OUT))
    if len(rows.stream) - kept < rows.context:
        raise ValueError(
            f"rows of {rows.context} tokens were asked for, some of them kept to judge the lens by; found "
            f"{len(rows.stream)} tokens; give {2 * rows.context} or more, or a shorter context"
        )
    return _part(rows, slice(None, -kept)), _part(rows, slice(-kept, None))


def _part(rows: TokenRows, which: slice) -> TokenRows:
    if rows.rows is not None:
        return TokenRows(None, rows.rows[which], rows.context, rows.rows[which].size)
    assert rows.stream is not None
    return TokenRows(rows.stream[which], None, rows.context, rows.stream[which].size)


def _tensor(rows: np.ndarray) -> Tensor:
    return torch.from_numpy(rows.astype(np.int64))
