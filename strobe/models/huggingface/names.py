"""Hook names of a bridged model: the bridge's own, and ours for the same points, as on a native model."""

from typing import Any

from strobe.models.mixer import Mixer

# Ours -> where the bridge has it, in order of preference; the first that exists is meant.
_BLOCK = {
    "hook_resid_pre": ("hook_in",),
    "hook_resid_mid": ("ln2.hook_in",),
    "hook_resid_post": ("hook_out",),
    "hook_mixer_in": ("mixer.hook_in", "attn.hook_in"),
    "hook_mixer_out": ("mixer.hook_out", "hook_attn_out", "attn.hook_out"),
    "hook_mlp_out": ("mlp.hook_out", "channel_mix.hook_out"),
}


def hook_names(bridge: Any, mixers: dict[str, Mixer], attention: set[int]) -> dict[str, Any]:
    """Every name a hook may be asked for by, and its hook point. `attention`: the layers that are softmax
    attention."""
    names = dict(bridge.hook_dict)
    for i in range(len(bridge.blocks)):
        block = f"blocks.{i}"
        for ours, candidates in _BLOCK.items():
            there = next((f"{block}.{c}" for c in candidates if f"{block}.{c}" in names), None)
            if there is not None:
                names.setdefault(f"{block}.{ours}", names[there])
        if i in attention:
            names.setdefault(f"{block}.hook_attn_out", names[f"{block}.hook_mixer_out"])
    for name, mixer in mixers.items():
        block, _, own = name.rpartition(".")
        if own == "mixer":
            states = [n for n in names if n.startswith(f"{name}.hook_state")]
            names.update({n.replace(f"{name}.", f"{block}."): names[n] for n in states})
        for alias, ours in getattr(mixer, "ssm_aliases", {}).items():
            names[f"{name}.{alias}"] = names[f"{name}.{ours}"]
    return names
