"""How a small GRU that copies keeps its symbols: in directions of their own, or in layers of different magnitude?

Csordas et al. 2024, "Recurrent neural networks learn to store and generate sequences using non-linear representations"
(arXiv 2408.10920): small GRUs write the symbol at position i with a scale gamma_i that shrinks with i, all in the same
directions, so that no linear probe of one position reads it, and peeling the layers off like an onion's does.

    h ~ sum_i gamma_i E[x_i] + b,   gamma_i = g gamma^i

The network is fed what it says, as the paper's is: each symbol that was said can be taken off the carry before the
next. `onion_probe` learns the account as the paper does; what is fitted by least squares here (E, then one gamma by a
search) is ours, quicker and cruder.
"""

import copy
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from strobe.core.provenance import Provenance
from strobe.probes.dynamics.case_studies.onion_probe import (
    OnionProbe,
    drawn_swaps,
    fit_probe,
    fit_swap,
    interchange_subspaces,
)
from strobe.probes.dynamics.case_studies.result import CaseStudy
from strobe.probes.dynamics.kept_run import KeptRun


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


class Copier(nn.Module):
    """A GRU that reads a word and a cue and then says the word, fed each symbol that it has said."""

    def __init__(self, symbols: int, hidden: int, seed: int = 0) -> None:
        super().__init__()
        self.symbols = symbols
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.cell, self.embed = nn.GRU(hidden, hidden, batch_first=True), nn.Embedding(symbols + 1, hidden)
            self.readout = nn.Linear(hidden, symbols)

    def read(self, words: Int64[Tensor, "n length"]) -> Float[Tensor, "n hidden"]:
        """The carry after a word."""
        return self.cell(self.embed(words))[1][0]

    def say(self, h: Float[Tensor, "n hidden"], words: Int64[Tensor, "n length"]) -> Float[Tensor, "n length symbols"]:
        """Logits of each symbol said from the carry `h`, while those of `words` are what it is fed."""
        cue = torch.full((len(words), 1), self.symbols)
        return self.readout(self.cell(self.embed(torch.cat([cue, words[:, :-1]], 1)), h[None])[0])

    @torch.no_grad()
    def copied(self, h: Float64[np.ndarray, "n hidden"], length: int) -> Int64[np.ndarray, "n length"]:
        """The word that it says from the carry `h`, fed its own symbols."""
        carry, said = torch.from_numpy(h).float()[None], [torch.full((len(h),), self.symbols)]
        for _ in range(length):
            out, carry = self.cell(self.embed(said[-1][:, None]), carry)
            said.append(self.readout(out[:, 0]).argmax(1))
        return torch.stack(said[1:], 1).numpy()


class _Measured(NamedTuple):
    """Of one network: which symbols each readout reads [words, length], and the rows of the swaps."""

    right: dict[str, np.ndarray]
    swaps: list[list]
    explained: float
    gamma: float
    probe: OnionProbe


_READOUTS = ("the network's own copy", "linear probe", "onion, learned", "onion, least squares (ours)")
_CONTROLS = ("linear probe, words shuffled (control)", "onion, words shuffled (control)")


