"""What a recurrent layer's carry does along an input far longer than training: streamed, at flat memory.

After Chen et al. 2024 (Stuffed Mamba, arXiv 2410.07145): moments of the state by head, the explosion ratio, cumulative
retention alpha_{1:t}, half-life, loss by position and the forgetting criterion. Ours: everything by channel, effective
rank and saturation, the distance from the range seen within the training length, and the controls.

None of it shows collapse by itself: that word needs a behavioural curve and an intervention (`compare_mitigations`).
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from strobe.probes.memory.diagnostics_result import CarryDiagnostics
from strobe.probes.memory.mitigations import Mitigation
from strobe.probes.memory.streaming import PIECE, Tick, as_inputs, train_length_of
from strobe.probes.memory.watching import CarryWatch
from strobe.probes.partial import keeping
from strobe.probes.provenance import provenance_of
from strobe.probes.states import recurrent_layers

# Times the training length that the shuffled control is run for.
_CONTROL_LENGTHS = 4


def diagnose(
    model: Any,
    inputs: Any,
    *,
    targets: Any = None,
    train_length: int | None = None,
    stride: int | None = None,
    layers: Sequence[int] | None = None,
    under: Mitigation | None = None,
    piece: int = PIECE,
    seed: int = 0,
    progress: Tick | None = None,
    partial: Callable[[CarryDiagnostics], None] | None = None,
) -> CarryDiagnostics:
    """The carry of `layers` (None: all recurrent ones) after every `stride`-th token of `inputs`, and the loss.

    `inputs`: token ids [batch, time] (or numbers [batch, time, channels]); rows are averaged over, and two at least are
    needed for the distance from the training range. `targets` [batch, time]: -100 where not scored; None is the next
    token. `train_length`: tokens in a training sequence (None: what the model's configuration says). `stride`: None
    for an eighth of it. `under`: an intervention that all of it, the control too, is run with. The carry goes through
    pieces of `piece` tokens and only the numbers of the result are kept. Where `progress` raises, `partial`
    is given those of the tokens read so far, if one of them has a carry that was looked at.

    Raises ValueError for a model without a recurrence (`position_loss` applies to it), a layer without one, or a stride
    longer than the input; CaptureTooLarge where the numbers kept would not fit.
    """
    x = as_inputs(model, inputs)
    length = train_length_of(model, train_length)
    stride = max(1, min(length // 8, x.shape[1])) if stride is None else stride
    chosen = _layers(model, layers)
    if not 1 <= stride <= x.shape[1]:
        raise ValueError(f"a carry after every {stride} tokens was asked for of {x.shape[1]}; give a stride in between")
    watch = CarryWatch(model, chosen, length, stride, x)
    shuffled = _shuffled(x[:, : _CONTROL_LENGTHS * length], seed)
    control = CarryWatch(model, chosen, length, min(stride, shuffled.shape[1]), shuffled)
    # First, so that what is cut short has its control.
    control.run(targets=None, piece=piece, under=under or Mitigation())
    settings = {
        "train_length": length, "stride": stride, "layers": chosen, "batch": x.shape[0], "time": x.shape[1],
        "piece": piece, "under": None if under is None else under.settings(),
    }  # fmt: skip
    words = (
        f"the first {shuffled.shape[1]} tokens in shuffled order; of ranges, rows held out inside the training length"
    )

    def result(time: int) -> CarryDiagnostics:
        return CarryDiagnostics(
            layers=tuple(chosen),
            mixers=tuple(type(model.mixers[f"blocks.{i}.mixer"]).__name__ for i in chosen),
            train_length=length,
            stride=stride,
            time=time,
            positions=np.array(watch.positions, dtype=np.int64),
            **{name: watch.kept(name) for name in CarryDiagnostics.KEPT},
            mean_log_decay=watch.mean_log_decay(time),
            window_loss=watch.windows.loss[: -(-time // stride)],
            window_accuracy=watch.windows.accuracy[: -(-time // stride)],
            control_positions=np.array(control.positions, dtype=np.int64),
            control_norm=control.kept("head_norm"),
            control_log_retention=control.kept("log_retention"),
            control_outside=watch.range_control(0),
            control_distance=watch.range_control(1),
            provenance=provenance_of(model, seed=seed, settings=settings, control=words),
        )

    read = 0
    tick = keeping(progress, partial, lambda: result(read) if watch.positions else None)

    def tell(done: int) -> None:
        nonlocal read
        read = done
        tick(done, x.shape[1], "streaming")

    watch.run(targets=_targets(x, targets), piece=piece, under=under or Mitigation(), tick=tell)
    return result(x.shape[1])


def _layers(model: Any, asked: Sequence[int] | None) -> list[int]:
    have = recurrent_layers(model)
    if not have:
        raise ValueError(
            f"the carry of {model.model_name} was asked for, which has no recurrent layer; position_loss and "
            "effective_remembrance apply to any model, and depth can be its time: strobe depth, depth_orbit, "
            "layer_exponents"
        )
    chosen = have if asked is None else sorted(set(asked))
    if missing := sorted(set(chosen) - set(have)):
        raise ValueError(f"layers {missing} were asked for; layers with a recurrent carry: {', '.join(map(str, have))}")
    return chosen


def _targets(x: Tensor, given: Any) -> Tensor | Literal["next"] | None:
    if given is None:
        return None if x.is_floating_point() else "next"
    targets = torch.as_tensor(given).to(x.device)
    targets = targets[None] if targets.ndim == 1 else targets
    if targets.shape != x.shape[:2]:
        raise ValueError(
            f"targets of shape {tuple(targets.shape)} for inputs of shape {tuple(x.shape)}; give one a token"
        )
    return targets


def _shuffled(x: Tensor, seed: int) -> Tensor:
    order = torch.randperm(x.shape[1], generator=torch.Generator().manual_seed(seed))
    return x[:, order.to(x.device)]
