"""The onion account of a carry, learned: a readout that peels layer by layer, and a swap through the frozen decoder.

Csordas et al. 2024 (arXiv 2408.10920): h ~ b + sum_i s_i * E[x_i] with s_i = g gamma^i, an embedding E that all
positions share and a scale of its own for each position. The paper learns E and the scales; so here, g and gamma one a
unit. What reads a layer (U) is shared by the positions too: only the scale says which position is being read.

A linear account gives each position a subspace of its own instead: what is interchanged there should move one symbol.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn
from torch.nn import functional as F


class OnionProbe(nn.Module):
    """E, U [symbols, H], b [H], and scales [length, H] that are g gamma^i in each unit.

    `peeled(h)` reads a word autoregressively: what was read is taken off at its scale before the next is read.
    """

    def __init__(self, symbols: int, length: int, hidden: int, seed: int = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.E = nn.Parameter(0.1 * torch.randn(symbols, hidden, generator=draw))
        self.U = nn.Parameter(0.1 * torch.randn(symbols, hidden, generator=draw))
        self.b, self.c = nn.Parameter(torch.zeros(hidden)), nn.Parameter(torch.zeros(symbols))
        self.log_g = nn.Parameter(torch.zeros(hidden))
        self.log_gamma = nn.Parameter(torch.full((hidden,), -0.3))
        self.length = length

    @property
    def scales(self) -> Float[Tensor, "length hidden"]:
        """Of each position and unit."""
        steps = torch.arange(self.length, dtype=self.log_g.dtype)
        return torch.exp(self.log_g + steps[:, None] * self.log_gamma)

    def logits(
        self, h: Float[Tensor, "n hidden"], words: Int64[Tensor, "n length"]
    ) -> Float[Tensor, "n length symbols"]:
        """Of each position's symbol, where the layers before it are those of `words`."""
        left, scales, out = h - self.b, self.scales, []
        for i in range(self.length):
            out.append((left / scales[i]) @ self.U.T + self.c)
            left = left - scales[i] * self.E[words[:, i]]
        return torch.stack(out, 1)

    @torch.no_grad()
    def peeled(self, h: Float64[np.ndarray, "n hidden"]) -> Int64[np.ndarray, "n length"]:
        """The words read off `h`, each layer after those that were read before it."""
        left, scales, out = torch.from_numpy(h).float() - self.b, self.scales, []
        for i in range(self.length):
            out.append(((left / scales[i]) @ self.U.T + self.c).argmax(1))
            left = left - scales[i] * self.E[out[-1]]
        return torch.stack(out, 1).numpy()

    def moved(self, words: Int64[Tensor, " n"], others: Int64[Tensor, " n"], at: Int64[Tensor, " n"]) -> Tensor:
        """What to add to the carry [n, H] so that the symbol at position `at` is `others` and no longer `words`."""
        return self.scales[at] * (self.E[others] - self.E[words])


def fit_probe(
    h: Float64[np.ndarray, "n hidden"],
    words: Int64[np.ndarray, "n length"],
    symbols: int,
    *,
    updates: int = 2000,
    seed: int = 0,
) -> OnionProbe:
    """The probe whose peeling reads `words` best (cross entropy, Adam with a falling rate)."""
    probe = OnionProbe(symbols, words.shape[1], h.shape[1], seed)
    x, targets = torch.from_numpy(h).float(), torch.from_numpy(words)
    with torch.no_grad():
        probe.b.copy_(x.mean(0))
    rng = np.random.default_rng(seed)
    for _ in _updates(list(probe.parameters()), updates):
        rows = torch.from_numpy(rng.integers(len(x), size=256))
        F.cross_entropy(probe.logits(x[rows], targets[rows]).flatten(0, 1), targets[rows].flatten()).backward()
    return probe


def fit_swap(
    decode: Callable[[Tensor, Tensor], Tensor],
    h: Float64[np.ndarray, "n hidden"],
    words: Int64[np.ndarray, "n length"],
    symbols: int,
    *,
    start: OnionProbe,
    updates: int = 600,
    seed: int = 0,
) -> OnionProbe:
    """The onion whose swaps of one symbol make the frozen decoder say the swapped word.

    `decode(carries, words)` are the decoder's logits [n, length, symbols] while it is fed `words`; it is not changed.
    `start`: the onion to begin from.
    """
    probe = OnionProbe(symbols, words.shape[1], h.shape[1], seed)
    probe.load_state_dict(start.state_dict())
    x, all_words = torch.from_numpy(h).float(), torch.from_numpy(words)
    rng = np.random.default_rng((seed, 1))
    for _ in _updates([probe.E, probe.log_g, probe.log_gamma], updates):
        rows = rng.integers(len(x), size=128)
        word, other, at = drawn_swaps(words[rows], symbols, rng)
        moved = x[torch.from_numpy(rows)] + probe.moved(word, other, at)
        swapped = all_words[torch.from_numpy(rows)].scatter(1, at[:, None], other[:, None])
        F.cross_entropy(decode(moved, swapped).flatten(0, 1), swapped.flatten()).backward()
    return probe


def drawn_swaps(
    words: Int64[np.ndarray, "n length"], symbols: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """(symbols that go, symbols that come, positions), [n] each, one swap a word."""
    at = rng.integers(words.shape[1], size=len(words))
    goes = words[np.arange(len(words)), at]
    comes = (goes + rng.integers(1, symbols, size=len(words))) % symbols
    return torch.from_numpy(goes), torch.from_numpy(comes), torch.from_numpy(at)


def interchange_subspaces(
    h: Float64[np.ndarray, "n hidden"], words: Int64[np.ndarray, "n length"], symbols: int
) -> list[Float64[np.ndarray, "size hidden"]]:
    """For each position an orthonormal basis of where its symbols' mean carries differ most, hidden // length axes."""
    size, bases = h.shape[1] // words.shape[1], []
    for position in range(words.shape[1]):
        means = np.array([h[words[:, position] == s].mean(0) for s in range(symbols)])
        bases.append(np.linalg.svd(means - means.mean(0), full_matrices=False)[2][:size])
    return bases


def _updates(parameters: list[nn.Parameter], updates: int, rate: float = 1e-2) -> Iterator[int]:
    """Adam after each time round, with a gradient that the body made."""
    optimizer = torch.optim.Adam(parameters, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates, rate / 20)
    for update in range(updates):
        optimizer.zero_grad()
        yield update
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
