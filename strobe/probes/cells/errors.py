"""Which tokens the model gets right that counting does not: errors by what the text is about and by history.

After the error analysis of Karpathy, Johnson & Fei-Fei 2015 (section 4.4), which peels errors off with oracles. Here,
and this is ours, every predicted token is put into classes instead, and the model's loss in each stands beside that of
a Witten-Bell n-gram (`strobe.models.corpus.WittenBell`), which is the control: what counting alone can do there.

A class describes the place before the predicted token (the labels of `strobe.probes.cells.labels`), how long a
history of it the n-gram has seen ("seen 0" to "seen order - 1": the longest n whose n tokens before it are in its
training text), or the position in the row. A token is in several classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from strobe.core.result import Result
from strobe.models.corpus import WittenBell
from strobe.probes.cells.labels import GRADED, LABELS
from strobe.probes.cells.texts import labelled_rows, library_texts
from strobe.probes.lens.readout import evaluating
from strobe.probes.partial import keeping
from strobe.probes.provenance import provenance_of

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects

Tick = Callable[[int, int, str], None]
KINDS = ("both right", "only the model", "only the n-gram", "neither")
_LARGEST = 2**63


@dataclass(frozen=True)
class ErrorTypes(Result):
    """`classes` and, for each, `count` of predicted tokens, `loss` and `ngram_loss` (nats per token; NaN where there is
    none), `outcomes` [class, 4]: how many of each of `KINDS`, by the most likely token. `order` and `n_train` tokens of
    the n-gram. `examples` [class]: up to five tokens that only the model gets right. `cut_short`: (files judged, files
    asked for) where the run was ended between two of them, None where it is whole."""

    classes: list[str]
    count: Int[np.ndarray, " class"]
    loss: Float[np.ndarray, " class"]
    ngram_loss: Float[np.ndarray, " class"]
    outcomes: Int[np.ndarray, "class 4"]
    order: int
    n_train: int
    examples: list[list[str]]
    cut_short: tuple[int, int] | None = None

    @property
    def partial(self) -> str:
        """What is missing, in words; empty where nothing is."""
        return "" if self.cut_short is None else "cut short after {} of {} files".format(*self.cut_short)

    def figure(self, *, template: str = "strobe_light") -> "plotly.graph_objects.Figure":
        """Loss of the model and of the n-gram in each class."""
        import plotly.graph_objects as go

        from strobe.core import figures

        fig, places = go.Figure(), np.arange(len(self.classes))
        for i, (name, values) in enumerate(
            (("model", self.loss), (f"control: {self.order}-gram (Witten-Bell)", self.ngram_loss))
        ):
            color = figures.CONTROL_COLOR if i else figures.colors(template)[0]
            marker = {"symbol": figures.SYMBOLS[i], "size": 10, "color": color}
            fig.add_scatter(x=values, y=places, mode="markers", name=name, marker=marker)
        named = [f"{c.replace('_', ' ')} ({n:,})" for c, n in zip(self.classes, self.count, strict=True)]
        fig.update_yaxes(tickmode="array", tickvals=places, ticktext=named, autorange="reversed")
        fig.update_xaxes(title_text="cross-entropy (nats per token)", rangemode="tozero")
        said = f"in brackets: how many; n-gram counted on {self.n_train:,} tokens"
        fig.update_layout(
            title={
                "text": "Loss by class of token",
                "subtitle": {"text": "; ".join(filter(None, (self.partial, said)))},
            },
            height=140 + 26 * len(places),
            margin={"t": 100},
        )
        return figures.style(fig, template)

    def to_frame(self) -> "pandas.DataFrame":
        """One row per class: class, count, loss, ngram_loss, and a column for each outcome."""
        import pandas

        columns = {name: self.outcomes[:, k] for k, name in enumerate(KINDS)}
        return pandas.DataFrame(
            {"class": self.classes, "count": self.count, "loss": self.loss, "ngram_loss": self.ngram_loss, **columns}
        )

    def summary(self) -> str:
        """Each class with both losses and who is right."""
        lines = [self.partial] if self.partial else []
        lines.append(f"n-gram of order {self.order}, counted on {self.n_train:,} training tokens, is the control")
        for i, name in enumerate(self.classes):
            if self.count[i]:
                share = ", ".join(f"{k} {n / self.count[i]:.0%}" for k, n in zip(KINDS, self.outcomes[i], strict=True))
                lines.append(
                    f"  {name} ({self.count[i]:,}): {self.loss[i]:.2f} nats, n-gram {self.ngram_loss[i]:.2f}; {share}"
                )
        return "\n".join(lines)


def error_types(
    model: Any,
    texts: tuple[Sequence[str], Sequence[str]] | None = None,
    *,
    n_files: int = 8,
    length: int = 256,
    order: int = 5,
    n_train: int = 500_000,
    seed: int = 0,
    progress: Tick | None = None,
    partial: Callable[[ErrorTypes], None] | None = None,
) -> ErrorTypes:
    """Losses of `model` and of an n-gram on the same tokens, by class.

    `texts`: (what the n-gram is counted on, Python files to judge by), or None for Python's library: its training part
    and held-out files. At most `n_train` tokens are counted; fewer than the model was trained on make the n-gram
    weaker. Where `progress` raises, `partial` is given the result over the files judged by then, if any. Raises
    ValueError for an order whose n-grams do not fit 63 bits with this vocabulary, and as `labelled_rows`.
    """
    vocab = int(model.cfg.d_vocab)
    if order < 2 or vocab**order >= _LARGEST:
        raise ValueError(
            f"an n-gram of order {order} was asked for; over {vocab} tokens orders 2 to "
            f"{int(np.log(_LARGEST) / np.log(vocab))} fit 63 bits; ask for one of these"
        )
    if model.tokenizer is None:
        raise ValueError(f"errors are told by text; {model.model_name} came without a tokenizer; add tokenizer.json")
    train, judge = (_training_texts(), library_texts(n_files, length, seed)[0]) if texts is None else texts
    rng = np.random.default_rng(seed) if texts is None else None
    rows, _ = labelled_rows(model, judge, length, rng)
    tokens, labels = rows.tokens[: None if rng is None else n_files], rows.labels[: None if rng is None else n_files]
    if progress is not None:
        progress(0, len(tokens), "counting n-grams")
    counted = _encoded(model, train, n_train, seed)
    ngram = WittenBell(counted, order=order, vocab=vocab)
    classes = _classes(tokens, labels, counted, order)
    settings = {"n_files": len(tokens), "length": length, "order": order, "n_train": len(counted),
                "texts": "library" if texts is None else "given"}  # fmt: skip
    judged = _Judged(np.zeros(tokens[:, 1:].shape), np.zeros(tokens[:, 1:].shape), [], [])

    def result(done: int) -> ErrorTypes:
        provenance = provenance_of(
            model, seed=seed, settings=settings, control=f"a Witten-Bell {order}-gram on the same tokens"
        )
        short = None if done == len(tokens) else (done, len(tokens))
        return _result(model, classes, tokens[:done], judged, (order, len(counted)), short, provenance)

    tick = keeping(progress, partial, lambda: result(i) if i else None)
    for i, row in enumerate(tokens):
        tick(i, len(tokens), "judging a file by the model and by the n-gram")
        _judge(model, ngram, row, i, judged)
    return result(len(tokens))


class _Judged(NamedTuple):
    """What both make of each file so far: losses [file, time - 1] and, of those judged, who is right."""

    loss: Float[np.ndarray, "file predicted"]
    ngram_loss: Float[np.ndarray, "file predicted"]
    right: list[Bool[np.ndarray, " predicted"]]
    ngram_right: list[Bool[np.ndarray, " predicted"]]


def _judge(model: Any, ngram: WittenBell, row: Int[np.ndarray, " time"], i: int, judged: _Judged) -> None:
    with evaluating(model), torch.no_grad():
        ids = torch.as_tensor(row, device=next(model.parameters()).device)
        log_p = model.forward(ids[None])[0, :-1].double().log_softmax(-1)
        judged.loss[i] = -log_p.gather(-1, ids[1:, None])[:, 0].cpu().numpy()
        judged.right.append((log_p.argmax(-1) == ids[1:]).cpu().numpy())
    judged.ngram_loss[i] = -np.log(ngram.probabilities(row))[1:]
    reach = ngram.order - 1
    most_likely = [ngram.distribution(row[max(0, t - reach) : t]).argmax() for t in range(1, len(row))]
    judged.ngram_right.append(np.array(most_likely) == row[1:])


def _training_texts() -> list[str]:
    from strobe.models.corpus import split_of, standard_library_documents

    return [d.text for d in standard_library_documents()[0] if split_of(d.path) == "train"]


def _encoded(model: Any, texts: Sequence[str], n_train: int, seed: int) -> Int[np.ndarray, " n_tokens"]:
    ids: list[int] = []
    for i in np.random.default_rng(seed).permutation(len(texts)):
        if len(ids) >= n_train:
            break
        ids += model.tokenizer.encode(texts[i], add_special_tokens=False)
    return np.array(ids[:n_train], dtype=np.int64)


def _classes(
    tokens: Int[np.ndarray, "file time"],
    labels: Float[np.ndarray, "file time label"],
    counted: Int[np.ndarray, " n_tokens"],
    order: int,
) -> dict[str, Bool[np.ndarray, " token"]]:
    """The predicted tokens of each class, in the order of the files."""
    before = labels[:, :-1].reshape(-1, len(LABELS))
    found = {"all": np.ones(len(before), bool)}
    found |= {name: before[:, i] > 0 for i, name in enumerate(LABELS) if name not in GRADED}
    names = list(LABELS)
    found["line begins"] = before[:, names.index("line_position")] == 0
    longest = history_seen(tokens, counted, order - 1)[:, 1:].ravel()
    found |= {f"seen {n}": longest == n for n in range(order)}
    time, quarters = tokens.shape[1] - 1, 4
    quarter = np.tile(np.arange(time) * quarters // time, len(tokens))
    return found | {f"quarter {q + 1} of the row": quarter == q for q in range(quarters)}


def history_seen(
    tokens: Int[np.ndarray, "file time"], counted: Int[np.ndarray, " n_tokens"], longest: int
) -> Int[np.ndarray, "file time"]:
    """How many tokens just before each one, `longest` at most, are together somewhere in `counted`."""
    found = np.zeros(tokens.shape, np.int64)
    for n in range(1, longest + 1):
        seen = set(map(tuple, np.lib.stride_tricks.sliding_window_view(counted, n).tolist()))
        for i, t in np.ndindex(tokens.shape):
            if t >= n and tuple(tokens[i, t - n : t].tolist()) in seen:
                found[i, t] = n
    return found


def _result(
    model: Any, classes: dict[str, np.ndarray], tokens: np.ndarray, judged: _Judged, counted: tuple[int, int],
    cut_short: tuple[int, int] | None, provenance: Any,
) -> ErrorTypes:  # fmt: skip
    ours, theirs = (np.concatenate(right) for right in (judged.right, judged.ngram_right))
    losses = [loss[: len(tokens)].ravel() for loss in (judged.loss, judged.ngram_loss)]
    kinds = np.stack([ours & theirs, ours & ~theirs, ~ours & theirs, ~ours & ~theirs], 1)
    flat = tokens[:, 1:].ravel()
    # Classes are of all files; those that were judged come first.
    classes = {name: where[: len(flat)] for name, where in classes.items()}
    picked = [flat[where & kinds[:, 1]][:5] for where in classes.values()]
    return ErrorTypes(
        classes=list(classes),
        count=np.array([where.sum() for where in classes.values()]),
        loss=np.array([_mean(losses[0][where]) for where in classes.values()]),
        ngram_loss=np.array([_mean(losses[1][where]) for where in classes.values()]),
        outcomes=np.stack([kinds[where].sum(0) for where in classes.values()]),
        order=counted[0],
        n_train=counted[1],
        examples=[[str(w) for w in model.to_str_tokens(torch.as_tensor(ids))] if len(ids) else [] for ids in picked],
        cut_short=cut_short,
        provenance=provenance,
    )


def _mean(values: Float[np.ndarray, " n"]) -> float:
    return float(values.mean()) if len(values) else float("nan")