def make(
    *,
    hidden: int = 48,
    length: int = 6,
    symbols: int = 20,
    updates: int = 6000,
    n: int = 3000,
    seeds: int = 2,
    probe_updates: int = 1000,
    run: KeptRun | None = None,
) -> CaseStudy:
    """Train GRUs to copy, then read the carry after the word with each readout and swap one symbol by each account.

    `run`: where trainings are kept and go on from.
    """
    run = run or KeptRun(None)
    run.total = seeds * updates
    copiers = [train(hidden, length, symbols, updates, seed, run) for seed in range(seeds)]
    measured = [_measure(copier, length, n, probe_updates, seed, run) for seed, copier in enumerate(copiers)]
    positions = np.arange(1, length + 1, dtype=np.float64)
    by_position = {name: np.mean([m.right[name].mean(0) for m in measured], 0) for name in (*_READOUTS, *_CONTROLS)}
    return CaseStudy(
        name="onion",
        title="Reading a copied word off the carry, position by position",
        paper="Csordas, Potts, Manning & Geiger 2024, arXiv 2408.10920",
        claim="A GRU of 48 or 64 units keeps its symbols by magnitude: a linear probe reads almost no word (.01), "
        "peeling layers reads .92 to .97 of them; swaps by the onion's account work in 83 to 87 %, by a linear one in "
        "0 to 1 %.",
        found=_finding(measured),
        ours=f"{hidden} units, words of {length} out of {symbols} symbols (trained on every length up to it), "
        f"{updates} updates of 128 words, {seeds} seeds. The onion is learned, one g and gamma a unit: for reading, "
        "with one readout for all positions; for swaps, through the frozen decoder. The linear swap interchanges the "
        f"{hidden // length} axes along which a position's class means differ most, where the paper learns a "
        "rotation. With words that a linear code has room for (6 symbols out of 8, 42 directions in 48 units), an "
        "earlier network of this study kept them linearly.",
        tables=[_table_of_words(measured), _table_of_positions(by_position, length), _table_of_swaps(measured)],
        curves={name: np.stack([positions, read], 1) for name, read in by_position.items()},
        x_title="position in the word",
        y_title="share of symbols read, mean over seeds",
        weights={k: v.detach().numpy() for k, v in copiers[0].named_parameters()}
        | {f"onion {k}": v.detach().numpy() for k, v in measured[0].probe.named_parameters()},
        seconds=run.seconds,
        provenance=Provenance(
            model=f"GRU of {hidden} units on the copy task",
            seed=0,
            settings={
                "hidden": hidden,
                "length": length,
                "symbols": symbols,
                "updates": updates,
                "words": n,
                "seeds": seeds,
                "probe_updates": probe_updates,
            },
            control="words shuffled among the carries; a random direction of equal norm",
        ),
    )


