"""How a small GRU that copies keeps its symbols: in directions of their own, or in layers of different magnitude?

Csordas et al. 2024, "Recurrent neural networks learn to store and generate sequences using non-linear representations"
(arXiv 2408.10920): small GRUs write the symbol at position i with a scale gamma_i that shrinks with i, all in the same
directions, so that no linear probe of one position reads it, and peeling the layers off like an onion's does.

    h ~ sum_i gamma_i E[x_i] + b,   gamma_i = g gamma^i

What is fitted by least squares here (E, then gamma by a search) is ours; the paper learns it through the frozen
decoder.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import nn
from torch.nn import functional as F

from strobe.core.provenance import Provenance
from strobe.models.tasks import task
from strobe.probes.dynamics.case_studies.result import CaseStudy

Tick = Callable[[int, int, str], None]

_COPY = task("copy")


class Onion(NamedTuple):
    """`scales` [length] of the positions, `embeddings` [symbols, H] shared by them, `bias` [H]; `explained`: the share
    of the variance of h that they account for."""

    scales: Float64[np.ndarray, " length"]
    embeddings: Float64[np.ndarray, "symbols hidden"]
    bias: Float64[np.ndarray, " hidden"]
    explained: float


def fit_onion(h: Float64[np.ndarray, "n hidden"], words: Int64[np.ndarray, "n length"], symbols: int) -> Onion:
    """Least squares of h on one shared embedding for every gamma of a grid; the best gamma is kept.

    `words` hold symbols 0..symbols-1. Both growing and shrinking scales are tried.
    """
    best: Onion | None = None
    one_hot = np.eye(symbols)[words]
    variance = np.square(h - h.mean(0)).sum()
    for gamma in np.concatenate([np.linspace(0.05, 0.95, 19), [1.0], 1 / np.linspace(0.95, 0.05, 19)]):
        scales = gamma ** np.arange(words.shape[1])
        scales = scales / scales.max()
        design = np.column_stack([np.einsum("l,nls->ns", scales, one_hot), np.ones(len(h))])
        solved, *_ = np.linalg.lstsq(design, h, rcond=None)
        explained = 1 - float(np.square(design @ solved - h).sum() / variance)
        if best is None or explained > best.explained:
            best = Onion(scales, solved[:-1], solved[-1], explained)
    assert best is not None
    return best


def peel(onion: Onion, h: Float64[np.ndarray, "n hidden"]) -> Int64[np.ndarray, "n length"]:
    """The words, read off layer by layer: the nearest embedding at the largest scale, subtracted, then the next.

    A smaller layer can change what a larger one seems to be by no more than its own scale; what is left over below is
    expected at its mean.
    """
    left, words = h - onion.bias, np.zeros((len(h), len(onion.scales)), dtype=np.int64)
    mean, order = onion.embeddings.mean(0), np.argsort(-onion.scales)
    for i, position in enumerate(order):
        rest = onion.scales[order[i + 1 :]].sum() * mean
        candidates = onion.scales[position] * onion.embeddings
        distance = np.square(left[:, None] - rest - candidates).sum(-1)
        words[:, position] = distance.argmin(1)
        left = left - candidates[words[:, position]]
    return words


def linear_readout(
    h: Float64[np.ndarray, "n hidden"], words: Int64[np.ndarray, "n length"], test: Float64[np.ndarray, "m hidden"]
) -> Int64[np.ndarray, "m length"]:
    """The words of `test` by one logistic regression a position, fitted to `h`."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    answers = []
    for position in range(words.shape[1]):
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, C=10.0))
        answers.append(probe.fit(h, words[:, position]).predict(test))
    return np.stack(answers, 1)


