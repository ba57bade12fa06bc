"""A greedy loop as a cycle of the carry: its period in tokens, whether the carry comes back, and whether it attracts.

Fed its own most likely token, a recurrent model is a deterministic map of its carry, and a loop in its text is a cycle
of that map: ||h_t - h_{t-k}|| / ||h_t|| goes to 0, and the spectral radius of the k-step map says how fast a
disturbance dies (below 1: the cycle attracts). Ours throughout.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from strobe.core import hook_names
from strobe.models.generation import generate_stream
from strobe.probes.lens.readout import evaluating
from strobe.probes.provenance import provenance_of
from strobe.probes.repetition.cycle import spectral_radius
from strobe.probes.repetition.heads import mixer_inputs
from strobe.probes.repetition.loop_result import GreedyLoop
from strobe.probes.repetition.period import tail_loop

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
) -> GreedyLoop:
    """Continue `prompt` greedily and look at the loop it falls into, if it does.

    A text that does not loop within `max_new_tokens` is an answer (``result.period == 0``). A model without a recurrent
    layer has the loop of its text and no cycle of a carry: its key/value cache only grows. Raises ValueError for an
    empty prompt or a number of tokens in which `min_copies` copies do not fit.
    """
    if max_new_tokens < 8 or min_copies < 2:
        raise ValueError(
            f"a loop of {min_copies} copies was looked for in {max_new_tokens} tokens; give 8 and 2 at least"
        )
    tick = progress or _no_tick
    row = _ids(model, prompt)
    steps = 2 * max_new_tokens + 1
    whole, margins = _continued(model, row, max_new_tokens, 0.0, seed, lambda i: tick(i, steps, "continuing greedily"))
    sampled, _ = _continued(
        model, row, max_new_tokens, 1.0, seed, lambda i: tick(max_new_tokens + i, steps, "sampling, as control")
    )
    found = tail_loop(whole[0, row.shape[1] :].tolist(), min_copies=min_copies)
    period, onset = (found.period, found.onset) if found is not None else (0, -1)
    layers = [int(n.split(".")[1]) for n, m in model.mixers.items() if n.endswith(".mixer") and len(m.Memory._fields)]
    tick(steps - 1, steps, "following the carry")
    radii, notes = np.full(len(layers), np.nan), _notes(model, layers)
    distance, control = (np.full((len(layers), max_new_tokens), np.nan) for _ in range(2))
    for i, layer in enumerate(layers if period else []):
        name = f"blocks.{layer}.mixer"
        memory = _memories(model, layer, whole)
        distance[i] = _return_distance(memory, period)[row.shape[1] :]
        control[i] = _return_distance(_memories(model, layer, sampled), period)[row.shape[1] :]
        radii[i], note = _radius(model, model.mixers[name], whole, period)
        if note:
            notes[str(layer)] = note
    settings = {"prompt": row[0].tolist(), "max_new_tokens": max_new_tokens, "min_copies": min_copies}
    return GreedyLoop(
        prompt=_words(model, row[0]),
        new=_words(model, whole[0, row.shape[1] :]),
        period=period,
        onset=onset,
        layers=np.array(layers, dtype=np.int64),
        mixers=[type(model.mixers[f"blocks.{i}.mixer"]).__name__ for i in layers],
        return_distance=distance,
        control=control,
        spectral_radius=radii,
        margin=margins,
        notes=notes,
        provenance=provenance_of(model, seed=seed, settings=settings, control=_CONTROL),
    )


def _continued(
    model: Any, row: Tensor, n: int, temperature: float, seed: int, tick: Callable[[int], None]
) -> tuple[Tensor, np.ndarray]:
    """(prompt and `n` new tokens [1, time], by how many nats each new token's logit was ahead of the next one's)."""
    new = []
    with evaluating(model):
        for i, token in enumerate(
            generate_stream(model, row, n, temperature=temperature, seed=seed, stop_at_eos=False)
        ):
            tick(i)
            new.append(token)
        whole = torch.cat([row, torch.stack(new, 1).to(row)], 1)
        with torch.no_grad():
            logits = model.forward(whole[:, :-1])[0, row.shape[1] - 1 :]
    best = logits.float().topk(2, -1).values
    return whole, (best[:, 0] - best[:, 1]).double().cpu().numpy()


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


def _notes(model: Any, layers: list[int]) -> dict[str, str]:
    why = "no recurrent carry: a key/value cache only grows, so it is no cycle (not applicable)"
    return {str(i): why for i in range(model.cfg.n_layers) if i not in layers}


def _ids(model: Any, prompt: str | Sequence[int]) -> Tensor:
    if isinstance(prompt, str):
        return model.tokenize(prompt)[0]
    if not len(prompt):
        raise ValueError("the prompt is empty: it has no token; give at least one")
    return torch.tensor([list(prompt)], device=next(model.parameters()).device)


def _words(model: Any, ids: Tensor) -> list[str]:
    if model.tokenizer is None:
        return [f"[{int(i)}]" for i in ids]
    return [str(model.to_string([int(i)])) for i in ids]


def _no_tick(done: int, total: int, message: str) -> None:
    """Nobody is watching."""
