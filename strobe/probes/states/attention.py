"""Effective attention of a recurrent layer on a text, or the reason why there is none."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

# Bytes of effective attention that are kept; heads * time^2 * 4 must stay below.
_LIMIT = 64 * 2**20


def attention_along(model: Any, mixer: Any, tokens: "torch.Tensor", time: int) -> tuple[np.ndarray | None, str]:
    """(matrix [heads, query, key] or None, what has to be said of it: why there is none, or what is shown)."""
    import torch

    from strobe.kernels.linear import effective_attention

    if mixer.family.attention is None:
        name = f"{type(mixer).__name__} ({mixer.family.name})"
        return None, f"the scan family of {name} gives none: a read there is no sum over earlier tokens"
    kept: list[torch.Tensor] = []
    handle = mixer.register_forward_pre_hook(lambda module, args: kept.append(args[0]))
    try:
        with torch.no_grad():
            model.forward(tokens)
    finally:
        handle.remove()
    with torch.no_grad():
        carry = mixer.init_carry(1, kept[0].dtype, kept[0].device)
        signals = mixer.inputs(mixer.project(kept[0], carry, None)[0])
        heads = _heads(mixer)
        if (size := heads * time * time * 4) > _LIMIT:
            too_large = f"{heads} heads x {time}² tokens would take {size / 2**20:.0f} MiB (the limit is 64)"
            return None, f"{too_large}; give a shorter text"
        matrix = effective_attention(mixer.family, signals)[0]
    note = "shown as |E|, which is complex here" if matrix.is_complex() else ""
    return (matrix.abs() if matrix.is_complex() else matrix).float().cpu().numpy(), note


def _heads(mixer: Any) -> int:
    import torch

    memory = getattr(mixer.init_carry(1, torch.float32, torch.device("meta")), mixer.memory)
    return int(memory.shape[1])
