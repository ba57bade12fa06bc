"""A greedy loop as a cycle of the carry: its period in tokens, whether the carry comes back, and whether it attracts.

Fed its own most likely token, a recurrent model is a deterministic map of its carry, and a loop in its text is a cycle
of that map: ||h_t - h_{t-k}|| / ||h_t|| goes to 0, and the spectral radius of the k-step map says how fast a
disturbance dies (below 1: the cycle attracts). Ours throughout.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from strobe.core import hook_names
from strobe.models.generation import generate_stream
from strobe.probes.lens.readout import evaluating
from strobe.probes.partial import keeping
from strobe.probes.provenance import provenance_of
from strobe.probes.repetition.cycle import spectral_radius
from strobe.probes.repetition.heads import mixer_inputs
from strobe.probes.repetition.loop_result import NOT_FOLLOWED, GreedyLoop
from strobe.probes.repetition.period import tail_loop
from strobe.probes.side_by_side import draw_each, words_of

Tick = Callable[[int, int, str], None]
_PIECE = 64
_CONTROL = "the same prompt continued by sampling at temperature 1, whose carry is compared at the same distance"


def greedy_loop(
    model: Any,
    prompt: str | Sequence[int],
    *,
    max_new_tokens: int = 300,
    min_copies: int = 3,
    seed: int = 0,
    progress: Tick | None = None,
    partial: Callable[[GreedyLoop], None] | None = None,
) -> GreedyLoop:
    """Continue `prompt` greedily and look at the loop it falls into, if it does.

    A text that does not loop within `max_new_tokens` is an answer (``result.period == 0``). A model without a recurrent
    layer has the loop of its text and no cycle of a carry: its key/value cache only grows. Where `progress` raises,
    `partial` is given the text so far and its loop, and the layers whose carry was followed by then. Raises ValueError
    for an empty prompt or a number of tokens in which `min_copies` copies do not fit.
    """
    if max_new_tokens < 8 or min_copies < 2:
        raise ValueError(
            f"a loop of {min_copies} copies was looked for in {max_new_tokens} tokens; give 8 and 2 at least"
        )
    run = _Loop(model, _ids(model, prompt), max_new_tokens, min_copies, seed)
    steps = max_new_tokens + len(run.layers)
    tick = keeping(progress, partial, lambda: run.result() if run.drawn[0] else None)
    with evaluating(model):
        for i in range(max_new_tokens):
            tick(i, steps, "continuing, greedily and by sampling")
            draw_each(run.streams, run.drawn)
    for i, layer in enumerate(run.layers):
        tick(max_new_tokens + i, steps, f"following the carry of block {layer}")
        run.follow(layer)
    return run.result()


class _Followed(NamedTuple):
    """Of one layer: distances [new] from one period before, those of the sampled text, radius, and why it is NaN."""

    distance: np.ndarray
    control: np.ndarray
    radius: float
    note: str


class _Loop:
    """The greedy and the sampled text as they are drawn, and what was found of each layer's carry."""

    def __init__(self, model: Any, row: Tensor, n: int, min_copies: int, seed: int) -> None:
        self.model, self.row, self.asked, self.min_copies, self.seed = model, row, n, min_copies, seed
        self.streams = [generate_stream(model, row, n, temperature=t, seed=seed, stop_at_eos=False) for t in (0.0, 1.0)]
        self.drawn: list[list[int]] = [[], []]
        self.layers = [
            int(n.split(".")[1]) for n, m in model.mixers.items() if n.endswith(".mixer") and len(m.Memory._fields)
        ]
        self.followed: dict[int, _Followed] = {}

    @property
    def period(self) -> int:
        """Of the loop that the greedy text ends in; 0 where it does not."""
        return found.period if (found := self._loop()) is not None else 0

    def follow(self, layer: int) -> None:
        """Look at the carry of `layer` along both texts; nothing is to be seen without a loop."""
        if not (period := self.period):
            return
        greedy, sampled = self._texts()
        before = self.row.shape[1]
        distance, control = (
            _return_distance(_memories(self.model, layer, text), period)[before:] for text in (greedy, sampled)
        )
        mixer = self.model.mixers[f"blocks.{layer}.mixer"]
        self.followed[layer] = _Followed(distance, control, *_radius(self.model, mixer, greedy, period))

    def result(self) -> GreedyLoop:
        """Of what was drawn and followed so far."""
        found, greedy, new = self._loop(), self._texts()[0], len(self.drawn[0])
        nothing = np.full(new, np.nan)
        notes = {
            str(i): "no recurrent carry: a key/value cache only grows, so it is no cycle (not applicable)"
            for i in range(self.model.cfg.n_layers)
            if i not in self.layers
        }
        rows = []
        for layer in self.layers:
            missing = NOT_FOLLOWED if found is not None else ""
            rows.append(self.followed.get(layer, _Followed(nothing, nothing, np.nan, missing)))
            if rows[-1].note:
                notes[str(layer)] = rows[-1].note
        settings = {
            "prompt": self.row[0].tolist(), "max_new_tokens": self.asked, "min_copies": self.min_copies
        }  # fmt: skip
        return GreedyLoop(
            prompt=words_of(self.model, self.row[0]),
            new=words_of(self.model, self.drawn[0]),
            period=found.period if found is not None else 0,
            onset=found.onset if found is not None else -1,
            layers=np.array(self.layers, dtype=np.int64),
            mixers=[type(self.model.mixers[f"blocks.{i}.mixer"]).__name__ for i in self.layers],
            return_distance=np.array([r.distance for r in rows]).reshape(len(rows), new),
            control=np.array([r.control for r in rows]).reshape(len(rows), new),
            spectral_radius=np.array([r.radius for r in rows], dtype=float),
            margin=_margins(self.model, greedy, self.row.shape[1]),
            notes=notes,
            provenance=provenance_of(self.model, seed=self.seed, settings=settings, control=_CONTROL),
        )

    def _loop(self) -> Any:
        return tail_loop(self.drawn[0], min_copies=self.min_copies)

    def _texts(self) -> list[Tensor]:
        """The greedy and the sampled text, prompt and all [1, time]."""
        return [torch.cat([self.row, torch.tensor([ids]).to(self.row)], 1) for ids in self.drawn]


