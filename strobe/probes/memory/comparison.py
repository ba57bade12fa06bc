"""Mitigations side by side: behaviour by position with each of them, on the same inputs, beside the untouched model.

The one place where the word collapse can be earned: it takes behaviour that falls beyond the training length, and an
intervention on the carry that brings it back.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from strobe.probes.memory.carry_statistics import by_head
from strobe.probes.memory.comparison_result import MitigationComparison
from strobe.probes.memory.mitigations import Mitigation, Reset, Swap
from strobe.probes.memory.streaming import (
    PIECE,
    Tick,
    WindowMeans,
    as_inputs,
    next_token_targets,
    pieces,
    train_length_of,
)
from strobe.probes.partial import keeping
from strobe.probes.provenance import provenance_of
from strobe.probes.states import recurrent_layers

_CONTROL = "the untouched model; at the places of a reset, the memory swapped for another row's"


def training_norms(
    model: Any, inputs: Any, *, train_length: int | None = None, every: int = 1
) -> dict[int, np.ndarray]:
    """By layer, the largest norm of each head's memory [heads] within the training length, over the rows of `inputs`
    [batch, time]: the limits of `NormLimit`."""
    x = as_inputs(model, inputs)
    x = x[:, : train_length_of(model, train_length)]
    found: dict[int, np.ndarray] = {}
    for part in pieces(model, x, every=every, layers=recurrent_layers(model)):
        for layer, memory in part.memories.items():
            per_row = torch.stack([by_head(row).norm.amax(0) for row in memory.split(1)]).amax(0)
            found[layer] = np.maximum(found.get(layer, 0.0), per_row.cpu().numpy())
    return found


def compare_mitigations(
    model: Any,
    inputs: Any,
    mitigations: Sequence[Mitigation],
    *,
    targets: Any = None,
    train_length: int | None = None,
    window: int | None = None,
    piece: int = PIECE,
    progress: Tick | None = None,
    partial: Callable[[MitigationComparison], None] | None = None,
) -> MitigationComparison:
    """Loss and accuracy of the untouched model and with each of `mitigations`, in windows of `window` tokens (None: the
    training length), and the root mean square of the carry at each window's end.

    `inputs` [batch, time], `targets` [batch, time] (-100 where not scored; None: the next token). For every `Reset` of
    the memory, a `Swap` at the same places is added as its control. For text, a fall with position says nothing unless
    what is recalled is equally far back everywhere. Where `progress` raises, `partial` is given the runs that were
    made, if any.

    Raises ValueError for no mitigation, one that a layer's family does not allow, or a reset of a single row, which has
    no other to be swapped with.
    """
    if not mitigations:
        raise ValueError("no mitigation was given to compare with the untouched model; give one at least")
    x = as_inputs(model, inputs)
    length = train_length_of(model, train_length)
    width = length if window is None else window
    scored = next_token_targets(x) if targets is None else torch.as_tensor(targets).to(x.device).reshape(x.shape[:2])
    runs: list[Mitigation | None] = [None, *mitigations]
    runs += [Swap(every=m.every, layers=m.layers) for m in mitigations if isinstance(m, Reset) and m.part != "windows"]
    layers = recurrent_layers(model)
    loss, accuracy, size = [], [], []

    def result() -> MitigationComparison:
        return _compared(model, x, runs, loss, accuracy, size, length, width)

    tick = keeping(progress, partial, lambda: result() if size else None)
    for i, run in enumerate(runs):
        means, rms = WindowMeans(x.shape[1], width), []
        tell = _telling(tick, i, len(runs), x.shape[1], run)
        with (run or Mitigation()).open(model):
            hooks, looks = ([], None) if run is None else (run.hooks(model), run.looks)
            for part in pieces(model, x, targets=scored, every=width, layers=layers, looks=looks, hooks=hooks,
                               piece=piece, tick=tell):  # fmt: skip
                if part.targets is not None:
                    means.add(part)
                if part.memories:
                    rms.append(torch.stack([m.abs().float().pow(2).flatten(2).mean((0, 2)).sqrt()
                                            for m in part.memories.values()], 1).cpu())  # fmt: skip
        loss.append(means.loss)
        accuracy.append(means.accuracy)
        size.append(torch.cat(rms).numpy() if rms else np.zeros((0, len(layers)), np.float32))
    return result()


def _compared(
    model: Any,
    x: torch.Tensor,
    asked: list[Mitigation | None],
    loss: list[np.ndarray],
    accuracy: list[np.ndarray],
    size: list[np.ndarray],
    length: int,
    width: int,
) -> MitigationComparison:
    """The result of the runs that were made, the first of those asked for."""
    runs, layers = asked[: len(loss)], recurrent_layers(model)
    settings = {
        "train_length": length, "window": width, "batch": x.shape[0], "time": x.shape[1],
        "mitigations": [r.settings() for r in asked if r is not None],
    }  # fmt: skip
    return MitigationComparison(
        runs=tuple("untouched" if r is None else r.name for r in runs),
        kinds=tuple("untouched" if r is None else type(r).__name__ for r in runs),
        controls=tuple(i for i, r in enumerate(runs) if _is_control(r)),
        train_length=length,
        window=width,
        loss=np.stack(loss),
        accuracy=np.stack(accuracy),
        rms=np.stack(size),
        layers=tuple(layers),
        provenance=provenance_of(
            model,
            settings=settings,
            control="the untouched model; the memory swapped for another row's, where it is reset",
        ),
    )


def _is_control(run: Mitigation | None) -> bool:
    return isinstance(run, Swap) or (isinstance(run, Reset) and run.part == "windows")


def _telling(progress: Tick, i: int, n: int, time: int, run: Mitigation | None) -> Any:
    name = "untouched" if run is None else run.name
    return lambda done: progress(i * time + done, n * time, name)
