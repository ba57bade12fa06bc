"""The carries of a chunked scan: from chunk to chunk, edited between them, and at any position inside one."""

from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
from torch import Tensor

from strobe.kernels.chunk_layout import Layout

Changes = Mapping[int, Callable[[Tensor], Tensor]]
"""By chunk, what the edits after it make of the carry there; see `Layout.changes`."""


def carries_across(write: Tensor, decay: Tensor, S: Tensor, axis: int, changes: Changes) -> Tensor:
    """The carries between the chunks along `axis`, first and last included: S_{i+1} = decay_i S_i + write_i, and what
    ``changes[i]`` makes of it where there are edits."""
    decays, writes = decay.unbind(axis), write.unbind(axis)
    S = S.expand_as(writes[0])
    if torch.is_grad_enabled():
        carries = [S]
        for i, (d, w) in enumerate(zip(decays, writes, strict=True)):
            carry = torch.addcmul(w, d, carries[-1])
            carries.append(changes[i](carry) if i in changes else carry)
        return torch.stack(carries, axis)
    # Written where they are wanted: half the memory of a list and a copy of it, and of its traffic.
    every = write.new_empty(*S.shape[:axis], len(writes) + 1, *S.shape[axis:])
    every.select(axis, 0).copy_(S)
    for i, (d, w, (before, after)) in enumerate(zip(decays, writes, pairwise(every.unbind(axis)), strict=True)):
        torch.addcmul(w, d, before, out=after)
        if i in changes:
            after.copy_(changes[i](after))
    return every


def captured_carries(
    layout: Layout, positions: list[int], carries: Tensor, axis: int, inside: Callable[[list[int]], Tensor]
) -> Tensor:
    """The carry at each of `positions`, along `axis`. Those between chunks are among `carries`; `inside` makes, from
    the tokens' places among those of all chunks, carries inside chunks, which know nothing of an edit."""
    known = layout.crossings(positions)
    which = [i + 1 for i in known if i is not None]
    if len(which) == len(positions):
        # A view keeps all carries for as long as it is kept itself: only where it is most of them.
        most = 2 * len(which) > carries.shape[axis]
        return chosen(carries, axis, which) if most else carries.index_select(axis, _index(which, carries))
    found = inside(layout.places(positions))
    for n, i in enumerate(known):
        if i is not None and i in layout.edits:
            found.select(axis, n).copy_(carries.select(axis, i + 1))
    return found


def chosen(x: Tensor, axis: int, which: list[int]) -> Tensor:
    """``x.index_select(axis, which)``; evenly spaced ones, as captures mostly are, are a view."""
    step = which[1] - which[0] if len(which) > 1 else 1
    if step > 0 and which == list(range(which[0], which[-1] + 1, step)):
        return x[(slice(None),) * axis + (slice(which[0], which[-1] + 1, step),)]
    return x.index_select(axis, _index(which, x))


def locate(places: list[int], chunk: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Of each of `places` the chunk, and the token in it."""
    at = _index(places, like)
    return at // chunk, at % chunk


def _index(which: list[int], like: Tensor) -> Tensor:
    return torch.tensor(which, device=like.device)
