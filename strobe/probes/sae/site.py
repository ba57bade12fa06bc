"""`Site`: where the vectors come from that an autoencoder reads: a hook point, or a captured field of a carry.

An activation [batch, time, ...] is flattened behind its time axis; a matrix state [batch, positions, heads, key, value]
likewise, or head by head. The same place is read from one pass and written to in another.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from strobe.core import hook_names
from strobe.core.errors import HookError, did_you_mean


@dataclass(frozen=True)
class Site:
    """A place in a model. `hook_name`: in full; of a carry that of a captured field, ``blocks.1.mixer.hook_state_S``.

    `head`: of the axis after time, that one index; None: all of it. Raises ValueError for the live carry, which is
    not captured, and for a name that is not one.
    """

    hook_name: str
    head: int | None = None

    def __post_init__(self) -> None:
        if hook_names.parse(self.hook_name).point == "carry":
            raise ValueError(
                f"vectors were to be read at {self.hook_name!r}, the live carry; give a captured field of it, such as "
                f"{self.hook_name.replace('hook_carry', 'hook_state')!r}"
            )

    @classmethod
    def of(cls, model: Any, hook_name: str, head: int | None = None) -> "Site":
        """The site called `hook_name` in `model`, checked. ``hook_state`` is the field that it shows.

        Raises HookError for a hook point that `model` does not have, IndexError for a head.
        """
        parsed = hook_names.parse(hook_name)
        if hook_name not in model.hook_dict:
            raise HookError(
                f"hook {hook_name!r} was asked for, which {model.model_name} does not have"
                f"{did_you_mean(hook_name, model.hook_dict)}"
            )
        if parsed.point == "state" and parsed.layer is not None:
            hook_name = hook_names.mixer_state(parsed.layer, model.mixers[f"blocks.{parsed.layer}.mixer"].memory)
        site = cls(hook_name, head)
        if head is not None:
            shape = site.shape(model, whole=True)
            if len(shape) < 2 or not 0 <= head < shape[0]:
                raise IndexError(
                    f"head {head} of {hook_name!r} was asked for; what is there has shape {shape} at each token; give "
                    f"{'no head' if len(shape) < 2 else f'0 to {shape[0] - 1}'}"
                )
        return site

    @property
    def is_state(self) -> bool:
        """Whether it is a field of a carry."""
        return hook_names.parse(self.hook_name).point.startswith("state_")

    @property
    def layer(self) -> int | None:
        """Its layer, if it belongs to one."""
        return hook_names.parse(self.hook_name).layer

    @property
    def field(self) -> str:
        """The field of the carry."""
        return hook_names.parse(self.hook_name).point.removeprefix("state_")

    def shape(self, model: Any, *, whole: bool = False) -> tuple[int, ...]:
        """What one token has here, before it is flattened; `whole`: of all heads. Runs two tokens."""
        tokens = torch.zeros(1, 2, dtype=torch.long, device=next(model.parameters()).device)
        # A whole pass, unlike `read`: afterwards the model knows which backends run.
        _, cache = model.run_with_cache(tokens, names_filter=self.hook_name, states=[1] if self.is_state else None)
        x = self._checked(cache[self.hook_name])
        shape = tuple(x.shape[2:])
        return shape if whole or self.head is None else shape[1:]

    def read(
        self, model: Any, tokens: Tensor, positions: list[int] | None = None
    ) -> Float[Tensor, "batch positions d_in"]:
        """The vectors of `tokens` [batch, time] at `positions` (None: every one), flattened, without gradient."""
        x = self._checked(_up_to(model, tokens, self, positions))
        if positions is not None and not self.is_state:
            x = x[:, positions]
        return (x if self.head is None else x[:, :, self.head]).flatten(2)

    def hook(
        self, change: Callable[[Tensor], Tensor], select: Callable[[int, int], list[int]] | None = None
    ) -> tuple[str, Callable[..., Any]]:
        """A forward hook that puts ``change(x)`` in place of the vectors x [..., d_in] here.

        `select` (first, time) -> local positions of a pass of `time` tokens that begins at absolute `first`. Of a carry
        the hook acts at the positions that the run looks at (`states`), which while decoding is every new token.
        """
        if self.is_state:
            return self._carry_hook(change, select)

        def edit(x: Tensor, hook: Any) -> Tensor | None:
            if select is None:
                return self._put(x, change(self._take(x)))
            where = select(-1, x.shape[1])
            if not where:
                return None
            new = x.clone()
            new[:, where] = self._put(x[:, where], change(self._take(x[:, where])))
            return new

        return self.hook_name, edit

    def _carry_hook(
        self, change: Callable[[Tensor], Tensor], select: Callable[[int, int], list[int]] | None
    ) -> tuple[str, Callable[..., Any]]:
        assert self.layer is not None

        def edit(carry: Any, hook: Any) -> Any:
            if select is not None and not select(hook.position, 1):
                return carry
            old = getattr(carry, self.field)[:, None]
            return carry._replace(**{self.field: self._put(old, change(self._take(old)))[:, 0]})

        return hook_names.mixer_carry(self.layer), edit

    def _take(self, x: Tensor) -> Tensor:
        return (x if self.head is None else x[:, :, self.head]).flatten(2)

    def _put(self, x: Tensor, new: Tensor) -> Tensor:
        if self.head is None:
            return new.reshape(x.shape).to(x.dtype)
        whole = x.clone()
        whole[:, :, self.head] = new.reshape(x[:, :, self.head].shape).to(x.dtype)
        return whole

    def _checked(self, x: Tensor) -> Tensor:
        if x.ndim < 3 or not x.is_floating_point():
            raise ValueError(
                f"vectors were to be read at {self.hook_name!r}; it holds {x.dtype} of shape {tuple(x.shape)}; give a "
                "hook point with numbers of shape [batch, time, ...]"
            )
        return x


class _Reached(Exception):
    """The pass has come to the site; the rest of it is not needed."""


def _up_to(model: Any, tokens: Tensor, site: Site, positions: list[int] | None) -> Tensor:
    """What `site` holds in a pass over `tokens` that ends there."""
    found: list[Tensor] = []

    def keep(x: Tensor, hook: Any) -> None:
        found.append(x.detach())
        raise _Reached

    states: Any = None
    if site.is_state:
        states = "all" if positions is None else positions
    with torch.no_grad(), suppress(_Reached):
        model.run_with_hooks(tokens, fwd_hooks=[(site.hook_name, keep)], states=states)
    return found[0]
