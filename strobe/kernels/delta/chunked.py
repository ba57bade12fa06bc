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

which is the same with U for W and no second write. Either way a chunk acts on its carry as an affine map, found for all
chunks at once; only applying them is sequential. A captured carry is S_out of a chunk cut short at its position, all
positions at once; a reader is one more query.

Everything is computed in float32 (float64 where a signal or the carry is), also under autocast, which is switched off
inside: a triangular solve in bfloat16 amplifies its rounding along the chunk.

Shape letters: batch, n (chunks), chunk, groups, heads, key, value, points (positions), rows (b, q, readers), writes (1, or
2: a and k).
"""

import torch
from torch import Tensor

from strobe.kernels.chunks import (
    after,
    chunk_length,
    cumulate,
    decayed_gram,
    locate,
    pairwise_decay,
    reader_rows,
    to_chunks,
    to_heads,
    work_dtype,
)
from strobe.kernels.delta.reference import DeltaCarry, DeltaSignals, reference
from strobe.kernels.scan import Segment

_CHUNK = 32


def chunked(signals: DeltaSignals, carry: DeltaCarry, positions: list[int], readers: Tensor | None) -> Segment:
    """The `chunked` backend; see `strobe.kernels.scan.Backend`. One token is one step of the definition."""
    if signals.v.shape[1] == 1:
        return reference(signals, carry, positions, readers)
    with torch.autocast(signals.v.device.type, enabled=False):
        return _run(signals, carry, positions, readers)


def _run(signals: DeltaSignals, carry: DeltaCarry, positions: list[int], readers: Tensor | None) -> Segment:
    time, heads, size = signals.v.shape[1], signals.v.shape[2], signals.v.shape[3]
    dtype = work_dtype(carry.S, signals.v)
    chunk = chunk_length(time, _CHUNK)

    def cut(x: Tensor) -> Tensor:
        return to_chunks(to_heads(x, heads), chunk, dtype).transpose(2, 3)  # [batch, n, heads, chunk, key]

    rows = [cut(signals.b), cut(signals.q)]
    if readers is not None:
        u = reader_rows(readers, heads, dtype).unsqueeze(2)
        rows += [x.expand_as(rows[0]) for x in u]
    x = torch.stack(rows, 3)  # [batch, n, heads, rows, chunk, key]
    v = cut(signals.v)
    writes = [cut(w) for w in (signals.a, signals.k) if w is not None]
    y = torch.stack(writes, 3)  # [batch, n, heads, writes, chunk, key]
    rule = signals.a is None

    log_decay = to_chunks(signals.log_decay, chunk, dtype).transpose(2, 3)
    cumulated = cumulate(log_decay, 3, dtype)  # [batch, n, heads, chunk] or [batch, n, heads, chunk, key]
    if cumulated.ndim == 4:
        gram = (x.flatten(3, 4) @ y.flatten(3, 4).mT).unflatten(-1, y.shape[3:5]).unflatten(-3, x.shape[3:5])
        gram = gram.transpose(-3, -2) * pairwise_decay(cumulated, dtype)[..., None, None, :, :]
        cumulated = cumulated.unsqueeze(-1)
    else:
        gram = decayed_gram(x, y, cumulated)  # [batch, n, heads, rows, writes, chunk, chunk]
    from_start = x * cumulated.to(dtype).exp().unsqueeze(3)
    to_end = y * (cumulated[..., -1:, :] - cumulated).to(dtype).exp().unsqueeze(3)

    known = v if rule else gram[..., 0, 1, :, :].tril(-1) @ v
    right = torch.cat([known, -from_start[..., 0, :, :] if rule else from_start[..., 0, :, :]], -1)
    system = gram[..., 0, 0, :, :] if rule else -gram[..., 0, 0, :, :]
    solved = torch.linalg.solve_triangular(system, right, upper=False, unitriangular=True)  # [..., chunk, value + key]

    affine = to_end[..., 0, :, :].mT @ solved
    shift, matrix = affine[..., :size], affine[..., size:]
    if not rule:
        shift = shift + to_end[..., 1, :, :].mT @ v
    matrix = matrix + torch.diag_embed(cumulated[..., -1, :].to(dtype).exp().expand(*matrix.shape[:-1]))
    S = carry.S.to(dtype)
    starts = []
    for step, write in zip(matrix.unbind(1), shift.unbind(1), strict=True):
        starts.append(S)
        S = write + step @ S
    start = torch.stack(starts, 1)

    inner = gram[..., 1:, 0, :, :].flatten(3, 4) @ solved
    query = from_start[..., 1:, :, :].flatten(3, 4) + inner[..., size:]
    reads = inner[..., :size] + query @ start
    if not rule:
        reads = reads + gram[..., 1:, 1, :, :].flatten(3, 4) @ v
    reads = reads.unflatten(3, (-1, chunk)).permute(0, 1, 4, 3, 2, 5).flatten(1, 2)[:, :time]

    captured = None
    if positions:
        which, here = locate(positions, chunk, v.device)
        at = cumulated.transpose(2, 3)[:, which, here].unsqueeze(3)  # [batch, points, heads, 1, key or 1]
        weight = (at - cumulated[:, which]).to(dtype)
        weight = weight.masked_fill(after(here, chunk)[:, None, :, None], -torch.inf).exp()
        part, begin = solved[:, which], start[:, which]
        values = part[..., :size] + part[..., size:] @ begin
        S_at = (y[:, which, :, 0] * weight).mT @ values + at.to(dtype).exp().mT * begin
        if not rule:
            S_at = S_at + (y[:, which, :, 1] * weight).mT @ v[:, which]
        captured = DeltaCarry(S_at)
    return Segment(reads[:, :, 0], DeltaCarry(S), captured, None if readers is None else reads[:, :, 1:])
