"""How much a sequence repeats itself: rep-n, Rep Score, entropy, repeated sentences. Pure functions, no model.

rep-n is Welleck et al. 2020 (arXiv:1908.04319, eq. 9, "seq-rep-n"), rep/l their eq. 8; the Rep Score is rep-1 over the
words between white space, as Yao et al. 2025 (arXiv:2504.14218) compute it, and 0.4 their threshold.
"""

import math
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import pairwise

# A continuation repeats when its Rep Score is at least this: the paper's rho.
REPETITIVE = 0.4
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


def ngrams(items: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    """Every run of `n` items, in order. Raises ValueError for `n` below 1 or fewer than `n` items."""
    if n < 1 or len(items) < n:
        raise ValueError(
            f"{n}-grams of {len(items)} items were asked for; n is at least 1 and at most the number of items: "
            "give a longer sequence or a smaller n"
        )
    return [tuple(items[i : i + n]) for i in range(len(items) - n + 1)]


def rep_n(items: Sequence[Hashable], n: int) -> float:
    """1 - |distinct n-grams| / |n-grams|: 0 where all differ. Raises ValueError as `ngrams`.

    >>> round(rep_n(("repeat " * 7).split(), 1), 3)
    0.857
    """
    grams = ngrams(items, n)
    return 1 - len(set(grams)) / len(grams)


def rep_score(text: str) -> float:
    """rep-1 over the words of `text`. Raises ValueError for a text without a word."""
    return rep_n(text.split(), 1)


def repeat_in_window(items: Sequence[Hashable], window: int) -> float:
    """Welleck et al.'s rep/l: the share of items that are among the `window` items before them.

    Raises ValueError for no item or a window below 1.
    """
    if not items or window < 1:
        raise ValueError(f"rep/{window} of {len(items)} items was asked for; give one item and a window of 1 at least")
    return sum(items[i] in items[max(0, i - window) : i] for i in range(len(items))) / len(items)


def information_entropy(items: Sequence[Hashable], n: int = 1) -> float:
    """Entropy of the n-grams over log2 of how many there are: 0 for one repeated, 1 where all differ, NaN for a single
    one (0 / 0). Raises ValueError as `ngrams`."""
    grams = ngrams(items, n)
    if len(grams) == 1:
        return math.nan
    shares = [count / len(grams) for count in Counter(grams).values()]
    # abs: a sum of one term -1 log 1 is -0.0
    return abs(-sum(p * math.log2(p) for p in shares) / math.log2(len(grams)))


def sentences(text: str) -> list[str]:
    """`text` at every end of a line and after ``.``, ``!``, ``?`` before white space, stripped, empty ones left out.

    Where a sentence ends is our convention: one that suits prose and code alike.
    """
    return [part.strip() for part in _SENTENCE_END.split(text) if part.strip()]


def sentence_repetition(parts: Sequence[str]) -> tuple[float, float]:
    """(share of sentences equal to any earlier one, share equal to the one right before), the second as Xu et al. 2022
    (arXiv:2206.02369, section 2) count. Raises ValueError for no sentence."""
    if not parts:
        raise ValueError("sentence repetition of a text without a sentence was asked for; give one at least")
    consecutive = sum(a == b for a, b in pairwise(parts))
    return 1 - len(set(parts)) / len(parts), consecutive / len(parts)
