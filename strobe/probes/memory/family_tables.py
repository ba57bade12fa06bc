"""A family of models as tables, the way a card has them."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from strobe.probes.memory.family_result import MemoryFamily


def tables(family: "MemoryFamily") -> list[dict[str, Any]]:
    """Far accuracy, the causal test and retention by size and training length; the lengths that follow."""
    return [_behaviour(family), _lengths(family)]


def _behaviour(family: "MemoryFamily") -> dict[str, Any]:
    rows = []
    for i, size in enumerate(family.sizes.tolist()):
        rows += [
            [size, int(window), _over(family.inside[i, j]), _over(family.octaves[i, j, :, -1]),
             _over(family.reset[i, j]), _span(family.retention[i, j]), _said(family, i, j)]
            for j, window in enumerate(family.windows)
        ]  # fmt: skip
        rows.append([size, "untrained (control)", "", f"{family.untrained_octaves[i, -1]:.2f}", "",
                     _span(family.untrained_retention[i]), ""])  # fmt: skip
    segments = 2 ** (family.octaves.shape[-1] - 1)
    return {
        "title": "By size of the state and training length",
        "columns": ["numbers in the state", "trained on (tokens)", "accuracy there", "far beyond", "memory reset",
                    "retention per segment", "comes to"],
        "rows": rows,
        "note": f"A value a seed ({', '.join(map(str, family.seeds))}). Far beyond: segments {segments // 2 + 1} to "
        f"{segments} of {family.segment} tokens. Memory reset: segments 33 to 64 of the same model with its memory "
        "emptied at every boundary, the causal test. Holds: far beyond at least .95 of the accuracy there. Collapses: "
        "it does not, and the reset brings back .95. Not learned: below .9 at its own training length. Retention: "
        "smallest and largest head. Control: untrained.",
    }  # fmt: skip


def _lengths(family: "MemoryFamily") -> dict[str, Any]:
    forget, recall = family.forget_lengths, family.recall_lengths
    return {
        "title": "The lengths, and the laws fitted to them",
        "columns": ["numbers in the state", "T_forget (tokens)", "T_recall (tokens)"],
        "rows": [
            [size, _over(forget[i], 0), _over(recall[i], 0, family.longest)]
            for i, size in enumerate(family.sizes.tolist())
        ],
        "note": "T_forget: the shortest training length from which on every longer one holds; it is known only between "
        f"the lengths tried, {', '.join(map(str, family.windows.tolist()))}. T_recall: the longest prompt of different "
        f"pairs recalled above .95 (of up to {family.longest} tokens), the best over training lengths. T_forget: "
        f"{family.said('forget')}. T_recall: {family.said('recall')}. Control: lengths in shuffled order. The paper's "
        "are language models with states of millions of numbers; its own fits say nothing about sizes like these. "
        "Task, sizes, windows, steps and rate were chosen after about a dozen pilot trainings.",
    }  # fmt: skip


def _over(values: np.ndarray, digits: int = 2, most: float | int = np.inf) -> str:
    return " / ".join("none" if np.isnan(v) else f"{v:.{digits}f}{' or more' if v >= most else ''}" for v in values)


def _span(values: np.ndarray) -> str:
    return f"{values.min():.3f} to {values.max():.3f}"


def _said(family: "MemoryFamily", i: int, j: int) -> str:
    words = []
    for s in range(len(family.seeds)):
        if not family.learned[i, j, s]:
            words.append("not learned")
        elif family.holds[i, j, s]:
            words.append("holds")
        else:
            words.append("collapses" if family.collapsed[i, j, s] else "falls, and a reset does not repair it")
    return " / ".join(words)
