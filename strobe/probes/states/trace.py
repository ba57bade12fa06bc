"""Reading the carry of a layer after every token of a text, in pieces, beside the same tokens shuffled."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from strobe.core import hook_names
from strobe.probes.states.asked import Tick, no_tick, provenance, recurrent_mixer, token_words, tokens_of
from strobe.probes.states.attention import attention_along
from strobe.probes.states.trace_result import StateTrace

if TYPE_CHECKING:
    import torch

# Tokens whose carries are held at once while a text is traced.
_PIECE = 64


def state_trace(
    model: Any,
    text: str | Sequence[int],
    layer: int,
    *,
    attention: bool = True,
    seed: int = 0,
    progress: Tick | None = None,
) -> StateTrace:
    """The carry of `layer` after every token of `text` (a text, or token ids).

    Carries are read in pieces of the text, so that memory does not grow with its length. Effective attention is left
    out, with the reason in the result, where the layer is not linear in its carry or the matrix would take over 64 MiB.
    Raises ValueError for empty text or a layer without a recurrent carry.
    """
    import torch

    mixer, tick = recurrent_mixer(model, layer), progress or no_tick
    tokens = tokens_of(model, text)
    generator = torch.Generator().manual_seed(seed)
    shuffled = tokens[:, torch.randperm(tokens.shape[1], generator=generator).to(tokens.device)]
    norms, channels, signed = _along(model, tokens, layer, lambda d, n: tick(d, 2 * n, "reading the carry"))
    control, _, _ = _along(model, shuffled, layer, lambda d, n: tick(n + d, 2 * n, "control: shuffled tokens"))
    matrix, note = attention_along(model, mixer, tokens, norms.shape[0]) if attention else (None, "not asked for")
    return StateTrace(
        tokens=token_words(model, tokens),
        layer=layer,
        mixer=type(mixer).__name__,
        memory=mixer.memory,
        norms=norms,
        channels=channels,
        signed=signed,
        control=control,
        attention=matrix,
        attention_note=note,
        provenance=provenance(
            model, text, seed, {"layer": layer, "attention": attention}, "same tokens in shuffled order"
        ),
    )


def _along(
    model: Any, tokens: "torch.Tensor", layer: int, tick: Callable[[int, int], None]
) -> tuple[np.ndarray, np.ndarray, bool]:
    """(norms [time, heads], channels [time, channels], whether channels are signed values)."""
    import torch

    name, time = hook_names.mixer_state(layer), tokens.shape[1]
    state, norms, channels, signed = None, [], [], False
    for start in range(0, time, _PIECE):
        tick(start, time)
        with torch.no_grad():
            (_, state), cache = model.run_with_cache(
                tokens[:, start : start + _PIECE], names_filter=name, states="all", state=state, return_type="state"
            )
        memory = cache[name][0].float()
        signed = memory.ndim == 2
        norms.append(
            memory.flatten(2).norm(dim=-1) if memory.ndim == 4 else memory.flatten(1).norm(dim=-1, keepdim=True)
        )
        channels.append(memory if signed else memory.norm(dim=-1).flatten(1))
    return torch.cat(norms).cpu().numpy(), torch.cat(channels).cpu().numpy(), signed
