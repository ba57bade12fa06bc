"""`search_cells`: which unit of all that a model carries follows what the text is about, and would one by chance?

Thousands of units are tried on each label, and the best of many looks good on the files that it was chosen on.
So units are chosen on some files (largest |r|) and judged on others, and the whole search is done again where there is
nothing to find: with the labels of another file, and in the same model with its weights in random order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from strobe.core import Provenance
from strobe.probes.cells.correlating import Correlations
from strobe.probes.cells.labels import GRADED, LABELS
from strobe.probes.cells.search_result import VARIANTS, CellSearch
from strobe.probes.cells.texts import LabelledRows, labelled_rows, library_texts
from strobe.probes.cells.units import Site, sites_of, stream_units
from strobe.probes.latent_knowledge.auroc import auroc
from strobe.probes.latent_knowledge.features import weights_permuted
from strobe.probes.lens.readout import evaluating
from strobe.probes.partial import keeping
from strobe.probes.provenance import provenance_of

Tick = Callable[[int, int, str], None]
_CONTROL = (
    "the whole search again: with the labels of another file at the same positions, and in the same model with the "
    "entries of each weight in random order"
)
# Rows that run together.
_BATCH = 8


@dataclass(frozen=True)
class _Found:
    """`best` [label, top] units, their r where chosen and on other files, and AUROC (NaN for graded labels)."""

    best: Int[np.ndarray, "label top"]
    chosen: Float[np.ndarray, "label top"]
    held_out: Float[np.ndarray, "label top"]
    auroc: Float[np.ndarray, "label top"]


def search_cells(
    model: Any,
    texts: tuple[Sequence[str], Sequence[str]] | None = None,
    *,
    n_files: int = 16,
    length: int = 512,
    top: int = 5,
    seed: int = 0,
    progress: Tick | None = None,
    partial: Callable[[CellSearch], None] | None = None,
) -> CellSearch:
    """Search every unit for each label of `strobe.probes.cells.labels.LABELS`.

    `texts`: Python files (to choose on, to judge by), or None for `n_files` held-out files of Python's library each.
    The first `length` tokens of a given file are used, of a library file those from a random line; a file that is
    shorter, or that `tokenize` cannot read, is left out and counted. `top`: units kept for each label. Where
    `progress` raises while the untrained model is run, `partial` is given the result without it.

    Raises ValueError for a model without tokens, text or a fast tokenizer, and for files that are too few.
    """
    if n_files < 2 or length < 8 or top < 1:
        raise ValueError(f"{n_files} files of {length} tokens, top {top}: give 2 files, 8 tokens and 1 unit at least")
    if getattr(getattr(model, "config", None), "d_input", 0):
        raise ValueError(f"cells follow text; {model.model_name} takes real-valued inputs; use a language model")
    if model.tokenizer is None:
        raise ValueError(f"cells follow text; {model.model_name} came without a tokenizer; add tokenizer.json to it")
    choosing, judging, left_out = _files(model, texts, n_files, length, seed)
    sites = sites_of(model)
    n_units = sum(site.size for site in sites)
    top = min(top, n_units)
    settings = {"n_files": n_files, "length": length, "top": top, "texts": "library" if texts is None else "given"}
    every: dict[str, _Found] = {}

    def result(r: Float[np.ndarray, "split label unit"], provenance: Provenance) -> CellSearch:
        empty = _nothing(len(LABELS), top)
        found = [every.get(name, empty) for name in VARIANTS]
        return CellSearch(
            labels=list(LABELS),
            graded=np.array([name in GRADED for name in LABELS]),
            share=choosing.labels.mean((0, 1), dtype=np.float64),
            sites=[site.hook for site in sites],
            layers=[site.layer for site in sites],
            fields=[site.field for site in sites],
            kinds=[site.kind for site in sites],
            shapes=[list(site.shape) for site in sites],
            correlation=r.astype(np.float32),
            variants=list(VARIANTS),
            best=np.stack([f.best for f in found]),
            chosen=np.stack([f.chosen for f in found]),
            held_out=np.stack([f.held_out for f in found]),
            auroc=np.stack([f.auroc for f in found]),
            n_files=[len(choosing.tokens), len(judging.tokens), left_out],
            length=length,
            provenance=provenance,
        )

    with evaluating(model):
        r = _searched(model, sites, choosing, judging, top, VARIANTS[:2], every, _stage(progress, 0, 4))
        # Before the weights are permuted: a run that is stopped while they are is of the model's own.
        provenance = provenance_of(model, seed=seed, settings=settings, control=_CONTROL)
        tick = keeping(progress, partial, lambda: result(r, provenance))
        with weights_permuted(model, seed):
            _searched(model, sites, choosing, judging, top, VARIANTS[2:], every, _stage(tick, 2, 4))
    return result(r, provenance)


def _files(
    model: Any, texts: tuple[Sequence[str], Sequence[str]] | None, n_files: int, length: int, seed: int
) -> tuple[LabelledRows, LabelledRows, int]:
    choose, judge = library_texts(n_files, length, seed) if texts is None else texts
    rng = np.random.default_rng(seed) if texts is None else None
    first, out = labelled_rows(model, choose, length, rng)
    second, also = labelled_rows(model, judge, length, rng)
    keep = n_files if texts is None else None
    return (
        LabelledRows(first.tokens[:keep], first.labels[:keep]),
        LabelledRows(second.tokens[:keep], second.labels[:keep]),
        out + also,
    )


def _searched(
    model: Any,
    sites: list[Site],
    choosing: LabelledRows,
    judging: LabelledRows,
    top: int,
    variants: Sequence[str],
    every: dict[str, _Found],
    tick: Callable[[int, float, str], None],
) -> Float[np.ndarray, "split label unit"]:
    """Fill `every` for `variants`, which share their passes; r of the right labels, where chosen and on other files."""
    n = len(LABELS)
    labels = [np.concatenate([rows.labels, rows.of_other_files()], -1) for rows in (choosing, judging)]
    untrained = "choosing, weights permuted" if variants[0] == VARIANTS[2] else "choosing"
    r_choose, _ = _pass(model, sites, choosing.tokens, labels[0], None, lambda x: tick(0, x, untrained))
    # A unit that never moves, or a label that never holds, has no correlation, and is never the best.
    order = np.argsort(-np.nan_to_num(np.abs(r_choose), nan=-1.0), axis=1, kind="stable")[:, :top]
    wanted = np.unique(order)
    untrained = untrained.replace("choosing", "judging")
    r_judge, values = _pass(model, sites, judging.tokens, labels[1], wanted, lambda x: tick(1, x, untrained))
    for i, name in enumerate(variants):
        rows = slice(i * n, (i + 1) * n)
        best = order[rows]
        chosen, held_out = (np.take_along_axis(r[rows], best, 1) for r in (r_choose, r_judge))
        truth = labels[1][..., rows].reshape(-1, n)
        every[name] = _Found(best, chosen, held_out, _aurocs(values, np.searchsorted(wanted, best), chosen, truth))
    return np.stack([r_choose[:n], r_judge[:n]])


def _pass(
    model: Any,
    sites: list[Site],
    tokens: Int[np.ndarray, "file time"],
    labels: Float[np.ndarray, "file time label"],
    wanted: Int[np.ndarray, " chosen"] | None,
    tick: Callable[[float], None],
) -> tuple[Float[np.ndarray, "label unit"], Float[np.ndarray, "token chosen"]]:
    """(r of every label and unit, the values of the `wanted` units at every token)."""
    sums = Correlations(sum(site.size for site in sites), labels.shape[-1])
    picked = torch.as_tensor(np.array([], dtype=np.int64) if wanted is None else wanted)
    values = np.zeros((*tokens.shape, len(picked)), np.float32)
    for first in range(0, len(tokens), _BATCH):
        rows = slice(first, first + _BATCH)
        for start, stop, units in stream_units(model, tokens[rows], sites):
            tick((first + min(_BATCH, len(tokens) - first) * start / tokens.shape[1]) / len(tokens))
            sums.add(units.flatten(0, 1), torch.from_numpy(labels[rows, start:stop]).flatten(0, 1))
            values[rows, start:stop] = units[..., picked.to(units.device)].cpu().numpy()
    return sums.found(), values.reshape(tokens.size, len(picked))


def _aurocs(
    values: Float[np.ndarray, "token chosen"],
    at: Int[np.ndarray, "label top"],
    signs: Float[np.ndarray, "label top"],
    labels: Float[np.ndarray, "token label"],
) -> Float[np.ndarray, "label top"]:
    """Of each label's units, turned as they correlated where they were chosen; NaN for labels that count."""
    found = np.full(at.shape, np.nan)
    for i, name in enumerate(LABELS):
        truth = labels[:, i] > 0
        if name not in GRADED and truth.any() and not truth.all():
            scores = (values[:, at[i]] * np.sign(np.nan_to_num(signs[i], nan=1.0))).T
            found[i] = auroc(scores[:, None].astype(np.float64), truth[None])[:, 0]
    return found


def _nothing(labels: int, top: int) -> _Found:
    nan = np.full((labels, top), np.nan)
    return _Found(np.full((labels, top), -1), nan, nan, nan)


def _stage(progress: Tick | None, first: int, total: int) -> Callable[[int, float, str], None]:
    tick = progress or (lambda done, total, message: None)
    return lambda stage, share, what: tick(int(100 * (first + stage + share)), 100 * total, what)
