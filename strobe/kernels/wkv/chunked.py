"""RWKV-4's time mixing for a whole sequence: the maximum first, then numerator and denominator as diagonal scans.

Given max_t for every token, num and den are linear recurrences with decays e^{max_{t-1} + w - max_t} <= 1, and every
read follows from the carry before it elementwise. Long sequences are cut into pieces that stay in cache. All carries
of a piece exist, so a capture is a row of them. Padding: w_t = 0 and k_t = -inf, exact.
"""

import torch
from torch import Tensor

from strobe.kernels.chunks import work_dtype
from strobe.kernels.diagonal.recurrence import diagonal_scan
from strobe.kernels.scan import Segment
from strobe.kernels.wkv.reference import WKVCarry, WKVSignals, answer, read_before_write, step
from strobe.kernels.wkv.running_max import running_max, with_gradient

# About ten intermediates of a piece are alive at once; each is this large.
PIECE_BYTES = 512 * 1024


def run(signals: WKVSignals, carry: WKVCarry, positions: list[int], readers: Tensor | None) -> Segment:
    """Backend of the family; see `strobe.kernels.wkv.reference` for shapes."""
    if signals.k.shape[1] == 1:
        return _one_token(signals, carry, positions, readers)
    dtype = work_dtype(*signals[:4])
    k, v, w, u = (x.to(dtype) for x in signals[:4])
    decay = w.expand(1, 1, -1)
    write = k
    if signals.mask is not None:
        padding = ~signals.mask.unsqueeze(-1)
        decay, write = decay.masked_fill(padding, 0), k.masked_fill(padding, -torch.inf)
    time = k.shape[1]
    length = max(16, PIECE_BYTES // max(carry.num.numel() * carry.num.element_size(), 1))
    entered, pieces, reads, answers = carry, [], [], []
    # split and not slices: the gradient of a slice is as long as the whole sequence.
    decays = [decay] * -(-time // length) if signals.mask is None else decay.split(length, 1)
    for k_here, v_here, write_here, w_here in zip(
        k.split(length, 1), v.split(length, 1), write.split(length, 1), decays, strict=True
    ):
        piece = _carries(write_here, v_here, w_here, carry)
        before = WKVCarry(*(torch.cat([c.unsqueeze(1), x[:, :-1]], 1) for c, x in zip(carry, piece, strict=True)))
        reads.append(read_before_write(k_here, v_here, u, before))
        if readers is not None:
            answers.append(answer(piece.num, piece.den, readers))
        pieces.append(piece)
        carry = WKVCarry(*(x[:, -1] for x in piece))
    looked = _at([*positions, time - 1], pieces, length)
    if torch.is_grad_enabled() and any(x.requires_grad for x in (k, v, w, *entered)):
        top = with_gradient(torch.cat([x.max for x in pieces], 1), write, decay, entered.max)
        looked = _owing_to_the_maximum(looked, top[:, [*positions, time - 1]])
    return Segment(
        read=torch.cat(reads, 1),
        carry=WKVCarry(*(x[:, -1] for x in looked)),
        captured=WKVCarry(*(x[:, :-1] for x in looked)) if positions else None,
        readers=torch.cat(answers, 1) if answers else None,
    )


def _at(positions: list[int], pieces: list[WKVCarry], length: int) -> WKVCarry:
    rows = []
    for n, piece in enumerate(pieces):
        here = [p - n * length for p in positions if p // length == n]
        rows.append(WKVCarry(*(x[:, here] for x in piece)))
    return WKVCarry(*(torch.cat(x, 1) for x in zip(*rows, strict=True)))


def _one_token(signals: WKVSignals, carry: WKVCarry, positions: list[int], readers: Tensor | None) -> Segment:
    mask = None if signals.mask is None else signals.mask[:, 0]
    carry, read = step(signals._replace(k=signals.k[:, 0], v=signals.v[:, 0], mask=mask), carry)
    captured = WKVCarry(*(x.unsqueeze(1) for x in carry)) if positions else None
    answers = None if readers is None else answer(carry.num, carry.den, readers).unsqueeze(1)
    return Segment(read.unsqueeze(1), carry, captured, answers)


def _carries(k: Tensor, v: Tensor, w: Tensor, carry: WKVCarry) -> WKVCarry:
    # The maximum is a constant here: reads and answers do not depend on it, nor does the rest of the sequence.
    top = running_max(k, w, carry.max)
    previous = torch.cat([carry.max.unsqueeze(1), top[:, :-1]], 1)
    past, own = torch.exp(previous + w - top), torch.exp(k - top)
    return WKVCarry(diagonal_scan(past, own * v, carry.num), diagonal_scan(past, own, carry.den), top)


def _owing_to_the_maximum(carry: WKVCarry, top: Tensor) -> WKVCarry:
    """The same numbers, with the gradient that num and den have because they are relative to the maximum."""
    one = torch.exp(carry.max - top)
    return WKVCarry(carry.num * one, carry.den * one, top)
