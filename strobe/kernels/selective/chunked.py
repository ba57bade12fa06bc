"""The selective scan for a whole sequence: blocks of tokens whose states live in one reused buffer, never all at once.

Inside a block the decays and writes of all tokens are made at once and the recurrence overwrites the writes with the
states, [block, batch, state, channels] with channels last, so that every operation runs along contiguous channels.
A captured carry is a row of that buffer. Reads are a product with C_t, to which constant readers are appended.

The backward pass keeps the state at each block's start and makes a block's states again when it gets there. It needs
batch * channels * state * (time / block + 2 block) numbers, and is exact; there is no second derivative.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from strobe.kernels.chunks import work_dtype
from strobe.kernels.scan import Segment
from strobe.kernels.selective.reference import SelectiveCarry, SelectiveSignals, step

# Bytes of one block's states: two such buffers stay in a core's cache. Measured; flat from half to twice this.
BLOCK_BYTES = 512 * 1024


def run(signals: SelectiveSignals, carry: SelectiveCarry, positions: list[int], readers: Tensor | None) -> Segment:
    """Backend of the family; see `strobe.kernels.selective.reference` for shapes."""
    per_channel = readers is not None and readers.ndim == 3
    if signals.x.shape[1] == 1 and readers is None:
        return _one_token(signals, carry, positions)
    dtype = work_dtype(*signals)
    # Channels-first models hand over transposes: each channel is read `state` times, so copy once.
    x, delta, B, C, A = (s.to(dtype).contiguous() for s in signals)
    queries = C.unsqueeze(2)
    if readers is not None and not per_channel:
        readers = readers.to(dtype)
        queries = torch.cat([queries, readers.expand(*C.shape[:2], *readers.shape)], 2)
    probes = readers.to(dtype).mT if readers is not None and per_channel else A.new_zeros(0, *A.T.shape)
    h0 = carry.h.to(dtype).mT
    with torch.autocast(x.device.type, enabled=False):
        reads, probed, end, captured = _SelectiveScan.apply(x, delta, B, queries, A.T, h0, probes, tuple(positions))
    answers = None if readers is None else probed if per_channel else reads[:, :, 1:]
    return Segment(
        read=reads[:, :, 0],
        carry=SelectiveCarry(end.mT),
        captured=SelectiveCarry(captured.mT) if positions else None,
        readers=answers,
    )


def _one_token(signals: SelectiveSignals, carry: SelectiveCarry, positions: list[int]) -> Segment:
    token = type(signals)(*(s[:, 0] for s in signals[:4]), A=signals.A)
    carry, read = step(token, carry)
    return Segment(read.unsqueeze(1), carry, SelectiveCarry(carry.h.unsqueeze(1)) if positions else None, None)


def _block_length(h0: Tensor, time: int) -> int:
    return max(1, min(time, BLOCK_BYTES // max(h0.numel() * h0.element_size(), 1)))


class _Block:
    """The decays and states of one block of tokens, [block, batch, state, channels], in buffers that the next block
    overwrites; with them a view of each token's, made once."""

    def __init__(self, length: int, h0: Tensor) -> None:
        self.decay, self.states = h0.new_empty(length, *h0.shape), h0.new_empty(length, *h0.shape)
        self._tokens = list(zip(self.decay.unbind(0), self.states.unbind(0), strict=True))

    def fill(self, write: Tensor, delta: Tensor, B: Tensor, A: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Decays and states of the tokens given: `write` (delta x) and `delta` [block, batch, 1, channels]; `B` [block,
        batch, state, 1]; `A` [state, channels]; `h` before the block. The last block may be shorter."""
        n = len(delta)
        decay, states, tokens = self.decay, self.states, self._tokens
        if n < len(tokens):
            decay, states, tokens = decay[:n], states[:n], tokens[:n]
        torch.mul(delta, A, out=decay).exp_()
        torch.mul(write, B, out=states)
        for decay_t, state_t in tokens:
            h = state_t.addcmul_(decay_t, h)
        return decay, states


class _SelectiveScan(torch.autograd.Function):
    """(x, delta, B, queries [batch, time, n, state], A [state, channels], h0 [batch, state, channels], probes
    [n, state, channels], positions) -> reads [batch, time, n, channels], probed, the last h and the captured h."""

    @staticmethod
    def forward(ctx, x, delta, B, queries, A, h0, probes, positions):
        batch, time, channels = x.shape
        length = _block_length(h0, time)
        reads = x.new_empty(time, batch, queries.shape[2], channels)
        probed = x.new_empty(batch, time, probes.shape[0], channels)
        captured = x.new_empty(batch, len(positions), *A.shape)
        starts, differentiable = [], any(ctx.needs_input_grad)
        h, A = h0.contiguous(), A.contiguous()
        block = _Block(length, h)
        # Views of all blocks are made at once: one by one they cost as much as a sixth of the recurrence.
        given = (delta * x).unsqueeze(2), delta.unsqueeze(2), B.unsqueeze(3)
        pieces = zip(*(s.transpose(0, 1).split(length) for s in given), strict=True)
        rows = zip(*(s.flatten(0, 1).split(length * batch) for s in (queries.transpose(0, 1), reads)), strict=True)
        blocks = zip(range(0, time, length), pieces, rows, strict=True)
        for start, (write_t, delta_t, B_t), (queries_t, reads_t) in blocks:
            if differentiable:
                starts.append(h)
            states = block.fill(write_t, delta_t, B_t, A, h)[1]
            h = states[-1].clone()
            torch.bmm(queries_t, states.flatten(0, 1), out=reads_t)
            if probes.shape[0]:
                probed[:, start : start + length] = torch.einsum("lbnd,rnd->blrd", states, probes)
            for n, position in enumerate(positions):
                if start <= position < start + length:
                    captured[:, n] = states[position - start]
        ctx.save_for_backward(x, delta, B, queries, A, probes, *starts)
        ctx.positions, ctx.length = positions, length
        return reads.transpose(0, 1), probed, h, captured

    @staticmethod
    @once_differentiable
    def backward(ctx, d_reads, d_probed, d_end, d_captured):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, delta, B, queries, A, probes, *starts = ctx.saved_tensors
        d_x, d_delta, d_B, d_queries = (torch.empty_like(s) for s in (x, delta, B, queries))
        d_A, d_probes, d_h = torch.zeros_like(A), torch.zeros_like(probes), d_end.clone()
        block = _Block(ctx.length, d_h)
        for index in reversed(range(len(starts))):
            start = index * ctx.length
            here = slice(start, start + ctx.length)
            x_t, delta_t, B_t, queries_t, d_reads_t = (
                s[:, here].transpose(0, 1) for s in (x, delta, B, queries, d_reads)
            )
            write_t = (delta_t * x_t).unsqueeze(2)
            decay, h = block.fill(write_t, delta_t.unsqueeze(2), B_t.unsqueeze(3), A, starts[index])
            d_states = queries_t.mT @ d_reads_t
            if probes.shape[0]:
                d_probed_t = d_probed[:, here].transpose(0, 1)
                d_states += torch.einsum("lbrd,rnd->lbnd", d_probed_t, probes)
                d_probes += torch.einsum("lbrd,lbnd->rnd", d_probed_t, h)
            for n, position in enumerate(ctx.positions):
                if start <= position < start + ctx.length:
                    d_states[position - start] += d_captured[:, n]
            # From here d_states[t] is dL/dh_t over all paths, and d_h the part that reaches the block from later ones.
            for d_state, decay_t in zip(reversed(d_states.unbind(0)), reversed(decay.unbind(0)), strict=True):
                d_h = d_state.add_(d_h) * decay_t
            d_queries[:, here] = (d_reads_t @ h.mT).transpose(0, 1)
            write = d_states.mul(B_t.unsqueeze(3)).sum(2)
            d_B[:, here] = (d_states @ write_t.mT).squeeze(3).transpose(0, 1)
            d_x[:, here] = (write * delta_t).transpose(0, 1)
            previous = torch.cat([starts[index].unsqueeze(0), h[:-1]])
            d_log = d_states.mul_(previous).mul_(decay)
            d_A += torch.einsum("lbnd,lbd->nd", d_log, delta_t)
            d_delta[:, here] = (write * x_t + d_log.mul_(A).sum(2)).transpose(0, 1)
        return d_x, d_delta, d_B, d_queries, d_A, d_h, d_probes, None
