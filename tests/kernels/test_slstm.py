"""Oracle: the recurrence of Beck et al. 2024 without the stabiliser, e^i~ as it stands, in float64 where that still
fits; for what it does not fit, the same in logarithms."""

import pytest
import torch

from strobe.core.tolerances import assert_close
from strobe.kernels import scan
from strobe.kernels.rnn import SLSTM, SLSTMCarry, SLSTMSignals, slstm_trace
from strobe.kernels.rnn.slstm import random_signals

BACKENDS = ["reference", "chunked"]
backends = pytest.mark.parametrize("backend", BACKENDS)


def problem(time=40, heads=2, dtype=torch.float64, strength=2.0):
    signals = random_signals(2, time, dtype=dtype, hidden=6, heads=heads)
    return signals._replace(W=strength * signals.W, R=strength * signals.R)


def unstabilised(s, carry):
    """Eqs. 8-14 with log-scale zero: (reads, and c, n of every token), each [batch, time, hidden]; gates too."""
    dim, hidden = s.R.shape[1], s.R.shape[0] // 4
    R = [torch.block_diag(*gate.split(dim)) for gate in s.R.split(hidden)]
    W, b = s.W.split(hidden), s.b.split(hidden)
    h, c, n = carry.h, carry.c * carry.m.exp(), carry.n * carry.m.exp()
    kept = []
    for t in range(s.x.shape[1]):
        i, f, z, o = (s.x[:, t] @ W[k].T + b[k] + h @ R[k].T for k in range(4))
        i, f, z, o = i.exp(), 1 / (1 + (-f).exp()), torch.tanh(z), 1 / (1 + (-o).exp())
        c, n = f * c + i * z, f * n + i
        h = o * c / n
        kept.append((h, c, n, i, f, z, o))
    return [torch.stack(column, 1) for column in zip(*kept, strict=True)]


