"""The state contract: what every model that `strobe.load` returns can do, native or Hugging Face alike.

A model brings `_forward(inputs, run)`, `hook_dict`, `carriers` and a tokenizer; this file adds looking at carries,
editing them, stopping, continuing and generating, once for both kinds of model.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformer_lens import ActivationCache

from strobe.core.errors import HookError, nearest
from strobe.core.memory import refuse_if_too_large
from strobe.kernels import Edit, Positions, resolve_positions
from strobe.models.fingerprint import weights_hash
from strobe.models.finite import check_finite
from strobe.models.mixer import Mixer
from strobe.models.run import Run, running
from strobe.models.state import ModelState

Hook = tuple[str | Callable[[str], bool], Callable[..., Any]]


@dataclass(frozen=True, kw_only=True)
class StateEdit(Edit):
    """An `Edit` of the carry of one layer's mixer."""

    layer: int


class StateContract(nn.Module):
    """Mixed into a model; see the module's docstring. Positions count the tokens of the call, from 0."""

    carriers: dict[str, Any]
    mixers: dict[str, Mixer]
    hook_dict: dict[str, Any]
    tokenizer: Any
    model_name: str
    backend: str = "auto"
    ran: dict[str, str]
    cfg: Any
    hooks: Any

    def _forward(self, inputs: Tensor, run: Run) -> Tensor:
        raise NotImplementedError

    def _adopt(self, carriers: dict[str, Any]) -> None:
        """Take `carriers` (name -> module that keeps something from one token to the next) under the contract."""
        self.carriers = carriers
        self.mixers = {name: m for name, m in carriers.items() if isinstance(m, Mixer)}
        self.ran = {}
        for name, module in carriers.items():
            module.key = name

    def forward(
        self,
        inputs: Any,
        state: ModelState | None = None,
        *,
        mask: Tensor | None = None,
        states: Positions | None = None,
        edits: Sequence[StateEdit] = (),
        return_type: str | None = "logits",
        offset: int | None = None,
        check: bool = True,
    ) -> Any:
        """Logits [batch, time, d_vocab] for token ids [batch, time], one row of them, a text or a list of texts.

        `state`: go on from there. `mask` [batch, time]: False at padding (made here for a list of texts).
        `states`: positions at which ``hook_state`` captures and ``hook_carry`` looks. `edits`: of carries.
        `return_type`: "logits", "loss" (mean next-token cross-entropy, nats), "both", "state" (logits and the
        `ModelState` after the last token) or None. `offset`: the position of the first token, where it is not what
        `state` says. `check`: without gradients, refuse logits that are NaN and say where they began.
        """
        inputs, mask = self._inputs(inputs, mask)
        run = Run(
            carries=self._carries(state, inputs.shape[0]),
            looks=resolve_positions(states, inputs.shape[1]),
            edits=self._edits(edits),
            mask=mask,
            backend=self.backend,
            offset=(state.seen if state is not None else 0) if offset is None else offset,
            keeps=return_type == "state",
        )
        self._check_capture(run, inputs.shape[0])
        with running(self.carriers, run):
            logits = self._forward(inputs, run)
        self.ran = dict(run.ran)
        if check:
            check_finite(self, logits, inputs, mask, {"state": state, "states": states, "edits": edits})
        if return_type == "state":
            return logits, self._state_after(run, state, inputs.shape[1])
        return _as(return_type, logits, inputs, mask)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Same as `forward`."""
        return super().__call__(*args, **kwargs)

    def remove_all_hook_fns(
        self, direction: str = "both", including_permanent: bool = False, level: int | None = None
    ) -> None:
        """As TransformerLens's, of the points that have any hook: going over all of them after every pass costs as
        much as running a small layer."""
        for point in self.hook_dict.values():
            if point.fwd_hooks or point.bwd_hooks:
                point.remove_hooks(direction, including_permanent=including_permanent, level=level)

    def state_after(self, inputs: Any, state: ModelState | None = None, **kwargs: Any) -> ModelState:
        """Everything needed to go on after `inputs` (and before them, where `state` is given)."""
        with torch.no_grad():
            return self.forward(inputs, state, return_type="state", **kwargs)[1]

    def init_state(self, batch: int = 1) -> ModelState:
        """The state before the first token: every carrier's initial carry."""
        like = next(self.parameters())
        carries = {n: m.init_carry(batch, like.dtype, like.device) for n, m in self.carriers.items()}
        return ModelState(carries, 0, self.weights_hash())

    def run_with_edits(self, inputs: Any, edits: Sequence[StateEdit], **kwargs: Any) -> Any:
        """As calling the model, with `edits` of carries honoured exactly; what follows an edit sees it."""
        return self.forward(inputs, edits=edits, **kwargs)

    def generate(self, inputs: Any, max_new_tokens: int = 50, **kwargs: Any) -> Any:
        """Prompt and continuation, with the same hooks and edits at every new token (`strobe.models.generation`)."""
        from strobe.models.generation import generate

        return generate(self, inputs, max_new_tokens, **kwargs)

    def run_with_hooks(
        self, inputs: Any, *, fwd_hooks: Iterable[Hook] = (), bwd_hooks: Iterable[Hook] = (), **kwargs: Any
    ) -> Any:
        """One pass with temporary hooks: (name or predicate, f(tensor, hook) -> tensor or None).

        A hook on ``blocks.{i}.mixer.hook_carry`` is called at the positions in `states` and may return a changed carry;
        what follows sees it. Raises HookError for a name that does not exist (with the nearest that do) and for a hook
        that never fired. Backward hooks are taken off when this returns: use ``with model.hooks(...)`` around a
        backward pass.
        """
        fired = [_Fired(name, f) for name, f in fwd_hooks]
        self._check_names([f.name for f in fired] + [name for name, _ in bwd_hooks])
        with self.hooks(fwd_hooks=[(f.name, f) for f in fired], bwd_hooks=list(bwd_hooks)):
            out = self.forward(inputs, **kwargs)
        for f in fired:
            if not f.count:
                raise HookError(self._why_silent(f.name))
        return out

    def run_with_cache(
        self,
        inputs: Any,
        *,
        names_filter: Any = None,
        states: Positions | None = None,
        device: Any = None,
        remove_batch_dim: bool = False,
        incl_bwd: bool = False,
        pos_slice: Any = None,
        fwd_hooks: Iterable[Hook] = (),
        return_cache_object: bool = True,
        **kwargs: Any,
    ) -> tuple[Any, Any]:
        """(output, cache of every hooked activation); `states` are the positions of captured carries.

        ``cache["blocks.3.mixer.hook_state"]`` or ``cache["state", 3]`` is [batch, n_positions, ...]. `names_filter`: a
        name, names, or a predicate. `pos_slice`: a slice of the time axis of everything but captured carries.
        Raises HookError if a name asked for does not exist or did not fire, and CaptureTooLarge (before running)
        if the captured carries would not fit in memory.
        """
        names = self._cache_names(names_filter)
        cache: dict[str, Tensor] = {}
        store = _Store(cache, device, remove_batch_dim, pos_slice)
        hooks = [(name, store.forward(name)) for name in names]
        backward = [(name, store.backward(name)) for name in names if "hook_state" not in name] if incl_bwd else []
        extra = [_Fired(name, f) for name, f in fwd_hooks]
        self._check_names([f.name for f in extra])
        with self.hooks(fwd_hooks=[*((f.name, f) for f in extra), *hooks], bwd_hooks=backward):
            out = self.forward(inputs, states=states, **kwargs)
            if incl_bwd:
                out.backward()
        silent = [f.name for f in extra if not f.count]
        silent += [n for n in names if n not in cache] if isinstance(names_filter, str | list | tuple) else []
        if silent:
            raise HookError(self._why_silent(silent[0]))
        return out, ActivationCache(cache, self, has_batch_dim=not remove_batch_dim) if return_cache_object else cache

    def _cache_names(self, names_filter: Any) -> list[str]:
        if names_filter is None or callable(names_filter):
            every = [n for n in self.hook_dict if not n.endswith("hook_carry")]
            return every if names_filter is None else [n for n in every if names_filter(n)]
        names = [names_filter] if isinstance(names_filter, str) else list(names_filter)
        for name in names:
            if name.endswith("hook_carry"):
                raise HookError(
                    f"{name!r} is the live carry and is not cached; cache {name.replace('carry', 'state')!r}"
                )
        self._check_names(names)
        return names

    def _check_names(self, names: Sequence[Any]) -> None:
        for name in names:
            if isinstance(name, str) and name not in self.hook_dict:
                close = nearest(name, self.hook_dict)
                hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "model.hook_dict lists them all"
                raise HookError(f"hook {name!r} does not exist in {self.model_name}; {hint}")

    def _why_silent(self, name: Any) -> str:
        if isinstance(name, str) and "hook_state" in name:
            return f"{name!r} did not fire: captured carries need positions; give states=[...] (or a slice, or 'all')"
        if isinstance(name, str) and name.endswith("hook_carry"):
            return f"{name!r} did not fire: it is called at looked positions only; give states=[...]"
        return f"hook {name!r} never fired in this run: nothing in {self.model_name} calls it for these inputs"

    def _inputs(self, inputs: Any, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if isinstance(inputs, str) or (isinstance(inputs, list) and inputs and isinstance(inputs[0], str)):
            inputs, made = self.tokenize(inputs)
            mask = made if mask is None else mask
        inputs = torch.as_tensor(inputs)
        if not inputs.is_floating_point():
            inputs = inputs[None] if inputs.ndim == 1 else inputs
            self._check_tokens(inputs)
        if inputs.ndim < 2 or inputs.shape[1] == 0:
            raise ValueError(f"inputs of shape {tuple(inputs.shape)}: give at least one token, as [batch, time]")
        if mask is not None:
            mask = torch.as_tensor(mask).bool()
            if mask.shape != inputs.shape[:2]:
                raise ValueError(f"mask of shape {tuple(mask.shape)} for inputs of shape {tuple(inputs.shape)}")
            mask = None if bool(mask.all()) else mask
        return inputs, mask

    def _check_tokens(self, tokens: Tensor) -> None:
        size = self.cfg.d_vocab
        if tokens.numel() and (int(tokens.min()) < 0 or int(tokens.max()) >= size):
            bad = int(tokens.min()) if int(tokens.min()) < 0 else int(tokens.max())
            raise ValueError(f"token id {bad} is outside the vocabulary of {self.model_name} (0 to {size - 1})")

    def _carries(self, state: ModelState | None, batch: int) -> dict[str, Any]:
        if state is None:
            return {}
        for name, carry in state.carries.items():
            if name not in self.carriers:
                raise ValueError(f"the state has a carry {name!r}; {self.model_name} has {', '.join(self.carriers)}")
            if carry[0].shape[0] != batch:
                raise ValueError(f"the state is of a batch of {carry[0].shape[0]}, the inputs of {batch}")
        if missing := [name for name in self.carriers if name not in state.carries]:
            raise ValueError(
                f"the state lacks the carry of {', '.join(missing)}; begin from model.init_state({batch}) and set "
                "those you have, so that nothing starts empty unsaid"
            )
        return dict(state.carries)

    def _edits(self, edits: Sequence[StateEdit]) -> dict[str, list[Edit]]:
        by_mixer: dict[str, list[Edit]] = {}
        for edit in edits:
            name = f"blocks.{edit.layer}.mixer"
            if name not in self.mixers:
                raise ValueError(
                    f"edit of layer {edit.layer}, which has no recurrent carry; {self._recurrent_layers()}"
                )
            by_mixer.setdefault(name, []).append(edit)
        return by_mixer

    def _recurrent_layers(self) -> str:
        layers = [n.split(".")[1] for n in self.mixers if n.endswith(".mixer")]
        return f"layers with one: {', '.join(layers)}" if layers else f"{self.model_name} has no recurrent layer"

    def _check_capture(self, run: Run, batch: int) -> None:
        if not run.looks:
            return
        # A carry is float32 at least, whatever the weights are.
        dtype = torch.promote_types(next(self.parameters()).dtype, torch.float32)
        captured = [m.carry_bytes(dtype) for m in self.mixers.values() if m.wants_capture(run)]
        refuse_if_too_large(
            sum(captured) * batch * len(run.looks),
            f"capturing the carry at {len(run.looks)} positions in {len(captured)} layers, batch {batch}",
            "ask for fewer positions (a slice with a step), fewer layers (names_filter), or a smaller batch",
        )

    def _state_after(self, run: Run, before: ModelState | None, time: int) -> ModelState:
        seen = (before.seen if before is not None else 0) + time
        return ModelState(dict(run.after), seen, self.weights_hash())

    def weights_hash(self) -> str:
        """SHA-256 of every parameter's name, shape, type and bytes; kept until a parameter changes."""
        versions = tuple((id(p), p._version) for p in self.parameters())
        kept: tuple[Any, str] | None = self.__dict__.get("_weights_hash")
        if kept is None or kept[0] != versions:
            kept = (versions, weights_hash(self))
            self.__dict__["_weights_hash"] = kept
        return kept[1]

    def tokenize(self, text: str | list[str], padding_side: str = "right") -> tuple[Tensor, Tensor | None]:
        """(token ids [batch, time], mask or None). Raises ValueError for empty text or a model without a tokenizer."""
        if self.tokenizer is None:
            raise ValueError(f"{self.model_name} came without a tokenizer, so it takes token ids, not text")
        rows = [self.tokenizer.encode(t, add_special_tokens=True) for t in ([text] if isinstance(text, str) else text)]
        if any(not row for row in rows):
            raise ValueError("the text is empty: it has no token; give at least one character")
        longest = max(map(len, rows))
        tokens = torch.zeros(len(rows), longest, dtype=torch.long)
        mask = torch.zeros(len(rows), longest, dtype=torch.bool)
        for i, row in enumerate(rows):
            where = slice(0, len(row)) if padding_side == "right" else slice(longest - len(row), longest)
            tokens[i, where] = torch.tensor(row)
            mask[i, where] = True
        device = next(self.parameters()).device
        return tokens.to(device), None if bool(mask.all()) else mask.to(device)


class _Fired:
    """A user's hook, counting its calls."""

    def __init__(self, name: Any, f: Callable[..., Any]) -> None:
        self.name, self.f, self.count = name, f, 0

    def __call__(self, tensor: Any, hook: Any) -> Any:
        self.count += 1
        return self.f(tensor, hook=hook)


class _Store:
    """Caching hooks, storing under the name asked for (an alias included)."""

    def __init__(self, cache: dict[str, Tensor], device: Any, remove_batch_dim: bool, pos_slice: Any) -> None:
        self.cache, self.device, self.remove, self.pos_slice = cache, device, remove_batch_dim, pos_slice

    def forward(self, name: str) -> Callable[..., None]:
        return lambda tensor, hook: self._keep(name, tensor)

    def backward(self, name: str) -> Callable[..., None]:
        return lambda tensor, hook: self._keep(f"{name}_grad", tensor)

    def _keep(self, name: str, tensor: Tensor) -> None:
        kept = tensor.detach() if self.device is None else tensor.detach().to(self.device)
        if self.pos_slice is not None and "hook_state" not in name:
            axis = -2 if "pattern" in name else 1
            kept = kept[(slice(None),) * (axis % kept.ndim) + (self.pos_slice,)]
        self.cache[name] = kept[0] if self.remove else kept


def _as(return_type: str | None, logits: Tensor, inputs: Tensor, mask: Tensor | None) -> Any:
    if return_type is None:
        return None
    if return_type == "logits":
        return logits
    if return_type not in ("loss", "both"):
        raise ValueError(f"return_type {return_type!r}; it can be 'logits', 'loss', 'both', 'state' or None")
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), inputs[:, 1:].flatten(), reduction="none")
    if mask is None:
        loss = loss.mean()
    else:
        real = (mask[:, 1:] & mask[:, :-1]).flatten()
        loss = (loss * real).sum() / real.sum()
    return loss if return_type == "loss" else (logits, loss)


def find_carriers(root: nn.Module, kinds: tuple[type, ...]) -> dict[str, Any]:
    """Every submodule of `root` that is one of `kinds`, by name."""
    return {name: module for name, module in root.named_modules() if isinstance(module, kinds)}
