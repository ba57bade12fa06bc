"""Matrix state with decay, chunk by chunk, in plain torch.

With G_t the cumulated log decay inside a chunk and S_in the carry at its start (Dao & Gu, 2024, arXiv:2405.21060,
sec. 6; Yang et al., 2023, arXiv:2312.06635, sec. 4):

    y_t   = e^{G_t} q_t S_in + sum_{s<=t} (q_t . k_s) e^{G_t - G_s} v_s
    S_out = e^{G_C} S_in + sum_s e^{G_C - G_s} k_s v_s^T

All chunks at once but for the carry from chunk to chunk. A captured carry is S_out of a chunk cut short at its
position, all positions at once; a reader is one more query.

Everything is computed in float32 (float64 where a signal or the carry is), also under autocast, which is switched off
inside: in bfloat16 the decays lose their third digit and the carry what small writes add to it.

Shape letters: batch, n (chunks), chunk, groups, heads, per_group = heads / groups, key, value, points (positions).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from strobe.kernels.chunk_carries import captured_carries, carries_across, chosen, locate
from strobe.kernels.chunk_layout import Layout
from strobe.kernels.chunked_backend import ChunkedBackend
from strobe.kernels.chunks import (
    after,
    by_head,
    by_time,
    chunk_decay,
    cumulate,
    decay_of,
    heads_per_group,
    pairwise_decay,
    reader_rows,
    work_dtype,
)
from strobe.kernels.decay.reference import DecayCarry, DecaySignals, reference
from strobe.kernels.denormals import flushed
from strobe.kernels.edits import EditsAt
from strobe.kernels.scan import Segment

# Of 16, 32, 64, 128 the fastest forward on one CPU thread at 8 heads, key = value = 64, time 512 and 2048 (2.4 and
# 13 ms; 64: 2.8 and 14 ms), level with 64 in forward plus backward; and a capture costs half of what it does with 64.
_CHUNK = 32


def _run(
    signals: DecaySignals, carry: DecayCarry, positions: list[int], readers: Tensor | None, edits: Sequence[EditsAt]
) -> Segment:
    run = _per_head if signals.log_decay.ndim == 3 else _per_channel
    return run(signals, carry, positions, readers, Layout(signals.v.shape[1], _CHUNK, edits))


chunked = ChunkedBackend(_run, reference, _CHUNK)
"""The `chunked` backend; see `strobe.kernels.scan.Backend`."""


def attention(signals: DecaySignals) -> Tensor:
    """Effective attention E[t, s] = q_t . (decays after s up to t) k_s: [batch, heads, time, time], in closed form."""
    batch, time, heads = signals.v.shape[:3]
    log_decay = signals.log_decay.unsqueeze(-1) if signals.log_decay.ndim == 3 else signals.log_decay
    with flushed(signals.v.device), torch.autocast(signals.v.device.type, enabled=False):
        whole = Layout(time, 1 << time.bit_length())
        q, k, log_decay = (by_head(x, heads, whole, work_dtype(signals.v)) for x in (signals.q, signals.k, log_decay))
        return chunk_decay(log_decay).gram(q, k)[0].unflatten(0, (batch, heads))[..., :time, :time]


def _per_head(
    signals: DecaySignals, carry: DecayCarry, positions: list[int], readers: Tensor | None, layout: Layout
) -> Segment:
    """One decay per head: q and k stay per group, so that q k^T is computed once for all heads of a group."""
    heads, groups = signals.v.shape[2], signals.q.shape[2]
    dtype = work_dtype(carry.S, signals.v)
    split = (groups, heads_per_group(heads, groups))
    q, k, v, log_decay = (layout.to_chunks(x, dtype) for x in signals)  # [batch, n, chunk, ...]
    q, k = q.transpose(2, 3), k.transpose(2, 3)  # [batch, n, groups, chunk, key]
    cumulated = cumulate(log_decay, 2, dtype)  # [batch, n, chunk, heads]
    # The decays of a token as those of its head, with an axis for values.
    from_start = decay_of(cumulated.to(dtype)).unflatten(-1, split).unsqueeze(-1)
    to_end = decay_of((cumulated[:, :, -1:] - cumulated).to(dtype)).unsqueeze(-1)

    # Packed [batch, n, groups, key, per_group * value]: one product per group, with the decay on the value side.
    written = k.mT @ (v * to_end).unflatten(3, split).flatten(-2).transpose(2, 3)
    written = written.unflatten(-1, (split[1], -1))

    def pack(carry: DecayCarry) -> Tensor:
        return carry.S.to(dtype).unflatten(1, split).transpose(2, 3)  # [batch, groups, key, per_group, value]

    def unpack(S: Tensor) -> Tensor:
        return S.transpose(-3, -2).flatten(-4, -3)

    changes = layout.changes(lambda S: DecayCarry(unpack(S)), pack)
    carries = carries_across(written, from_start[:, :, -1].unsqueeze(3), pack(carry), 1, changes)
    start = carries[:, :-1]

    pairs = pairwise_decay(cumulated.transpose(2, 3), dtype)  # [batch, n, heads, chunk, chunk]
    v_head = v.transpose(2, 3)
    scores = (q @ k.mT).unsqueeze(3) * pairs.unflatten(2, split)
    inside = (scores.flatten(2, 3) @ v_head).transpose(2, 3)  # [batch, n, chunk, heads, value]
    before = (q @ start.flatten(-2)).transpose(2, 3).unflatten(-1, (split[1], -1))
    # In this order, as the sum lies in memory as its first term does: here already by time.
    read = layout.to_time((before * from_start).add_(inside.unflatten(3, split)).flatten(3, 4))

    def inside_chunks(places: list[int]) -> Tensor:
        chunks, upto = [p // layout.chunk for p in places], max(p % layout.chunk for p in places) + 1
        # axes: batch, points, upto, heads
        here = chosen(cumulated.flatten(1, 2), 1, places).unsqueeze(2)
        weight = (here - chosen(cumulated[:, :, :upto], 1, chunks)).to(dtype)
        if any(p % layout.chunk + 1 < upto for p in places):
            weight = weight.masked_fill(after(locate(places, layout.chunk, v)[1], upto)[..., None], -torch.inf)
        writes = chosen(v[:, :, :upto], 1, chunks) * decay_of(weight).unsqueeze(-1)
        writes = writes.unflatten(3, split).flatten(-2).transpose(2, 3)
        S_at = (chosen(k[..., :upto, :], 1, chunks).mT @ writes).unflatten(-1, (split[1], -1))
        decayed = chosen(from_start.flatten(1, 2), 1, places).unsqueeze(3)
        return S_at.addcmul_(decayed, chosen(start, 1, chunks))

    captured = answers = None
    if positions:
        captured = DecayCarry(unpack(captured_carries(layout, positions, carries, 1, inside_chunks)))
    if readers is not None:
        u = reader_rows(readers, heads, dtype).unflatten(1, split)
        # u^T k_s v_s first, so that the decays between tokens are needed once for all readers
        u_k = torch.einsum("rgpk,bngck->bngpcr", u, k).flatten(2, 3)
        inside = pairs @ (u_k.unsqueeze(-1) * v_head.unsqueeze(-2)).flatten(-2)
        u_start = torch.einsum("rgpk,bngkpv->bngprv", u, start).flatten(2, 3).unsqueeze(3)
        answers = inside.unflatten(-1, (len(u), -1)) + u_start * from_start.flatten(3, 4).transpose(2, 3).unsqueeze(-1)
        answers = layout.to_time(answers.permute(0, 1, 3, 4, 2, 5))
    return Segment(read, DecayCarry(unpack(carries[:, -1].clone())), captured, answers)


def _per_channel(
    signals: DecaySignals, carry: DecayCarry, positions: list[int], readers: Tensor | None, layout: Layout
) -> Segment:
    """One decay per key channel; everything per head, with [n, batch * heads] in front."""
    batch, _, heads = signals.v.shape[:3]
    dtype = work_dtype(carry.S, signals.v)
    q, k, v, log_decay = (by_head(x, heads, layout, dtype) for x in signals)
    decay = chunk_decay(log_decay)
    written = (k * decay.to_end).mT @ v

    def by_batch(S: Tensor) -> Tensor:
        return S.unflatten(-3, (batch, heads))

    changes = layout.changes(lambda S: DecayCarry(by_batch(S)), lambda carry: carry.S.to(dtype).flatten(0, 1))
    carries = carries_across(written, decay.from_start[:, :, -1, :, None], carry.S.to(dtype).flatten(0, 1), 0, changes)
    start = carries[:-1]

    def reads(x: Tensor) -> Tensor:
        inside = decay.gram(x, k) @ v
        return inside + (x * decay.from_start) @ start

    def inside_chunks(places: list[int]) -> Tensor:
        which, here = locate(places, layout.chunk, v)
        from_start, weight = decay.until(which, here)
        S_at = (k.index_select(0, which) * weight).mT @ v.index_select(0, which)
        return S_at.addcmul_(from_start.mT, start.index_select(0, which))

    captured = answers = None
    if positions:
        S_at = captured_carries(layout, positions, carries, 0, inside_chunks)
        captured = DecayCarry(by_batch(S_at).transpose(0, 1))
    if readers is not None:
        rows = reader_rows(readers, heads, dtype).repeat(1, batch, 1).unsqueeze(-2)
        answers = torch.stack([by_time(reads(u.expand_as(q)), batch, layout) for u in rows], 2)
    return Segment(by_time(reads(q), batch, layout), DecayCarry(by_batch(carries[-1].clone())), captured, answers)
