"""What a recurrence is given at each token, read and changed between `project` and `scan`, whatever the architecture.

A mixer's `inputs` are its scan family's signals (`strobe.kernels`): decay and write are there under the family's names,
so retention is read, and a decay raised or a write reduced, once for each family and not once for each architecture.
The families that are nonlinear in their carry (elman, gru, lstm, slstm) have no decay of their own: what a token leaves
of the carry depends on the carry. Retention and changes of signals are refused there, with that reason.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from strobe.kernels.rnn import NONLINEAR
from strobe.probes.states import recurrent_layers

Change = Callable[[Any], Any]
"""From the family's signals to the signals the scan is to be given."""


class TokenDecay(NamedTuple):
    """Log decay of each token, averaged over the batch, in as few numbers as hold it.

    `per_token` [time, small]: sums of it over tokens are meaningful. `lift`: from sums [n, small] to the log decay of
    every unit, [n, heads, units]; a memory without heads has one.
    """

    per_token: Tensor
    lift: Callable[[Tensor], Tensor]


def token_decay(family: str, inputs: Any) -> TokenDecay:
    """The log decay of every token under the signals `inputs` of `family`; of the delta rule without what it erases.

    Raises ValueError for a nonlinear family.
    """
    refuse_nonlinear(family, "retention")
    if family in ("decay", "delta"):
        log_decay = inputs.log_decay.double().mean(0)
        shape = log_decay.shape[1:]
        return TokenDecay(log_decay.flatten(1).clone(), lambda x: x.reshape(len(x), shape[0], shape[1:].numel()))
    if family == "diagonal":
        # A decay of exactly 0 forgets for good; -inf is what its logarithm is.
        log_decay = inputs.a.abs().double().log().mean(0).clone()
        return TokenDecay(log_decay, lambda x: x.unsqueeze(1))
    if family == "selective":
        A = inputs.A.double()
        return TokenDecay(inputs.delta.double().mean(0), lambda x: (x.unsqueeze(-1) * A).flatten(1).unsqueeze(1))
    if family == "wkv":
        time, w = inputs.k.shape[1], inputs.w.double()
        return TokenDecay(w.new_ones(time, 1), lambda x: (x * w).unsqueeze(1))
    raise ValueError(
        f"retention was asked for in the scan family {family!r}, whose decay nobody has named here; add it"
    )


def scaled(family: str, inputs: Any, decay: float, write: float) -> Any:
    """`inputs` with every decay times `decay` and every write times `write`.

    Of the delta rule it is beta that is scaled, and with it what is erased. Raises ValueError where the family's
    signals cannot say it: a raised decay in `selective` (one A for all tokens), a scaled write in `wkv` (it cancels).
    """
    refuse_nonlinear(family, "a scaled decay or write")
    if family in ("decay", "delta"):
        more = {"k": inputs.k * write} if family == "delta" else {"v": inputs.v * write}
        return inputs._replace(log_decay=inputs.log_decay + math.log(decay), **more)
    if family == "diagonal":
        return inputs._replace(a=inputs.a * decay, b=inputs.b * write)
    if family == "selective" and decay == 1:
        return inputs._replace(B=inputs.B * write)
    if family == "wkv" and write == 1:
        return inputs._replace(w=inputs.w + math.log(decay))
    why = {
        "selective": "its decay is exp(delta A) with one A for all tokens, so only the write can be scaled (decay=1)",
        "wkv": "its read divides by the sum of weights, so scaling every write changes nothing (write=1)",
    }
    raise ValueError(
        f"decay x {decay:g} and write x {write:g} were asked for in the family {family!r}; "
        f"{why.get(family, 'nobody has named its signals here')}"
    )


def planted(family: str, inputs: Any, heads: list[int], mean: float) -> Any:
    """`inputs` with units that never forget and whose write has a mean: the carry there grows by as much every token.

    `heads` count along the memory's first axis after the batch: heads of a matrix memory, channels of a vector. Heads
    that share a key with others change it for them too. Ours: a positive control for the diagnostics, no model.
    """
    refuse_nonlinear(family, "planted heads")
    if family in ("decay", "delta"):
        log_decay, v, k = inputs.log_decay.clone(), inputs.v.clone(), inputs.k.clone()
        log_decay[:, :, heads] = 0
        v[:, :, heads] += mean
        per_group = v.shape[2] // k.shape[2]
        k[:, :, sorted({h // per_group for h in heads})] += mean
        if family == "decay":
            return inputs._replace(log_decay=log_decay, v=v, k=k)
        erased = -k if inputs.a is None else inputs.a.clone()
        erased[:, :, heads] = 0
        return inputs._replace(log_decay=log_decay, v=v, k=k, a=erased)
    if family == "diagonal":
        a, b = inputs.a.clone(), inputs.b.clone()
        a[:, :, heads], b[:, :, heads] = 1, b[:, :, heads] + mean
        return inputs._replace(a=a, b=b)
    if family == "selective":
        A, x = inputs.A.clone(), inputs.x.clone()
        A[heads] = 0
        x[:, :, heads] += mean
        return inputs._replace(A=A, x=x, B=inputs.B + mean)
    w, v = inputs.w.clone(), inputs.v.clone()
    w[heads] = 0
    v[:, :, heads] += mean
    return inputs._replace(w=w, v=v)


@contextmanager
def changing(model: Any, change: Callable[[int, str, Any], Any], layers: list[int] | None = None) -> Iterator[None]:
    """While open, the scan of each of `layers` (None: all recurrent ones) gets ``change(layer, family, inputs)``."""
    with ExitStack() as stack:
        for layer in recurrent_layers(model) if layers is None else layers:
            mixer = model.mixers[f"blocks.{layer}.mixer"]
            stack.enter_context(_through(mixer, lambda x, i=layer, f=mixer.family.name: change(i, f, x)))
        yield


@contextmanager
def _through(mixer: Any, change: Change) -> Iterator[None]:
    own, was_set = mixer.inputs, "inputs" in vars(mixer)
    mixer.inputs = lambda signals: change(own(signals))
    try:
        yield
    finally:
        if was_set:
            mixer.inputs = own
        else:
            del mixer.inputs


def refuse_nonlinear(family: str, what: str) -> None:
    """Raise ValueError where `family` is nonlinear in its carry."""
    if family in NONLINEAR:
        raise ValueError(
            f"{what}: asked for in a layer of the family {family!r}, which is nonlinear in its carry, so that what a "
            "token leaves of the carry depends on the carry; look at its fixed points' eigenvalues instead"
        )


def log_decay_sums(decay: TokenDecay, ends: list[int]) -> tuple[Tensor, Tensor]:
    """(sums up to and including each of `ends` [n, heads, units], the sum over all tokens [heads, units])."""
    total = decay.per_token.cumsum(0)
    return decay.lift(total[torch.as_tensor(ends, dtype=torch.long)]), decay.lift(total[-1:])[0]