def started(s):
    """A carry in the middle of a sequence, of the fields' own kinds: n positive, m of either sign."""
    generator = torch.Generator().manual_seed(4)
    h, c, n, m = torch.randn(4, *s.x.shape[:1], s.R.shape[0] // 4, generator=generator, dtype=torch.float64)
    return SLSTMCarry(h, c, 1 + n.abs(), 2 * m)


@backends
@pytest.mark.parametrize("heads", [1, 2, 3])
def test_equals_the_recurrence_without_its_stabiliser(backend, heads):
    s = problem(heads=heads)
    for carry in (started(s), None):
        result = scan(SLSTM, s, carry, capture="all", backend=backend)
        begun = carry or SLSTMCarry(*(torch.zeros(2, 6, dtype=torch.float64) for _ in range(4)))
        h, c, n, *_ = unstabilised(s, begun)
        assert_close(result.read, h, kind="scan")
        assert_close(result.captured.c * result.captured.m.exp(), c, kind="scan")
        assert_close(result.captured.n * result.captured.m.exp(), n, kind="scan")
        # The stabiliser is what it says: the largest of the logarithms, so that c and n neither grow nor vanish.
        assert (result.captured.n >= 1 - 1e-12).all()


@backends
def test_gradients_equal_those_without_the_stabiliser(backend):
    s = problem(time=15)
    found = []
    for stabilised in (True, False):
        leaves = [x.detach().clone().requires_grad_() for x in (*s[:4], *started(s))]
        signals, carry = SLSTMSignals(*leaves[:4]), SLSTMCarry(*leaves[4:])
        if stabilised:
            result = scan(SLSTM, signals, carry, capture="all", backend=backend)
            h, c, n = result.read, *(x * result.captured.m.exp() for x in result.captured[1:3])
        else:
            h, c, n, *_ = unstabilised(signals, carry)
        ramp = torch.linspace(-1, 1, h.numel(), dtype=h.dtype).reshape(h.shape)
        found.append(torch.autograd.grad((h * ramp).sum() + ((c * ramp).sum() + n.sum()) / n.detach().max(), leaves))
    for ours, theirs in zip(*found, strict=True):
        assert theirs.abs().max() > 0
        assert_close(ours, theirs, kind="scan")


def test_the_trace_equals_the_recurrence_without_its_stabiliser():
    s = problem(time=64)
    carry = started(s)
    result = scan(SLSTM, s, carry, capture="all")
    trace = slstm_trace(s, carry, result.read)
    _, c, n, i, f, z, o = unstabilised(s, carry)
    before = torch.cat([carry.m.unsqueeze(1), trace.m[:, :-1]], 1)
    for ours, theirs in [
        (trace.c * trace.m.exp(), c),
        (trace.n * trace.m.exp(), n),
        (trace.i * trace.m.exp(), i),
        (trace.f * (trace.m - before).exp(), f),
        (trace.z, z),
        (trace.o, o),
        *zip((trace.h, trace.c, trace.n, trace.m), result.captured, strict=True),
    ]:
        assert_close(ours, theirs, kind="scan")
    assert (torch.maximum(trace.i, trace.f) == 1).all()


def test_the_trace_holds_at_padding():
    s = problem(time=9)
    mask = torch.tensor([[0, 1, 1, 0, 1, 0, 0, 1, 1], [0] * 9]).bool()
    for carry in (started(s), SLSTM.init_carry(s)):
        result = scan(SLSTM, s, carry, mask=mask, capture="all")
        trace = slstm_trace(s._replace(mask=mask), carry, result.read)
        assert (trace.i[~mask] == 0).all() and (trace.f[~mask] == 1).all()
        assert trace.z[~mask].isnan().all() and trace.o[~mask].isnan().all()
        assert not trace.z[mask].isnan().any()
        for name in ("c", "n", "m", "h"):
            assert_close(getattr(trace, name)[0], getattr(result.captured, name)[0], kind="scan")
            assert torch.equal(getattr(result.captured, name)[1, -1], getattr(carry, name)[1])
            held = getattr(trace, name)[1]
            assert torch.equal(held, getattr(carry, name)[1].expand_as(held))


def large(size, dtype, time=30):
    """i~ about `size` at every token, f~ about 2, so that a sum of e^i~ leaves float32 where size is 100."""
    s = problem(time=time, dtype=dtype, strength=1.0)
    b = s.b.clone()
    b[:6], b[6:12] = size, 2
    return s._replace(b=b)


@backends
@pytest.mark.parametrize("size", [100.0, -100.0])
def test_an_exponential_that_float32_does_not_hold(backend, size):
    # float32 rounds i~ itself, by up to 4e-6 at 100, and e^i~ by as much: the problem is that of the rounded numbers,
    # so what is compared is h, in which a common factor of i cancels.
    s = large(size, torch.float32)
    exact = SLSTMSignals(*(None if x is None else x.double() for x in s))
    begun = SLSTMCarry(*(torch.zeros(2, 6, dtype=torch.float64) for _ in range(4)))
    result = scan(SLSTM, s, backend=backend)
    h, *_ = unstabilised(exact, begun)
    assert torch.exp(torch.tensor(size)).item() in (float("inf"), 0.0) or size < 0
    assert result.read.isfinite().all()
    torch.testing.assert_close(result.read.double(), h, rtol=0, atol=3e-5)


@backends
def test_a_gate_that_float64_does_not_hold(backend):
    """i~ = 800, -800, 900: e^i~ is infinite or zero, and what is left is the token that won."""
    x = torch.tensor([[800.0, -800.0, 900.0, -900.0]], dtype=torch.float64).unsqueeze(-1)
    W, R = torch.tensor([[1.0], [0], [0], [0]], dtype=torch.float64), torch.zeros(4, 1, dtype=torch.float64)
    b = torch.tensor([0.0, 1.0, 0.5, 0.0], dtype=torch.float64)
    result = scan(SLSTM, SLSTMSignals(x, W, R, b), capture="all", backend=backend)
    log_f = torch.tensor(1.0, dtype=torch.float64).sigmoid().log()
    m = torch.stack([torch.tensor(800.0), 800 + log_f, torch.tensor(900.0), 900 + log_f]).double()
    torch.testing.assert_close(result.captured.m[0, :, 0], m, rtol=0, atol=1e-12)
    torch.testing.assert_close(result.read[0, :, 0], torch.full_like(m, 0.5 * torch.tanh(b[2]).item()))
    assert torch.equal(result.captured.n[0, :, 0], torch.ones_like(m))


def test_the_carry_before_the_first_token_weighs_nothing_in_any_dtype():
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        s = problem(time=3, dtype=dtype)
        s = s._replace(b=torch.cat([s.b[:6] - 200, s.b[6:]]))
        result = scan(SLSTM, s, capture=[0])
        assert torch.equal(result.captured.n[:, 0], torch.ones_like(result.captured.n[:, 0]))
        assert result.read.isfinite().all()


def test_readers_in_the_dtype_of_the_signals_answer_in_the_carry_s():
    s = problem(time=3, dtype=torch.bfloat16)
    u = torch.eye(6, dtype=torch.bfloat16)[[4, 0]]
    result = scan(SLSTM, s, readers=u)
    assert torch.equal(result.readers, result.read[..., [4, 0]])


def test_heads_that_do_not_divide_the_rows_are_refused():
    s = problem()
    with pytest.raises(ValueError, match=r"R of shape 24 x 4 was given for 4 gates.*multiple of 16"):
        scan(SLSTM, s._replace(R=torch.zeros(24, 4, dtype=torch.float64)))
