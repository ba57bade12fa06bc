"""The forward kernels: the inverse of each chunk's triangular system, and the scan over chunks.

Inside a chunk that begins with the carry S, with (x|y) of `algebra`, G the cumulated log decay and C the chunk's last
token (Yang et al., 2024, arXiv:2406.06484, sec. 3, and arXiv:2412.06464, sec. 3.3; `strobe.kernels.delta.chunked`):

    W = (1 - (b|a)_<)^{-1} ((b|k)_< V + e^G b S)          what the decayed memory answers to b; U = V - W for a = -k
    y = (q|a) W + (q|k) V + e^G q S
    S = e^{G_C} S + (e^{G_C - G} a)^T W + (e^{G_C - G} k)^T V

The carry at a position inside a chunk is the last line with the chunk cut short there; a chunk ends at every edit.
Arguments are given to both kernels by `plan` and `operator`; shapes are in the latter.
"""

from typing import no_type_check

import triton
import triton.language as tl

from strobe.kernels.triton_matrix.algebra import (
    asked_of,
    causal_dot,
    cumulated,
    dot,
    gram,
    load_tile,
    pair_decay,
    store_tile,
    written_by,
)


@triton.jit
@no_type_check
def tokens_of(i, base, length, CUTS, CUT: tl.constexpr, CHUNK: tl.constexpr):
    """Row of chunk i's first token in the token axis (int64), which of CHUNK rows are its own, and its first token."""
    if CUT:
        start = tl.load(CUTS + 2 * i)
        stop = tl.minimum(tl.load(CUTS + 2 * i + 1), length)
    else:
        start = i * CHUNK
        stop = tl.minimum(start + CHUNK, length)
    return (base + start).to(tl.int64), start + tl.arange(0, CHUNK) < stop, start


@triton.jit
@no_type_check
def load_decay(
    G, row, ok, head, HEADS: tl.constexpr, KEY: tl.constexpr, CHANNEL: tl.constexpr, BLOCK_KEY: tl.constexpr
):
    """Log decays of the chunk's tokens and of the token after each, float32 [chunk, key or 1], 0 outside the chunk."""
    size: tl.constexpr = KEY if CHANNEL else 1
    cols = tl.arange(0, BLOCK_KEY if CHANNEL else 1)
    g = load_tile(G, row, ok, head, HEADS, cols, size).to(tl.float32)
    t = tl.arange(0, ok.shape[0])
    # A chunk's tokens come first: the last of them is where the count of the others ends.
    last = tl.sum(ok.to(tl.int32), 0) - 1
    return g, load_tile(G, row + 1, t < last, head, HEADS, cols, size).to(tl.float32)


