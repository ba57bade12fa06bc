"""Attention and norms that nobody watches run as transformers wrote them.

TransformerLens computes attention step by step and every norm twice, so that each step can be hooked; at 2048 tokens
that is several times slower. A component made by `unwatched` does so only while one of its inner points has a hook.
The numbers are the same up to rounding, and a test holds the two against each other.
"""

from typing import Any

from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge.generalized_components import AttentionBridge, NormalizationBridge
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent

from strobe.models.huggingface.watched import has_pattern, pattern_shown


class _UnwatchedAttention:
    """Mixed in before an `AttentionBridge`; see the module's docstring."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        """Softmax attention, whole unless watched; hooks ``hook_in`` and ``hook_out`` either way."""
        if not self.compatibility_mode and self.hook_pattern.has_hooks() and _delegates(self):
            with pattern_shown(self.original_component, self.hook_pattern):
                return GeneralizedComponent.forward(self, *args, **kwargs)
        if self.compatibility_mode or _watched(self):
            return super().forward(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        return GeneralizedComponent.forward(self, *args, **kwargs)


class _UnwatchedNorm:
    """Mixed in before a `NormalizationBridge`; see the module's docstring."""

    def forward(self: Any, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        """The norm, whole unless watched; hooks ``hook_in`` and ``hook_out`` either way."""
        if self.compatibility_mode or getattr(self.config, "layer_norm_folding", False) or _watched(self):
            return super().forward(hidden_states, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        return self.hook_out(self.original_component(self.hook_in(hidden_states)))


def unwatched(component: Any) -> None:
    """Change `component` (a template of the bridge) and everything in it, in place."""
    mixin = next((m for kind, m in _MIXINS.items() if isinstance(component, kind)), None)
    if mixin is not None and not isinstance(component, mixin):
        kind = type(component)
        component.__class__ = type(kind.__name__, (mixin, kind), {"__module__": __name__, "__doc__": kind.__doc__})
    for part in component.submodules.values():
        unwatched(part)


_MIXINS = {AttentionBridge: _UnwatchedAttention, NormalizationBridge: _UnwatchedNorm}


def _delegates(component: Any) -> bool:
    """Whether the bridge has no attention of its own for this one, so that it could only show a pattern afterwards, and
    only where transformers' returns one."""
    return AttentionBridge in type(component).__bases__ and has_pattern(component.original_component)


def _watched(component: Any) -> bool:
    """Whether a hook point inside `component`, other than its input and output, has a hook."""
    points = component.__dict__.get("_inner_points")
    if points is None:
        own = (component.hook_in, component.hook_out)
        points = [m for m in component.modules() if isinstance(m, HookPoint) and not any(m is o for o in own)]
        component.__dict__["_inner_points"] = points
    return any(point.has_hooks() for point in points)
