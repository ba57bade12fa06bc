"""Building TransformerLens's bridge over a model whose mixers are already ours.

The component mapping is changed before the bridge is built (`post_adapter_hook`), so that the bridge finds our
components and hook points by its own ways and none of its registries has to be touched. `_bridge_builder` is not a
public path: this is the one place that uses it.
"""

from typing import Any

from strobe.core.errors import SeamError
from strobe.models.huggingface.component import MixerComponent
from strobe.models.huggingface.seam import Family
from strobe.models.huggingface.unwatched import unwatched


def build_bridge(model: Any, family: Family, *, tokenizer: Any, name: str) -> Any:
    """The bridge. Raises SeamError where this release of transformer-lens is built otherwise."""
    try:
        from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
    except ImportError as error:
        import transformer_lens

        raise SeamError(
            f"this transformer-lens, {transformer_lens.__file__}, has no build_bridge_from_module ({error}); "
            "the release known to work is 4.3.0"
        ) from error

    def overlay(adapter: Any) -> None:
        components = adapter.component_mapping
        family.overlay(components, adapter.cfg)
        submodules = components["blocks"].submodules
        for t in family.transplants:
            for theirs in [key for key, component in submodules.items() if component.name == t.slot]:
                del submodules[theirs]
            submodules[t.name] = MixerComponent(t, optional=True)
        components["blocks"].hook_aliases = _aliases(components["blocks"].hook_aliases, submodules)
        for component in components.values():
            unwatched(component)

    attention = model.config._attn_implementation
    bridge = build_bridge_from_module(
        model,
        family.architecture,
        hf_config=model.config,
        tokenizer=tokenizer,
        model_name=name,
        post_adapter_hook=overlay,
    )
    # TransformerLens asks for the slow attention everywhere; what is watched, it computes itself in any case.
    model.set_attn_implementation(attention)
    return bridge


def _aliases(aliases: dict[str, Any], submodules: dict[str, Any]) -> dict[str, Any]:
    """`aliases` without those that point into a component that is not there."""
    return {
        alias: target
        for alias, target in aliases.items()
        if not isinstance(target, str) or "." not in target or target.split(".")[0] in submodules
    }
