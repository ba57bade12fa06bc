"""What the cards of the recall models say: behaviour by segment, retention, and what changing the carry does to it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from strobe.models.native import HookedLM
from strobe.models.tasks import IGNORED, task

_SEGMENTS, _ROWS, _LENGTH = 128, 16, 64
_RANGES = {"segment 1": (0, 1), "segment 2": (1, 2), "segments 9-16": (8, 16), "segments 65-128": (64, 128)}
# Segments of the causal test: enough to be collapsed, few enough to run six times.
_TESTED = 24
_COLUMNS = (*(f"accuracy, {r}" for r in _RANGES), "retention per segment, by head",
            "largest growth of a head's RMS")  # fmt: skip


def rms_of(model: HookedLM) -> float:
    """Root mean square of the first layer's memory at the end of one segment."""
    name = "blocks.0.mixer.hook_state"
    with torch.no_grad():
        _, cache = model.run_with_cache(_draw(1)[0], names_filter=name, states=[-1])
    return float(_head_rms(cache[name]).mean())


def tables(stored: Mapping[str, HookedLM], untrained: HookedLM) -> list[dict[str, Any]]:
    """The tables of a card: every model of `stored` by segment, and the causal test on "seed 0"."""
    rows = [_row(name, model) for name, model in stored.items()] + [_row("untrained (control)", untrained)]
    heads = "any layer" if any(len(m.config.layers) > 1 for m in stored.values()) else "the first layer"
    collapse = {
        "title": f"Behaviour by segment, {_ROWS} sequences of {_SEGMENTS} segments ({_SEGMENTS * _LENGTH:,} tokens)",
        "columns": ["", *_COLUMNS],
        "rows": rows,
        "note": "Accuracy over scored tokens; every answer lies within the query's own segment, so the distance is "
        "the same everywhere. Retention: exp of the sum of ln alpha over a segment, mean over segments, smallest and "
        f"largest head of {heads}. RMS of the memory at the end of the last segment over that of the first. "
        "Control: the untrained model; chance is 1/32 = .031.",
    }  # fmt: skip
    return [collapse, _causal(stored["seed 0"])]


def cures(models: Mapping[str, HookedLM]) -> dict[str, Any]:
    """The table of a further training from other initial carries."""
    return {
        "title": "A further 100 steps on single segments, from other initial carries (Buitrago & Gu 2025)",
        "columns": ["initial carry", *_COLUMNS],
        "rows": [_row(name, model) for name, model in models.items()],
        "note": "Learning rate 1e-3, a tenth of the first training. Noise has the RMS of the memory after one segment. "
        "Control: the same 100 steps from an empty carry. float32, while the other tables are of the stored weights.",
    }  # fmt: skip


def _draw(segments: int) -> tuple[torch.Tensor, torch.Tensor]:
    drawn = task("segmented_recall").generate(_ROWS, np.random.default_rng((99, 1)), segments=segments)
    return torch.from_numpy(drawn.inputs), torch.from_numpy(drawn.targets)


def _by_segment(logits: torch.Tensor, targets: torch.Tensor) -> Float[np.ndarray, " segments"]:
    scored = targets != IGNORED
    right = ((logits.argmax(-1) == targets) & scored).unflatten(1, (-1, _LENGTH)).sum((0, 2))
    return (right / scored.unflatten(1, (-1, _LENGTH)).sum((0, 2))).numpy()


def _row(name: str, model: HookedLM) -> list[Any]:
    inputs, targets = _draw(_SEGMENTS)
    mixers = [f"blocks.{layer}.mixer" for layer in range(len(model.config.layers))]
    decays, states = ([f"{mixer}.{hook}" for mixer in mixers] for hook in ("hook_decay", "hook_state"))
    with torch.no_grad():
        logits, cache = model.run_with_cache(
            inputs, names_filter=[*decays, *states], states=slice(_LENGTH - 1, None, _LENGTH)
        )
    accuracy = _by_segment(logits, targets)
    heads = torch.cat([cache[decay].unflatten(1, (-1, _LENGTH)).sum(2).mean((0, 1)).exp() for decay in decays])
    sizes = torch.cat([_head_rms(cache[state]) for state in states], dim=1)
    means = [round(float(accuracy[slice(*r)].mean()), 3) for r in _RANGES.values()]
    retention = f"{float(heads.min()):.3f} to {float(heads.max()):.3f}"
    return [name, *means, retention, round(float((sizes[-1] / sizes[0]).max()), 2)]


def _head_rms(S: Float[torch.Tensor, "batch n heads state head_dim"]) -> Float[torch.Tensor, "n heads"]:
    return S.pow(2).mean((0, 3, 4)).sqrt()


def _causal(model: HookedLM) -> dict[str, Any]:
    inputs, targets = _draw(_TESTED)
    first = _first_norms(model, inputs)

    def limit(carry: Any) -> Any:
        norm = carry.S.flatten(2).norm(dim=-1)
        return carry._replace(S=carry.S * (first / norm.clamp(min=first)).unflatten(-1, (-1, 1, 1)))

    changes = {
        "nothing (control)": lambda carry: carry,
        "memory S set to 0": lambda carry: carry._replace(S=torch.zeros_like(carry.S)),
        "convolution's window set to 0 (control)": lambda carry: carry._replace(conv=torch.zeros_like(carry.conv)),
        "memory S swapped for another sequence's (control)": lambda carry: carry._replace(S=carry.S.roll(1, 0)),
        "norm of S limited to that of segment 1": limit,
        "memory S times .1": lambda carry: carry._replace(S=carry.S * 0.1),
    }
    looks = list(range(_LENGTH - 1, inputs.shape[1], _LENGTH))
    rows = []
    for name, change in changes.items():
        hook = ("blocks.0.mixer.hook_carry", lambda carry, hook, f=change: f(carry))
        with torch.no_grad():
            logits = model.run_with_hooks(inputs, fwd_hooks=[hook], states=looks)
        rows.append([name, round(float(_by_segment(logits, targets)[8:].mean()), 3)])
    return {
        "title": f"The causal test: the carry changed at every boundary, accuracy over segments 9-{_TESTED}",
        "columns": ["at each boundary", "accuracy"],
        "rows": rows,
        "note": "Seed 0. Where setting the memory to 0 repairs what a memory as large of another sequence does not, "
        "stale content is at fault.",
    }


def _first_norms(model: HookedLM, inputs: torch.Tensor) -> torch.Tensor:
    """Largest norm of each head's memory after segment 1, over the sequences: [heads]."""
    name = "blocks.0.mixer.hook_state"
    with torch.no_grad():
        _, cache = model.run_with_cache(inputs[:, :_LENGTH], names_filter=name, states=[-1])
    return cache[name][:, 0].flatten(2).norm(dim=-1).amax(0)
