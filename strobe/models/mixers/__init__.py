"""Every mixer, one line each: its name in a `ModelConfig`, and where it is."""

from importlib import import_module
from typing import Any

_MIXERS = {
    "attention": "strobe.models.mixers.attention:Attention",
    "elman": "strobe.models.mixers.elman:Elman",
    "lstm": "strobe.models.mixers.lstm:LSTM",
    "gru": "strobe.models.mixers.gru:GRU",
    "slstm": "strobe.models.mixers.slstm:SLSTM",
    "mingru": "strobe.models.mixers.mingru:MinGRU",
    "mamba": "strobe.models.mixers.mamba:Mamba",
    "mamba2": "strobe.models.mixers.mamba2:Mamba2",
    "gated_deltanet": "strobe.models.mixers.gated_deltanet:GatedDeltaNet",
    "rglru": "strobe.models.mixers.rglru:RGLRU",
    "rwkv4": "strobe.models.mixers.rwkv4:RWKV4",
    "rwkv4_channel_mix": "strobe.models.mixers.rwkv4_channel_mix:ChannelMix",
}


def names() -> list[str]:
    """Names of every mixer."""
    return list(_MIXERS)


def get(name: str) -> Any:
    """The mixer class called `name` (a label after a colon is ignored). Raises ValueError with the known names."""
    base = name.partition(":")[0]
    if base not in _MIXERS:
        raise ValueError(f"there is no mixer {base!r}; there are {', '.join(_MIXERS)}")
    module, attribute = _MIXERS[base].split(":")
    return getattr(import_module(module), attribute)