def make(
    *,
    hidden: int = 48,
    length: int = 6,
    symbols: int = 8,
    updates: int = 3000,
    n: int = 3000,
    seed: int = 0,
    progress: Tick | None = None,
) -> CaseStudy:
    """Train a GRU to copy, then read its carry after the word with both readouts and swap one symbol with each."""
    began = time.process_time()
    cell, embed, readout = _train(hidden, length, symbols, updates, seed, progress)
    seconds = time.process_time() - began
    words, h = _carries(cell, embed, length, symbols, 2 * n, seed)
    accuracy = _decoded(cell, embed, readout, h[:n], length) == words[:n]
    train, test = slice(n, 2 * n), slice(0, n)
    onion = fit_onion(h[train], words[train], symbols)
    peeled = (peel(onion, h[test]) == words[test]).mean(0)
    linear = (linear_readout(h[train], words[train], h[test]) == words[test]).mean(0)
    shuffled = words[train][np.random.default_rng(seed).permutation(n)]
    control = (linear_readout(h[train], shuffled, h[test]) == words[test]).mean(0)
    swaps = _swaps(cell, embed, readout, onion, h, words, symbols, n, seed)
    positions = np.arange(1, length + 1)
    better = "onion" if peeled.mean() > linear.mean() else "linear"
    return CaseStudy(
        name="onion",
        title="Reading a copied word off the carry, position by position",
        paper="Csordas, Potts, Manning & Geiger 2024, arXiv 2408.10920",
        claim="A GRU of 48 or 64 units keeps its symbols by magnitude: a linear probe reads almost nothing (.01), "
        "peeling "
        "layers reads .92 to .97 of the words.",
        found=f"The network copies {accuracy.mean():.1%} of the symbols. A linear probe of each position reads "
        f"{linear.mean():.1%} of them, peeling {peeled.mean():.1%}, so at this size the {better} account is the "
        f"better one: "
        f"the onion {'appears' if better == 'onion' else 'does not appear'}. The scales fitted go from "
        f"{onion.scales[0]:.2f} "
        f"(first symbol) to {onion.scales[-1]:.2f} (last) and explain {onion.explained:.0%} of the carry's variance.",
        ours=f"{hidden} units, words of {length} out of {symbols} symbols, {updates} updates; the onion is fitted "
        f"by least "
        "squares with scales that are powers of one gamma, not learned through the decoder.",
        tables=[
            {
                "title": "Share of symbols read, by position",
                "columns": ["readout", *map(str, positions)],
                "rows": [
                    ["the network's own copy", *map(float, accuracy.mean(0))],
                    ["linear probe", *map(float, linear)],
                    ["onion, peeled", *map(float, peeled)],
                    ["linear probe, words shuffled (control)", *map(float, control)],
                ],
                "note": "Probes are fitted to one half of the words and tested on the other. Control: shuffled words.",
            },
            {
                "title": "One symbol swapped in the carry: does the network then copy the other?",
                "columns": ["swap by", "swapped symbol copied", "other symbols still copied"],
                "rows": swaps,
                "note": "Control: a random direction of the same norm.",
            },
        ],
        curves={
            "linear probe": np.stack([positions, linear], 1).astype(np.float64),
            "onion, peeled": np.stack([positions, peeled], 1),
            "the network's own copy": np.stack([positions, accuracy.mean(0)], 1),
            "linear probe, words shuffled (control)": np.stack([positions, control], 1),
        },
        x_title="position in the word",
        y_title="share of symbols read",
        weights={
            f"{m} {k}": v.detach().numpy()
            for m, part in (("gru", cell), ("embed", embed), ("readout", readout))
            for k, v in part.named_parameters()
        }
        | {"scales": onion.scales, "embeddings": onion.embeddings},
        seconds=seconds,
        provenance=Provenance(
            model=f"GRU of {hidden} units on the copy task",
            seed=seed,
            settings={"hidden": hidden, "length": length, "symbols": symbols, "updates": updates, "words": n},
            control="words shuffled among the carries; a random direction of equal norm",
        ),
    )


def _train(
    hidden: int, length: int, symbols: int, updates: int, seed: int, progress: Tick | None
) -> tuple[nn.GRU, nn.Embedding, nn.Linear]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        cell, embed = nn.GRU(hidden, hidden, batch_first=True), nn.Embedding(symbols + 1, hidden)
        readout = nn.Linear(hidden, symbols + 1)
    parameters = [*cell.parameters(), *embed.parameters(), *readout.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates, 2e-4)
    for update in range(updates):
        drawn = _COPY.generate(64, np.random.default_rng((seed, update)), length=length, symbols=symbols)
        logits = readout(cell(embed(torch.from_numpy(drawn.inputs)))[0])
        optimizer.zero_grad()
        loss = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(drawn.targets).flatten(), ignore_index=-100)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(update + 1, updates, f"loss {float(loss.detach()):.3g}")
    return cell, embed, readout


@torch.no_grad()
def _carries(
    cell: nn.GRU, embed: nn.Embedding, length: int, symbols: int, n: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Words [n, length] as 0..symbols-1, and the carry [n, hidden] after each word was read."""
    drawn = _COPY.generate(n, np.random.default_rng((seed, 0, 1)), length=length, symbols=symbols)
    h = cell(embed(torch.from_numpy(drawn.inputs[:, :length])))[1][0]
    return drawn.inputs[:, :length] - 1, h.double().numpy()


@torch.no_grad()
def _decoded(cell: nn.GRU, embed: nn.Embedding, readout: nn.Linear, h: np.ndarray, length: int) -> np.ndarray:
    """The word [n, length] that the network copies from the carry `h`, as 0..symbols-1."""
    cues = torch.zeros(len(h), length, dtype=torch.int64)
    logits = readout(cell(embed(cues), torch.from_numpy(h).float()[None])[0])
    return logits[..., 1:].argmax(-1).numpy()


def _swaps(
    cell: nn.GRU,
    embed: nn.Embedding,
    readout: nn.Linear,
    onion: Onion,
    h: np.ndarray,
    words: np.ndarray,
    symbols: int,
    n: int,
    seed: int,
) -> list[list]:
    """Rows: a random position's symbol swapped by the onion, by the class means of that position, at random."""
    rng, length = np.random.default_rng((seed, 2)), words.shape[1]
    word, at = words[:n].copy(), rng.integers(length, size=n)
    rows = np.arange(n)
    other = (word[rows, at] + rng.integers(1, symbols, size=n)) % symbols
    means = np.array([[h[n:][words[n:, p] == s].mean(0) for s in range(symbols)] for p in range(length)])
    moves = {
        "onion": onion.scales[at, None] * (onion.embeddings[other] - onion.embeddings[word[rows, at]]),
        "linear (class means)": means[at, other] - means[at, word[rows, at]],
    }
    noise = rng.normal(size=h[:n].shape)
    norm = np.linalg.norm(moves["linear (class means)"], axis=1, keepdims=True)
    moves["random direction (control)"] = noise / np.linalg.norm(noise, axis=1, keepdims=True) * norm
    found = []
    for name, move in moves.items():
        copied = _decoded(cell, embed, readout, h[:n] + move, length)
        kept = copied == word
        kept[rows, at] = False
        found.append([name, float((copied[rows, at] == other).mean()), float(kept.sum() / (n * (length - 1)))])
    return found