def _margins(model: Any, whole: Tensor, prompt: int) -> Float[np.ndarray, " new"]:
    """By how many nats each new token's logit was ahead of the next best one's."""
    with evaluating(model), torch.no_grad():
        best = model.forward(whole[:, :-1])[0, prompt - 1 :].float().topk(2, -1).values
    return (best[:, 0] - best[:, 1]).double().cpu().numpy()


def _memories(model: Any, layer: int, tokens: Tensor) -> Float[Tensor, "time numbers"]:
    """Every field of the layer's memory after each token, flattened side by side."""
    fields = model.mixers[f"blocks.{layer}.mixer"].Memory._fields
    names = [hook_names.mixer_state(layer, f) for f in fields]
    state, pieces = None, []
    for start in range(0, tokens.shape[1], _PIECE):
        with evaluating(model), torch.no_grad():
            (_, state), cache = model.run_with_cache(
                tokens[:, start : start + _PIECE], names_filter=names, states="all", state=state, return_type="state"
            )
        pieces.append(torch.cat([cache[n][0].flatten(1).float() for n in names], 1))
    return torch.cat(pieces)


def _return_distance(memory: Float[Tensor, "time numbers"], period: int) -> np.ndarray:
    """||h_t - h_{t-period}|| / ||h_t||; NaN for the first `period` tokens, which have nothing to come back to."""
    moved = (memory[period:] - memory[:-period]).norm(dim=1) / memory[period:].norm(dim=1)
    return np.concatenate([np.full(period, np.nan), moved.double().cpu().numpy()])


def _radius(model: Any, mixer: Any, tokens: Tensor, period: int) -> tuple[float, str]:
    """Of the last turn of the loop in `tokens`."""
    x = mixer_inputs(model, mixer, tokens)
    layer = int(mixer.key.split(".")[1])
    start = tokens.shape[1] - period
    with evaluating(model), torch.no_grad():
        state = model.state_after(tokens[:, :start])
        signals = mixer.inputs(mixer.project(x, mixer.init_carry(1, x.dtype, x.device), None)[0])
    return spectral_radius(mixer, signals, mixer.memory_of(state.layers[layer].carry), start, period)


def _ids(model: Any, prompt: str | Sequence[int]) -> Tensor:
    if isinstance(prompt, str):
        return model.tokenize(prompt)[0]
    if not len(prompt):
        raise ValueError("the prompt is empty: it has no token; give at least one")
    return torch.tensor([list(prompt)], device=next(model.parameters()).device)
