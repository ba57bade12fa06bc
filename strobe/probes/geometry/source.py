"""The vectors that enter and leave each block, of the tokens that fit the maps and of those that judge."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from strobe.core import hook_names
from strobe.probes.geometry.sequences import Sequences

# Judged tokens of a row.
PER_ROW = 8
_BATCH = 16


class Tokens(NamedTuple):
    """The vectors of many tokens before a block (`x`) and after it (`y`), both [token, d_model] in float64."""

    x: Tensor
    y: Tensor
    sequence: Tensor


class Source:
    """The vectors of bank and judged tokens, block after block."""

    def __init__(self, model: Any, fit: Sequences, judge: Sequences, n_bank: int, n_judged: int, seed: int) -> None:
        time = fit.rows.shape[1]
        available = len(fit) * (time - 1)
        if available < n_bank:
            raise ValueError(
                f"a bank of {n_bank} tokens was asked for; {len(fit)} rows of {time} tokens have {available} beyond "
                "the first; give more tokens or a smaller n_bank"
            )
        self.model, self.judge = model, judge
        per_row = min(PER_ROW, time - 1)
        self.positions = np.unique(np.linspace(1, time - 1, per_row).round().astype(int)).tolist()
        self.judge_rows = judge.rows[: -(-n_judged // len(self.positions))]
        self.fit_rows = fit.rows
        chosen = np.sort(np.random.default_rng(seed).choice(available, n_bank, replace=False))
        self.bank_at = np.stack([chosen // (time - 1), 1 + chosen % (time - 1)])
        self.bank_sequence = torch.from_numpy(fit.sequence[self.bank_at[0]])
        self.judged_sequence = torch.from_numpy(np.repeat(judge.sequence[: len(self.judge_rows)], len(self.positions)))

    def blocks(self, layers: list[int]) -> Any:
        """(layer, bank, judged) of each of `layers`."""
        before: tuple[int, Tensor, Tensor] | None = None
        for layer in layers:
            x = before[1:] if before is not None and before[0] == layer else self._at(hook_names.resid_pre(layer))
            y = self._at(hook_names.resid_post(layer))
            bank, judged = (
                Tokens(a.double(), b.double(), s)
                for a, b, s in zip(x, y, (self.bank_sequence, self.judged_sequence), strict=True)
            )
            before = (layer + 1, *y)
            yield layer, bank, judged

    def _at(self, name: str) -> tuple[Tensor, Tensor]:
        """The vectors at hook `name` of bank tokens and judged tokens, in the model's dtype."""
        rows, at = torch.from_numpy(self.bank_at)
        judged = torch.cat([part[:, self.positions] for part in self._pass(name, self.judge_rows)]).flatten(0, 1)
        bank = []
        for first, part in enumerate(self._pass(name, self.fit_rows)):
            here = (rows // _BATCH) == first
            bank.append(part[rows[here] % _BATCH, at[here]])
        return torch.cat(bank), judged

    def _pass(self, name: str, rows: np.ndarray) -> Any:
        for part in torch.from_numpy(rows).split(_BATCH):
            with torch.no_grad():
                inputs = part.to(next(self.model.parameters()).device)
                _, cache = self.model.run_with_cache(inputs, names_filter=name)
            yield cache[name].cpu()
