"""Names of hook points: built, shortened and taken apart, in TransformerLens's spelling.

A name is ``hook_embed``, ``ln_final.hook_scale``, ``blocks.{layer}.hook_{point}`` or
``blocks.{layer}.{module}.hook_{point}``. Probes use these functions and never write a name by hand, so that the
spelling lives in one place. Names that TransformerLens has too mean the same there
(`transformer_lens.utilities.get_act_name`).
"""

import re
from typing import NamedTuple

EMBED = "hook_embed"
LN_FINAL_SCALE = "ln_final.hook_scale"
LN_FINAL_NORMALIZED = "ln_final.hook_normalized"

# Points that sit on the block itself; everything else lives in a module of the block.
_BLOCK_POINTS = frozenset(
    {"resid_pre", "resid_mid", "resid_post", "mixer_in", "mixer_out", "attn_in", "attn_out", "mlp_in", "mlp_out"}
)
_MLP_POINTS = frozenset({"pre", "post", "mid", "pre_linear"})
_WHOLE_MODEL = {
    "embed": EMBED,
    "pos_embed": "hook_pos_embed",
    "scale": LN_FINAL_SCALE,
    "normalized": LN_FINAL_NORMALIZED,
}
_NAME = re.compile(r"(?:blocks\.(?P<layer>\d+)\.)?(?:(?P<module>[\w.]+)\.)?hook_(?P<point>\w+)")


class HookName(NamedTuple):
    """The parts of a hook name: ``blocks.{layer}.{module}.hook_{point}``; layer and module are None where absent."""

    layer: int | None
    module: str | None
    point: str

    def __str__(self) -> str:
        block = "" if self.layer is None else f"blocks.{self.layer}."
        return f"{block}{self.module + '.' if self.module else ''}hook_{self.point}"


def parse(name: str) -> HookName:
    """The parts of a full hook name. Raises ValueError if `name` is not one.

    >>> parse("blocks.3.mixer.hook_state")
    HookName(layer=3, module='mixer', point='state')
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(
            f"{name!r} is not a full hook name; those read 'hook_embed', 'ln_final.hook_scale', "
            "'blocks.3.hook_resid_post' or 'blocks.3.mixer.hook_state'"
        )
    layer = match["layer"]
    return HookName(None if layer is None else int(layer), match["module"], match["point"])


def hook_name(name: str, layer: int | None = None, module: str | None = None) -> str:
    """The full name of a short form, as TransformerLens's `get_act_name`; a full name comes back as it is.

    Without `module`, block-level points (``resid_post``) are on the block, ``pre`` and ``post`` in the mlp, and every
    other point in the mixer. Raises ValueError if the point needs a layer and none is given, or a layer is negative.

    >>> hook_name("state", 3), hook_name("resid_post", 0), hook_name("scale", 2, "ln1"), hook_name("embed")
    ('blocks.3.mixer.hook_state', 'blocks.0.hook_resid_post', 'blocks.2.ln1.hook_scale', 'hook_embed')
    """
    if "hook_" in name:
        return str(parse(name))
    if layer is None:
        if name not in _WHOLE_MODEL or module is not None:
            raise ValueError(
                f"hook {name!r} needs a layer, and none was given; without one there are {', '.join(_WHOLE_MODEL)}"
            )
        return _WHOLE_MODEL[name]
    if layer < 0:
        raise ValueError(
            f"hook {name!r} was asked for at layer {layer}; layers count from 0, so give n_layers - {-layer}"
        )
    if module is None and name not in _BLOCK_POINTS:
        module = "mlp" if name in _MLP_POINTS else "mixer"
    return str(HookName(layer, module, name))


def resid_pre(layer: int) -> str:
    """The residual stream that enters block `layer`, [batch, time, d_model]."""
    return hook_name("resid_pre", layer)


def resid_mid(layer: int) -> str:
    """The residual stream between mixer and mlp of block `layer`, [batch, time, d_model]."""
    return hook_name("resid_mid", layer)


def resid_post(layer: int) -> str:
    """The residual stream that leaves block `layer`, [batch, time, d_model]."""
    return hook_name("resid_post", layer)


def mixer_out(layer: int) -> str:
    """What the mixer of block `layer` adds to the residual stream, [batch, time, d_model]."""
    return hook_name("mixer_out", layer)


def attn_out(layer: int) -> str:
    """What attention adds to the residual stream, [batch, time, d_model]; only where the mixer is attention."""
    return hook_name("attn_out", layer)


def mlp_out(layer: int) -> str:
    """What the mlp of block `layer` adds to the residual stream, [batch, time, d_model]."""
    return hook_name("mlp_out", layer)


def mixer_state(layer: int, field: str | None = None) -> str:
    """The captured carries of block `layer`, [batch, positions, ...]: its memory, or the carry's `field`."""
    return hook_name("state" if field is None else f"state_{field}", layer)


def mixer_carry(layer: int) -> str:
    """The live carry of block `layer` at each looked position; what a hook returns there, the run goes on from."""
    return hook_name("carry", layer)


def mixer_read(layer: int) -> str:
    """What the scan of block `layer` returned, before norm, gate and output projection."""
    return hook_name("read", layer)
