"""What is measured of one model of a family: behaviour far beyond training, the causal test, retention, recall."""

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch

from strobe.models.tasks import IGNORED, task
from strobe.probes.memory.capacity import capacity, dense_recall
from strobe.probes.memory.mitigations import Reset
from strobe.probes.memory.scan_signals import changing, token_decay

# Rows and segments of the long input: 8,192 tokens where a segment has 16. The causal test takes its first segments.
_ROWS, _OCTAVES, _TESTED = 8, 9, 64
_DEPTHS, _PROMPTS = (0.0, 0.25, 0.5, 0.75, 1.0), 48


class Measures(NamedTuple):
    """Accuracy over scored tokens: `inside` the training window, of segment 1 and of segments 2, 3-4, 5-8, ...
    (`octaves`); over the second half of the causal test's segments `untouched` and with the memory `reset` at each
    boundary. `retention`: share of a write left a segment later, by head. `recalled`: T_recall in tokens, 0 where the
    shortest prompt is not recalled. `seconds`: of training."""

    inside: float
    octaves: np.ndarray
    untouched: float
    reset: float
    retention: np.ndarray
    recalled: float
    seconds: float = 0.0


def measure(model: Any, window: int, settings: dict[str, int]) -> Measures:
    """Measure `model`, trained on `window` tokens of segmented recall with `settings`."""
    length = settings["length"]
    drawn = task("segmented_recall").generate(_ROWS, np.random.default_rng((99, 1)), segments=2**_OCTAVES, **settings)
    inputs, targets = torch.from_numpy(drawn.inputs), torch.from_numpy(drawn.targets)
    decays: list[torch.Tensor] = []

    def watch(layer: int, family: str, signals: Any) -> Any:
        decays.append(token_decay(family, signals).per_token)
        return signals

    with torch.no_grad(), changing(model, watch, [0]):
        right, scored = _right(model(inputs), targets)
    log_decay = decays[0].unflatten(0, (-1, length)).sum(1).mean(0)
    by_segment = _share(right, scored, length)
    ends = [0, *(2**i for i in range(_OCTAVES + 1))]
    untouched, restored = _causal(model, inputs[:, : _TESTED * length], targets[:, : _TESTED * length], length)
    return Measures(
        inside=_inside(model, window, settings),
        octaves=np.array([by_segment[a:b].mean() for a, b in pairwise(ends)]),
        untouched=untouched,
        reset=restored,
        retention=log_decay.exp().cpu().numpy(),
        recalled=_recalled(model, settings),
    )


def _inside(model: Any, window: int, settings: dict[str, int]) -> float:
    """Accuracy on fresh windows as in training."""
    whole = -(-window // settings["length"])
    drawn = task("segmented_recall").generate(256, np.random.default_rng((99, 2)), segments=whole, **settings)
    with torch.no_grad():
        right, scored = _right(
            model(torch.from_numpy(drawn.inputs[:, :window].copy())),
            torch.from_numpy(drawn.targets[:, :window].copy()),
        )
    return float(right.sum() / scored.sum())


def _causal(model: Any, inputs: torch.Tensor, targets: torch.Tensor, length: int) -> tuple[float, float]:
    found = []
    reset = Reset(every=length)
    looks = reset.looks(0, inputs.shape[1])
    for hooks in ([], reset.hooks(model)):
        with torch.no_grad():
            logits = model.run_with_hooks(inputs, fwd_hooks=hooks, states=looks)
        by_segment = _share(*_right(logits, targets), length)
        found.append(float(by_segment[len(by_segment) // 2 :].mean()))
    return found[0], found[1]


def _recalled(model: Any, settings: dict[str, int]) -> float:
    """T_recall by dense recall: as many different pairs as a prompt holds, up to every key there is."""
    make = dense_recall(keys=settings["keys"], values=settings["values"])
    found = capacity(model, make, prompts(settings["keys"]), task="dense recall", depths=_DEPTHS, n=_PROMPTS)
    return float(found.recalled or 0)


def prompts(keys: int) -> list[int]:
    """Tokens of the prompts that recall is asked of: 1, 2, 3, 4, 6, 8, 11, ... different pairs, up to the keys."""
    pairs = {round(2 ** (i / 2)) for i in range(2 * keys)}
    return [2 * p + 2 for p in sorted(pairs) if p <= keys]


def _right(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scored = targets != IGNORED
    return (logits.argmax(-1) == targets) & scored, scored


def _share(right: torch.Tensor, scored: torch.Tensor, length: int) -> np.ndarray:
    """Accuracy of each segment."""
    counts = [x.unflatten(1, (-1, length)).sum((0, 2)) for x in (right, scored)]
    return (counts[0] / counts[1]).cpu().numpy()
