"""What a lens of depth-recurrent models asks of one: a prelude, a core applied again and again, a coda, a readout.

`Looped` is made of a user's own callables. `LoopedBlocks` sees the blocks of a loaded model so, whether or not those
of the core share weights. In a model in which they do not, each step is other blocks, and what the lens says is what
skipping to the coda would predict.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from strobe.core import hook_names
from strobe.core.provenance import Provenance
from strobe.probes.lens.reading import one_row, token_text
from strobe.probes.lens.readout import evaluating, model_readout, residuals
from strobe.probes.provenance import provenance_of


class States(NamedTuple):
    """The stream [1, time, d_model] after each block, by section, and the model's own logits [1, time, d_vocab].

    `core` is [step][block].
    """

    prelude: list[Tensor]
    core: list[list[Tensor]]
    coda: list[Tensor]
    logits: Tensor


@runtime_checkable
class DepthRecurrent(Protocol):
    """The interface; both kinds of model below have it."""

    def ids(self, text_or_tokens: Any) -> Tensor:
        """Token ids [1, time]."""
        ...

    def word(self, token: int) -> str:
        """The text of a token."""
        ...

    def states(self, ids: Tensor) -> States:
        """One pass."""
        ...

    def through_coda(self, ids: Tensor, x: Tensor) -> Tensor:
        """Logits if `x` were the stream that the coda is given, at every token."""
        ...

    def read(self, x: Tensor) -> Tensor:
        """Logits if `x` were the stream that the final norm and unembedding are given."""
        ...

    def provenance(self, **facts: Any) -> Provenance:
        """Where a result of this model is from."""
        ...


@dataclass(frozen=True, kw_only=True)
class Looped:
    """A depth-recurrent model as its own parts; logits are readout(coda(core^steps(initial(e), e))) with e the prelude.

    `prelude`: ids [1, time] -> e [1, time, d_model]. `initial`: e -> the stream before the first step (in Huginn, noise
    or zeros; must give the same each time). `core`: blocks (stream, e) -> stream, one step in order; an adapter that
    joins the two belongs to the first. `coda`: stream -> stream, with the norm before it, if there is one. `readout`:
    stream -> logits, with the final norm.
    """

    prelude: Callable[[Tensor], Tensor]
    initial: Callable[[Tensor], Tensor]
    core: Sequence[Callable[[Tensor, Tensor], Tensor]]
    coda: Callable[[Tensor], Tensor]
    readout: Callable[[Tensor], Tensor]
    steps: int
    name: str = "looped model"

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.core:
            raise ValueError(
                f"{len(self.core)} core blocks applied {self.steps} times were given; give 1 or more of both"
            )

    def ids(self, text_or_tokens: Any) -> Tensor:
        """Token ids [1, time]; a text is refused, as there is no tokenizer."""
        if isinstance(text_or_tokens, str):
            raise ValueError(f"a text was given; {self.name} is made of functions of token ids; give ids [time]")
        ids = torch.as_tensor(text_or_tokens).long()
        ids = ids[None] if ids.ndim == 1 else ids
        if ids.ndim != 2 or ids.shape[0] != 1 or not ids.shape[1]:
            raise ValueError(f"token ids of shape {tuple(ids.shape)} were given; give [time] or [1, time]")
        return ids

    def word(self, token: int) -> str:
        """The id itself."""
        return str(token)

    @torch.no_grad()
    def states(self, ids: Tensor) -> States:
        """One pass."""
        injected = self.prelude(ids)
        x, core = self.initial(injected), []
        for _ in range(self.steps):
            step = []
            for block in self.core:
                x = block(x, injected)
                step.append(x)
            core.append(step)
        end = self.coda(x)
        return States([injected], core, [end], self.readout(end))

    @torch.no_grad()
    def through_coda(self, ids: Tensor, x: Tensor) -> Tensor:
        """readout(coda(x))."""
        return self.readout(self.coda(x))

    @torch.no_grad()
    def read(self, x: Tensor) -> Tensor:
        """readout(x)."""
        return self.readout(x)

    def provenance(self, **facts: Any) -> Provenance:
        """The name, and no hash: functions have none."""
        return Provenance(model=self.name, **facts)


class LoopedBlocks:
    """The blocks of a loaded `model` as `prelude` blocks, `core` blocks again and again, and `coda` blocks.

    Raises ValueError where what lies between prelude and coda is not one or more times the core, and as
    `model_readout`.
    """

    def __init__(self, model: Any, prelude: int, core: int, coda: int, *, max_tokens: int = 512) -> None:
        n = model.cfg.n_layers
        between = n - prelude - coda
        if min(prelude, coda) < 0 or core < 1 or between < core or between % core:
            raise ValueError(
                f"a prelude of {prelude} blocks, a core of {core} and a coda of {coda} were asked for; "
                f"{model.model_name} has {n} blocks, and the {between} between must be a multiple of the core; give "
                "others"
            )
        self.model, self.first, self.core, self.last = model, prelude, core, n - coda
        self.max_tokens, self.readout = max_tokens, model_readout(model)

    def ids(self, text_or_tokens: Any) -> Tensor:
        """Token ids [1, time] of a text or of ids."""
        return one_row(self.model, text_or_tokens, self.max_tokens)

    def word(self, token: int) -> str:
        """The text of a token."""
        return token_text(self.model, token)

    def states(self, ids: Tensor) -> States:
        """One pass."""
        logits, resid = residuals(self.model, ids)
        after = resid[1:]
        core = [after[at : at + self.core] for at in range(self.first, self.last, self.core)]
        return States(after[: self.first], core, after[self.last :], logits)

    def through_coda(self, ids: Tensor, x: Tensor) -> Tensor:
        """The model's logits where the coda's first block is given `x`; what runs before it runs in vain."""
        if self.last == self.model.cfg.n_layers:
            return self.read(x)
        name = hook_names.resid_pre(self.last)
        device = next(self.model.parameters()).device
        with evaluating(self.model), torch.no_grad():
            return self.model.run_with_hooks(ids.to(device), fwd_hooks=[(name, lambda old, hook: x.to(old))])

    def read(self, x: Float[Tensor, "1 time d_model"]) -> Tensor:
        """The checked readout."""
        with torch.no_grad():
            return self.readout(x)

    def provenance(self, **facts: Any) -> Provenance:
        """The model's."""
        return provenance_of(self.model, **facts)