def train(hidden: int, length: int, symbols: int, updates: int, seed: int, run: KeptRun) -> Copier:
    """A network that copies words of up to `length` symbols; each batch has words of one length."""
    model, rng = Copier(symbols, hidden, seed), np.random.default_rng(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates, 1.5e-4)
    settings = {"hidden": hidden, "length": length, "symbols": symbols}
    holds = {"model": model, "optimizer": optimizer, "schedule": schedule, "rng": rng}
    loop = run.loop(f"copying, seed {seed}", updates, settings, **holds)
    for _ in loop:
        words = torch.from_numpy(rng.integers(symbols, size=(128, int(rng.integers(1, length + 1)))))
        loss = F.cross_entropy(model.say(model.read(words), words).flatten(0, 1), words.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        loop.did(float(loss.detach()), f"loss {float(loss.detach()):.3g}")
    return model


def _measure(copier: Copier, length: int, n: int, probe_updates: int, seed: int, run: KeptRun) -> _Measured:
    """Readouts and swaps are fitted to one half of 2 `n` words and judged on the other."""
    words = np.random.default_rng((seed, 1)).integers(copier.symbols, size=(2 * n, length))
    with torch.no_grad():
        h = copier.read(torch.from_numpy(words)).double().numpy()
    (x, w), (test, truth) = (h[n:], words[n:]), (h[:n], words[:n])
    shuffled = w[np.random.default_rng(seed).permutation(n)]
    run.tick("fitting the readouts")
    probe = fit_probe(x, w, copier.symbols, updates=probe_updates, seed=seed)
    plain = fit_onion(x, w, copier.symbols)
    run.tick("fitting the controls")
    other = fit_probe(x, shuffled, copier.symbols, updates=probe_updates, seed=seed)
    read = (
        copier.copied(test, length),
        linear_readout(x, w, test),
        probe.peeled(test),
        peel(plain, test),
        linear_readout(x, shuffled, test),
        other.peeled(test),
    )
    return _Measured(
        right={name: one == truth for name, one in zip((*_READOUTS, *_CONTROLS), read, strict=True)},
        swaps=_swaps(copier, probe, h, words, n, probe_updates, seed),
        explained=plain.explained,
        gamma=float(np.median(np.exp(probe.log_gamma.detach().numpy()))),
        probe=probe,
    )


def _swaps(
    copier: Copier, probe: OnionProbe, h: np.ndarray, words: np.ndarray, n: int, updates: int, seed: int
) -> list[list]:
    """Rows: one symbol of each test word swapped, by account; the share of words then said that are the swapped one,
    and of swapped symbols said."""
    frozen = copy.deepcopy(copier).requires_grad_(False)
    learned = fit_swap(frozen.say, h[n:], words[n:], copier.symbols, start=probe, updates=updates // 2, seed=seed)
    rng, test, length = np.random.default_rng((seed, 2)), h[:n], words.shape[1]
    goes, comes, at = drawn_swaps(words[:n], copier.symbols, rng)
    swapped = words[:n].copy()
    swapped[np.arange(n), at.numpy()] = comes.numpy()
    with torch.no_grad():
        onion = learned.moved(goes, comes, at).double().numpy()
        source = copier.read(torch.from_numpy(_elsewhere(swapped, at.numpy(), copier.symbols, rng))).double().numpy()
    bases = interchange_subspaces(h[n:], words[n:], copier.symbols)
    linear = np.stack([(s - o) @ bases[a].T @ bases[a] for s, o, a in zip(source, test, at.tolist(), strict=True)])
    noise = rng.normal(size=test.shape)
    noise *= np.linalg.norm(onion, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    rows = []
    moves = {"onion, learned through the decoder": onion, "subspace interchanged": linear}
    for name, move in {**moves, "random direction (control)": noise, "nothing (control)": 0 * noise}.items():
        said = copier.copied(test + move, length)
        rows.append(
            [name, float((said == swapped).all(1).mean()), float((said[np.arange(n), at] == comes.numpy()).mean())]
        )
    return rows


def _elsewhere(words: np.ndarray, at: np.ndarray, symbols: int, rng: np.random.Generator) -> np.ndarray:
    """Other words with the same symbol at `at`: where an interchange takes its subspace from."""
    other = rng.integers(symbols, size=words.shape)
    other[np.arange(len(words)), at] = words[np.arange(len(words)), at]
    return other


def _table_of_words(measured: list[_Measured]) -> dict:
    rows = [[name, *(float(m.right[name].all(1).mean()) for m in measured)] for name in (*_READOUTS, *_CONTROLS)]
    return {
        "title": "Share of whole words read",
        "columns": ["readout", *(f"seed {s}" for s in range(len(measured)))],
        "rows": rows,
        "note": "Fitted to one half of the words and judged on the other. Control: words shuffled among the carries.",
    }


def _table_of_positions(by_position: dict[str, np.ndarray], length: int) -> dict:
    return {
        "title": "Share of symbols read, by position, mean over seeds",
        "columns": ["readout", *(str(i + 1) for i in range(length))],
        "rows": [[name, *map(float, read)] for name, read in by_position.items()],
        "note": "Control: words shuffled among the carries.",
    }


def _table_of_swaps(measured: list[_Measured]) -> dict:
    rows = []
    for i, (name, *_) in enumerate(measured[0].swaps):
        rows.append([name, *(_spread([m.swaps[i][k] for m in measured]) for k in (1, 2))])
    return {
        "title": "One symbol swapped in the carry: what does the network then say?",
        "columns": ["swap by", "the whole swapped word", "the swapped symbol in its place"],
        "rows": rows,
        "note": "Mean over seeds (smallest to largest). Control: a random direction of the onion's norm; no change.",
    }


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def _finding(measured: list[_Measured]) -> str:
    own, linear, onion = (_words(measured, name) for name in _READOUTS[:3])
    by_onion, by_subspace = ([m.swaps[i][1] for m in measured] for i in (0, 1))
    both = zip(linear, onion, by_onion, by_subspace, strict=True)
    appears = [o > 2 * li and s > 2 * b for li, o, s, b in both]
    return (
        f"The networks copy {_spread(own)} of the words. A linear probe of each position reads {_spread(linear)} of "
        f"them, peeling by the learned onion {_spread(onion)}. A symbol swapped by the onion's account has the whole "
        f"swapped word said in {_spread(by_onion)}, interchanging the position's subspace in {_spread(by_subspace)}. "
        "The onion, as more than twice what the linear account gives in both, "
        f"{'appears' if all(appears) else 'does not appear'} ({sum(appears)} of {len(appears)} seeds). "
        f"The median gamma is {', '.join(f'{m.gamma:.2f}' for m in measured)} (by seed)."
    )


def _words(measured: list[_Measured], name: str) -> list[float]:
    return [float(m.right[name].all(1).mean()) for m in measured]
