"""How much a model can recall, and from how far: accuracy against length and depth.

Chen et al. 2024 (Stuffed Mamba, arXiv 2410.07145) hide a passkey in filler: `length` tokens in all, the key at a
`depth` from 0 (the beginning) to 1; T_recall is the largest length with an accuracy above 95 %. Two makers of such
prompts are here: their text passkey, for a model that reads text, and dense recall, for one of the recall tasks: as
many different pairs as fit, one asked for. An answer counts where every token of it is the most likely one, given those
before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from strobe.core import figures
from strobe.core.result import Result
from strobe.probes.memory.streaming import PIECE, Tick, as_inputs, pieces
from strobe.probes.partial import keeping
from strobe.probes.provenance import provenance_of

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

_RECALLED = 0.95


class Asked(NamedTuple):
    """`prompts` [n, time] and what should follow each, `answers` [n, answer tokens]."""

    prompts: np.ndarray
    answers: np.ndarray


Maker = Callable[[int, float, int, np.random.Generator], Asked]
"""(length, depth, n, rng) -> prompts of at most `length` tokens, all of one length."""


@dataclass(frozen=True)
class Capacity(Result):
    """`accuracy` [lengths, depths]: share of answers given; `control` [lengths, depths]: share of another prompt's
    answers given, which is what guessing reaches. `task`: what was asked, in words; `n`: prompts a cell."""

    task: str
    lengths: tuple[int, ...]
    depths: tuple[float, ...]
    accuracy: Float[np.ndarray, "lengths depths"]
    control: Float[np.ndarray, "lengths depths"]
    n: int

    @property
    def partial(self) -> str:
        """How many of the lengths were asked, in words; empty where all were."""
        asked = len(self.provenance.settings.get("lengths", self.lengths))
        return "" if len(self.lengths) == asked else f"cut short after {len(self.lengths)} of {asked} lengths"

    @property
    def recalled(self) -> int | None:
        """T_recall: the largest length up to which the mean accuracy over depths stays above .95 from the shortest on;
        None where the shortest is not recalled."""
        good = self.accuracy.mean(1) > _RECALLED
        count = len(good) if good.all() else int(np.flatnonzero(~good)[0])
        return self.lengths[count - 1] if count else None

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Accuracy by length and depth, the numbers in the cells; the control in the title."""
        import plotly.graph_objects as go

        z = self.accuracy.T
        fig = go.Figure(
            go.Heatmap(
                z=z,
                x=[str(length) for length in self.lengths],
                y=[f"{depth:.2f}" for depth in self.depths],
                zmin=0,
                zmax=1,
                colorscale=figures.SEQUENTIAL,
                text=[[f"{v:.2f}" for v in row] for row in z],
                texttemplate="%{text}",
                colorbar={"title": {"text": "accuracy"}},
                hovertemplate="%{x} tokens, depth %{y}: %{z:.3f}<extra></extra>",
            )
        )
        fig.update_xaxes(title_text="length (tokens)", type="category")
        fig.update_yaxes(title_text="depth (0: the beginning)", type="category")
        said = f"{self.n} prompts a cell; another prompt's answer (control): {self.control.mean():.3f}"
        note = "; ".join(filter(None, (self.partial, said)))
        fig.update_layout(title={"text": f"Capacity: {self.task}", "subtitle": {"text": note}}, margin={"t": 84})
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per length and depth."""
        import pandas

        i, j = (a.ravel() for a in np.indices(self.accuracy.shape))
        return pandas.DataFrame(
            {
                "length": np.array(self.lengths)[i],
                "depth": np.array(self.depths)[j],
                "accuracy": self.accuracy.ravel(),
                "control": self.control.ravel(),
            }
        )

    def summary(self) -> str:
        """T_recall and the control."""
        at = self.recalled
        reach = f"T_recall {at} tokens" if at else f"not recalled at {self.lengths[0]} tokens"
        lines = [
            f"{self.task}: {reach} (accuracy above .95), {self.n} prompts a cell",
            f"  accuracy {self.accuracy.min():.3f} to {self.accuracy.max():.3f}; another prompt's answer (control) "
            f"{self.control.mean():.3f}",
            *([f"  {self.partial}"] if self.partial else []),
        ]
        return "\n".join([*lines, *(f"  {line}" for line in self.provenance.summary().splitlines())])


def capacity(
    model: Any,
    make: Maker,
    lengths: Sequence[int],
    *,
    task: str,
    depths: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
    n: int = 20,
    seed: int = 0,
    progress: Tick | None = None,
    partial: Callable[[Capacity], None] | None = None,
) -> Capacity:
    """Accuracy of `model` on `n` prompts that `make` draws for each of `lengths` and `depths`.

    Where `progress` raises, `partial` is given the lengths that were asked at every depth, if any. Raises ValueError
    for no length or depth, or fewer than two prompts a cell, which leave no other answer to compare.
    """
    chosen = sorted(set(lengths))
    if not chosen or not len(depths) or n < 2:
        raise ValueError(
            f"{len(chosen)} lengths, {len(depths)} depths, {n} prompts a cell: give one, one and two at least"
        )
    accuracy, control = np.zeros((2, len(chosen), len(depths)))
    settings = {"task": task, "lengths": chosen, "depths": list(map(float, depths)), "n": n}

    def result(done: int) -> Capacity:
        return Capacity(
            task=task,
            lengths=tuple(chosen[:done]),
            depths=tuple(map(float, depths)),
            accuracy=accuracy[:done].copy(),
            control=control[:done].copy(),
            n=n,
            provenance=provenance_of(model, seed=seed, settings=settings, control="the answers of another prompt"),
        )

    cells = 0
    tick = keeping(progress, partial, lambda: result(n) if (n := cells // len(depths)) else None)
    for i, length in enumerate(chosen):
        for j, depth in enumerate(depths):
            # A generator a cell: the prompts of one do not depend on which others were asked for.
            asked = make(length, depth, n, np.random.default_rng((seed, length, round(1000 * depth))))
            given = _answers(model, asked)
            accuracy[i, j] = (given == asked.answers).all(1).mean()
            control[i, j] = (given == np.roll(asked.answers, 1, 0)).all(1).mean()
            cells += 1
            tick(cells, accuracy.size, f"{length} tokens, depth {depth:g}")
    return result(len(chosen))


def _answers(model: Any, asked: Asked) -> np.ndarray:
    """The most likely token at each place of the answer, given the right ones before: [n, answer tokens].

    Greedy decoding would have written the answer exactly where all of these are right.
    """
    width = asked.answers.shape[1]
    x = as_inputs(model, torch.from_numpy(np.concatenate([asked.prompts, asked.answers[:, :-1]], 1)))
    tail: list[torch.Tensor] = []
    for part in pieces(model, x, piece=PIECE):
        tail = [*tail, part.logits[:, -width:].argmax(-1)]
    return torch.cat(tail, 1)[:, -width:].cpu().numpy()


def dense_recall(*, keys: int = 16, values: int = 32, separator: int = 0) -> Maker:
    """Prompts of segmented recall's alphabet: the separator, then as many different pairs as `length` holds, then one
    of their keys; the answer is its value. `depth` says which pair. Raises ValueError where they do not fit the keys.
    """

    def make(length: int, depth: float, n: int, rng: np.random.Generator) -> Asked:
        pairs = (length - 2) // 2
        if not 1 <= pairs <= keys:
            raise ValueError(
                f"dense recall of {length} tokens is {pairs} different pairs; there are {keys} keys: give 4 to "
                f"{2 * keys + 2} tokens"
            )
        key = 1 + rng.random((n, keys)).argsort(1)[:, :pairs]
        value = 1 + keys + rng.integers(values, size=(n, pairs))
        at = min(int(depth * pairs), pairs - 1)
        said = np.stack([key, value], 2).reshape(n, -1)
        prompts = np.concatenate([np.full((n, 1), separator), said, key[:, at : at + 1]], 1)
        return Asked(prompts, value[:, at : at + 1])

    return make


_OPENING = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize it. I will quiz you about "
    "it.\n\n"
)
_FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n"
_ENDING = "\nWhat is the pass key? The passkey is"


def text_passkey(tokenizer: Any, *, digits: int = 5) -> Maker:
    """The passkey prompts of Chen et al. 2024 in a model's own tokens: filler sentences around "The passkey is ...".

    Prompts of one cell differ in the key alone; where the tokenizer cuts numbers so that lengths differ, filler tokens
    are left out at the end of the filler. Raises ValueError where `length` does not hold the frame.
    """

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    def make(length: int, depth: float, n: int, rng: np.random.Generator) -> Asked:
        numbers = [str(rng.integers(10**digits)).zfill(digits) for _ in range(n)]
        hidden = [encode(f"The passkey is {k}. Remember it. {k} is the passkey.\n") for k in numbers]
        answers = [encode(" " + k) for k in numbers]
        opening, filler, ending = encode(_OPENING), encode(_FILLER), encode(_ENDING)
        room = length - len(opening) - len(ending) - max(map(len, hidden))
        if room < 0:
            raise ValueError(
                f"a passkey prompt of {length} tokens was asked for; its frame takes {length - room} here; "
                "give a longer one"
            )
        prompts = []
        for key in hidden:
            around = length - len(opening) - len(ending) - len(key)
            before = int(depth * around) // len(filler) * len(filler)
            text = (filler * (around // len(filler) + 1))[:around]
            prompts.append(opening + text[:before] + key + text[before:] + ending)
        # Only the tokens that every answer has are asked for: numbers may be cut into unequal pieces.
        width = min(map(len, answers))
        return Asked(np.array(prompts), np.array([a[:width] for a in answers]))

    return make
