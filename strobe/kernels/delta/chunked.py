"""Matrix state with decay and a low-rank correction, chunk by chunk, in plain torch.

With w_t = b_t^T diag(alpha_t) S_{t-1}, what the decayed memory answers to b_t, a token is two writes, a_t w_t^T and
k_t v_t^T, into a memory that only decays. Inside a chunk that starts from S_in the answers solve one unit lower
triangular system (the UT transform: Joffrain et al., 2006; Yang et al., 2024, arXiv:2406.06484, sec. 3; with decay
arXiv:2412.06464, sec. 3.3). With G_t the cumulated log decay and (x|y)_ts = x_t . y_s e^{G_t - G_s}:

    (1 - (b|a)_{s<t}) W = (b|k)_{s<t} V + e^G b S_in        so W = W_0 + W_1 S_in, both known before S_in is
    y     = (q|a)_{s<=t} W + (q|k)_{s<=t} V + e^G q S_in
    S_out = e^{G_C} S_in + (e^{G_C - G} a)^T W + (e^{G_C - G} k)^T V

For the delta rule (a = -k) the two writes are one, k_t u_t^T with u = v - w, and

    (1 + (b|k)_{s<t}) U = V - e^G b S_in

which is the same with U for W and no second write. The inverse of the system is found for all chunks at once, by
forward substitution; only W = W_0 + W_1 S_in and S_out are sequential. A captured carry is S_out of a chunk cut short
at its position, all positions at once; a reader is one more query.

Everything is computed in float32 (float64 where a signal or the carry is), also under autocast, which is switched off
inside: a triangular solve in bfloat16 amplifies its rounding along the chunk.

Shape letters: n (chunks), units = batch * heads, chunk, key, value, points (positions).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from strobe.kernels.chunk_carries import captured_carries, locate
from strobe.kernels.chunk_layout import Layout
from strobe.kernels.chunked_backend import ChunkedBackend
from strobe.kernels.chunks import by_head, by_time, chunk_decay, reader_rows, work_dtype
from strobe.kernels.delta.reference import DeltaCarry, DeltaSignals, reference
from strobe.kernels.edits import EditsAt
from strobe.kernels.linear import attention_by_scan
from strobe.kernels.scan import Segment

# Of 16, 32 and 64 the fastest on one CPU thread, forward and backward, at 8 heads, key = value = 32 and 64, time 512
# and 2048 (5 and 27 ms at 64); level with 64 at key = value = 128.
_CHUNK = 32


def attention(signals: DeltaSignals) -> Tensor:
    """Effective attention [batch, heads, time, time], by scanning one-hot values; see `strobe.kernels.linear`."""
    (batch, time, heads), key = signals.v.shape[:3], signals.k.shape[-1]
    S = torch.zeros(batch, heads, key, time, dtype=work_dtype(signals.v), device=signals.v.device)
    return attention_by_scan(chunked, signals, DeltaCarry(S))


def _run(
    signals: DeltaSignals, carry: DeltaCarry, positions: list[int], readers: Tensor | None, edits: Sequence[EditsAt]
) -> Segment:
    batch, time, heads = signals.v.shape[:3]
    dtype = work_dtype(carry.S, signals.v)
    layout = Layout(time, _CHUNK, edits)
    q, k, v, b = (by_head(x, heads, layout, dtype) for x in (signals.q, signals.k, signals.v, signals.b))
    log_decay = signals.log_decay.unsqueeze(-1) if signals.log_decay.ndim == 3 else signals.log_decay
    decay = chunk_decay(by_head(log_decay, heads, layout, dtype))

    # `erase` is what the answers W are written along; for the delta rule k, with the sign on the other side.
    rule = signals.a is None
    erase = k if signals.a is None else by_head(signals.a, heads, layout, dtype)
    system = decay.gram(b, erase if rule else -erase)
    one = torch.eye(layout.chunk, dtype=dtype, device=v.device)
    inverse = torch.linalg.solve_triangular(system, one, upper=False, unitriangular=True)
    known = inverse @ (v if rule else decay.gram(b, k).tril(-1) @ v)
    asked = inverse @ (b * decay.from_start)
    erase_end = (erase * decay.to_end).mT
    written = None if rule else (k * decay.to_end).mT @ v

    def by_batch(S: Tensor) -> Tensor:
        return S.unflatten(-3, (batch, heads))

    changes = layout.changes(lambda S: DeltaCarry(by_batch(S)), lambda carry: carry.S.to(dtype).flatten(0, 1))
    carries, answered = [carry.S.to(dtype).flatten(0, 1)], []
    across = decay.from_start[:, :, -1, :, None]
    for i, (w_0, w_1, e, d) in enumerate(zip(*(x.unbind(0) for x in (known, asked, erase_end, across)), strict=True)):
        S = carries[-1]
        answered.append(torch.baddbmm(w_0, w_1, S, alpha=-1 if rule else 1))
        kept = d * S if written is None else torch.addcmul(written[i], d, S)
        S = torch.baddbmm(kept, e, answered[-1])
        carries.append(changes[i](S) if i in changes else S)
    every, W = torch.stack(carries), torch.stack(answered)
    start = every[:-1]

    def reads(x: Tensor) -> Tensor:
        y = (x * decay.from_start) @ start + decay.gram(x, erase) @ W
        return y if rule else y + decay.gram(x, k) @ v

    def inside_chunks(places: list[int]) -> Tensor:
        which, here = locate(places, layout.chunk, v)
        from_start, weight = decay.until(which, here)
        S_at = (erase.index_select(0, which) * weight).mT @ W.index_select(0, which)
        if not rule:
            S_at += (k.index_select(0, which) * weight).mT @ v.index_select(0, which)
        return S_at.addcmul_(from_start.mT, start.index_select(0, which))

    captured = answers = None
    if positions:
        S_at = captured_carries(layout, positions, every, 0, inside_chunks)
        captured = DeltaCarry(by_batch(S_at).transpose(0, 1))
    if readers is not None:
        rows = reader_rows(readers, heads, dtype).repeat(1, batch, 1).unsqueeze(-2)
        answers = torch.stack([by_time(reads(u.expand_as(q)), batch, layout) for u in rows], 2)
    return Segment(by_time(reads(q), batch, layout), DeltaCarry(by_batch(carries[-1])), captured, answers)


chunked = ChunkedBackend(_run, reference, _CHUNK)
"""The `chunked` backend; see `strobe.kernels.scan.Backend`."""