@triton.jit
@no_type_check
def inverse_kernel(
    K, G, A, B, INVERSE, CU, CUTS, n_chunks,
    HEADS: tl.constexpr, HEADS_K: tl.constexpr, HEADS_B: tl.constexpr, KEY: tl.constexpr,
    RANK: tl.constexpr, CHANNEL: tl.constexpr, CUT: tl.constexpr,
    CHUNK: tl.constexpr, BLOCK_KEY: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """(1 - (b|a)_<)^{-1} of each chunk, [sequence, head, chunk, CHUNK, CHUNK]; grid (sequences * HEADS * n_chunks)."""
    unit, i = tl.program_id(0) // n_chunks, tl.program_id(0) % n_chunks
    n, head = unit // HEADS, unit % HEADS
    base = tl.load(CU + n)
    row, ok, _ = tokens_of(i, base, tl.load(CU + n + 1) - base, CUTS, CUT, CHUNK)
    cols, t = tl.arange(0, BLOCK_KEY), tl.arange(0, CHUNK)
    b = load_tile(B, row, ok, head // (HEADS // HEADS_B), HEADS_B, cols, KEY)
    if RANK == 2:
        erase = load_tile(A, row, ok, head, HEADS, cols, KEY)
    else:
        erase = -load_tile(K, row, ok, head // (HEADS // HEADS_K), HEADS_K, cols, KEY)
    g, g_next = load_decay(G, row, ok, head, HEADS, KEY, CHANNEL, BLOCK_KEY)
    pairs = 0.0 if CHANNEL else pair_decay(g, CHUNK)
    system = gram(b, erase, g, g_next, pairs, CHANNEL, CHUNK, OPERAND, PRECISION)
    system = tl.where(t[:, None] > t[None, :], system, 0.0)

    bad = tl.max(((tl.abs(system) < float("inf")) == 0).to(tl.int32), 1)
    first = tl.min(tl.where(bad > 0, t, CHUNK), 0)
    system = tl.where((bad > 0)[:, None], 0.0, system)
    # Two inverted halves of a block give the block's: [[X, 0], [Y L X, Y]]. No power of the system is taken, whose
    # entries would grow as binomial coefficients and cancel.
    inverse = tl.where(t[:, None] == t[None, :], 1.0, 0.0)
    for level in tl.static_range(8):
        if (1 << level) < CHUNK:
            block = t >> (level + 1)
            late = (t & (1 << level)) != 0
            between = (block[:, None] == block[None, :]) & late[:, None] & (late[None, :] == 0)
            joined = dot(tl.where(between, system, 0.0), inverse, tl.float32, EXACT)
            inverse += dot(inverse, joined, tl.float32, EXACT)
    inverse = tl.where((t >= first)[:, None], float("nan"), inverse)
    place = (unit * n_chunks + i).to(tl.int64) * CHUNK * CHUNK
    tl.store(INVERSE + place + t[:, None] * CHUNK + t[None, :], inverse)


@triton.jit
@no_type_check
def scan_kernel(
    Q, K, V, G, A, B, INVERSE, S_FIRST, READERS, VALUES, KINDS, CU, CUTS, LOOKS,
    Y, S_LAST, CAPTURED, ANSWERS, STARTS,
    n_chunks, n_readers, n_captured,
    HEADS: tl.constexpr, HEADS_Q: tl.constexpr, HEADS_K: tl.constexpr, HEADS_B: tl.constexpr,
    KEY: tl.constexpr, VALUE: tl.constexpr,
    RANK: tl.constexpr, CHANNEL: tl.constexpr, CUT: tl.constexpr, CAPTURE: tl.constexpr, EDIT: tl.constexpr,
    READ: tl.constexpr, KEEP: tl.constexpr,
    CHUNK: tl.constexpr, BLOCK_KEY: tl.constexpr, BLOCK_VALUE: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr, EXACT: tl.constexpr,
):  # fmt: skip
    """Reads, captured carries, readers' answers; grid (sequences * HEADS, value blocks), sequential over chunks.

    LOOKS [n_chunks, 5] has for each chunk the captured positions inside it (from, to), the capture at its end (-1:
    none) and the edits at its end (from, to); the captured positions' own list follows it.
    """
    unit = tl.program_id(0)
    n, head = unit // HEADS, unit % HEADS
    base = tl.load(CU + n)
    length = tl.load(CU + n + 1) - base
    keys, t = tl.arange(0, BLOCK_KEY), tl.arange(0, CHUNK)
    values = tl.program_id(1) * BLOCK_VALUE + tl.arange(0, BLOCK_VALUE)
    in_carry = (keys < KEY)[:, None] & (values < VALUE)[None, :]
    carry_at = keys[:, None] * VALUE + values[None, :]
    size = KEY * VALUE
    S = tl.load(S_FIRST + unit.to(tl.int64) * size + carry_at, mask=in_carry, other=0).to(tl.float32)

    for i in range(n_chunks):
        row, ok, start = tokens_of(i, base, length, CUTS, CUT, CHUNK)
        if KEEP:
            kept = STARTS + (unit * n_chunks + i).to(tl.int64) * size + carry_at
            tl.store(kept, S.to(STARTS.dtype.element_ty), mask=in_carry)
        k = load_tile(K, row, ok, head // (HEADS // HEADS_K), HEADS_K, keys, KEY)
        v = load_tile(V, row, ok, head, HEADS, values, VALUE)
        g, g_next = load_decay(G, row, ok, head, HEADS, KEY, CHANNEL, BLOCK_KEY)
        from_start = tl.exp(cumulated(g, RANK, CHANNEL, False))
        to_end = tl.exp(cumulated(g_next, RANK, CHANNEL, True))
        pairs = 0.0 if CHANNEL else pair_decay(g, CHUNK)

        # `a` and `answered` are the write that erases; for the delta rule there is one write, k_t u_t^T.
        a, answered, written = k, v, v
        if RANK > 0:
            b = load_tile(B, row, ok, head // (HEADS // HEADS_B), HEADS_B, keys, KEY)
            place = INVERSE + (unit * n_chunks + i).to(tl.int64) * CHUNK * CHUNK
            inverse = tl.load(place + t[:, None] * CHUNK + t[None, :])
            asked = asked_of(b, S, from_start, CHANNEL, OPERAND, PRECISION)
            if RANK == 1:
                written = causal_dot(inverse, v - asked, False, CHUNK, tl.float32, EXACT)
            else:
                a = load_tile(A, row, ok, head, HEADS, keys, KEY)
                known = gram(b, k, g, g_next, pairs, CHANNEL, CHUNK, OPERAND, PRECISION)
                known = tl.where(t[:, None] > t[None, :], known, 0.0)
                asked += causal_dot(known, v, True, CHUNK, OPERAND, PRECISION)
                answered = causal_dot(inverse, asked, False, CHUNK, tl.float32, EXACT)

        q = load_tile(Q, row, ok, head // (HEADS // HEADS_Q), HEADS_Q, keys, KEY)
        y = _read(q, k, a, written, answered, S, g, g_next, from_start, pairs, RANK, CHANNEL, CHUNK, OPERAND, PRECISION)
        store_tile(Y, y, row, ok, head, HEADS, values, VALUE)
        if READ:
            for r in range(n_readers):
                u = tl.load(READERS + (r * HEADS + head) * KEY + keys, mask=keys < KEY, other=0).to(tl.float32)
                u = tl.broadcast_to(u[None, :], (CHUNK, BLOCK_KEY))
                y = _read(
                    u,
                    k,
                    a,
                    written,
                    answered,
                    S,
                    g,
                    g_next,
                    from_start,
                    pairs,
                    RANK,
                    CHANNEL,
                    CHUNK,
                    OPERAND,
                    PRECISION,
                )
                at = (row * n_readers + r) * HEADS + head
                at = ANSWERS + at * VALUE + t[:, None] * (n_readers * HEADS * VALUE) + values[None, :]
                tl.store(at, y, mask=ok[:, None] & (values < VALUE)[None, :])

        if CAPTURE:
            inside = tl.load(LOOKS + 5 * i)
            end = tl.load(LOOKS + 5 * i + 1)
            while inside < end:
                here = tl.load(LOOKS + 5 * n_chunks + inside) - start
                upto = (t <= here)[:, None]
                weight = tl.exp(cumulated(tl.where((t < here)[:, None], g_next, 0.0), RANK, CHANNEL, True))
                there = tl.exp(tl.sum(tl.where(upto, g, 0.0), 0))[:, None] * S
                earlier = tl.where(upto, written, 0.0)
                there += written_by(tl.where(upto, k, 0.0), earlier, weight, CHANNEL, OPERAND, PRECISION)
                if RANK == 2:
                    earlier = tl.where(upto, answered, 0.0)
                    there += written_by(tl.where(upto, a, 0.0), earlier, weight, CHANNEL, OPERAND, PRECISION)
                at = CAPTURED + (n * n_captured + inside).to(tl.int64) * HEADS * size + head * size + carry_at
                tl.store(at, there, mask=in_carry)
                inside += 1

        S = tl.exp(tl.sum(g, 0))[:, None] * S + written_by(k, written, to_end, CHANNEL, OPERAND, PRECISION)
        if RANK == 2:
            S += written_by(a, answered, to_end, CHANNEL, OPERAND, PRECISION)
        if EDIT:
            e = tl.load(LOOKS + 5 * i + 3)
            end = tl.load(LOOKS + 5 * i + 4)
            while e < end:
                kind = tl.load(KINDS + e * HEADS + head)
                at = VALUES + ((e * (tl.num_programs(0) // HEADS) + n) * HEADS + head).to(tl.int64) * size + carry_at
                x = tl.load(at, mask=in_carry, other=0).to(tl.float32)
                S = _edited(S, x, kind)
                e += 1
        if CAPTURE:
            at_end = tl.load(LOOKS + 5 * i + 2)
            if at_end >= 0:
                at = CAPTURED + (n * n_captured + at_end).to(tl.int64) * HEADS * size + head * size + carry_at
                tl.store(at, S, mask=in_carry)
    tl.store(S_LAST + unit.to(tl.int64) * size + carry_at, S, mask=in_carry)


@triton.jit
@no_type_check
def _read(
    x, k, a, written, answered, S, g, g_next, from_start, PAIRS,
    RANK: tl.constexpr, CHANNEL: tl.constexpr, CHUNK: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What the queries x [chunk, key] read: [chunk, value]."""
    y = causal_dot(
        gram(x, k, g, g_next, PAIRS, CHANNEL, CHUNK, OPERAND, PRECISION), written, False, CHUNK, OPERAND, PRECISION
    )
    if RANK == 2:
        scores = gram(x, a, g, g_next, PAIRS, CHANNEL, CHUNK, OPERAND, PRECISION)
        y += causal_dot(scores, answered, False, CHUNK, OPERAND, PRECISION)
    return y + asked_of(x, S, from_start, CHANNEL, OPERAND, PRECISION)


@triton.jit
@no_type_check
def _edited(S, x, kind):
    """S after an edit: 0 none, 1 set, 2 add, 3 scale, 4 project out the unit direction x[:, v] over the keys."""
    out = tl.where(kind == 1, x, S)
    out = tl.where(kind == 2, S + x, out)
    out = tl.where(kind == 3, S * x, out)
    return tl.where(kind == 4, S - x * tl.sum(x * S, 0)[None, :], out)
