"""Oracle: transformers' torch scan of Mamba-1 in float32, and the recurrence entry by entry in float64."""

import inspect

import pytest
import torch

from strobe.kernels import scan
from strobe.kernels.linear import effective_attention, transition
from strobe.kernels.selective import SELECTIVE, SelectiveCarry, chunked
from strobe.kernels.selective.reference import random_signals

BACKENDS = ["reference", "chunked"]
# Largest difference seen: float64 3e-15, float32 1e-6 for reads of size up to 10.
ATOL = {torch.float64: 2e-14, torch.float32: 5e-6}


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch):
    """Blocks of three tokens or so, so that every test crosses several."""
    monkeypatch.setattr(chunked, "BLOCK_BYTES", 1000)


def random_carry(signals, seed=5):
    generator = torch.Generator().manual_seed(seed)
    shape = signals.x.shape[0], *signals.A.shape
    return SelectiveCarry(torch.randn(shape, generator=generator, dtype=torch.float64).to(signals.x.dtype))


def one_by_one(signals, carry):
    """Every state [batch, time, channels, state], in float64, entry by entry."""
    x, delta, B, _, A = (s.double() for s in signals)
    h = torch.empty(*x.shape, A.shape[1], dtype=torch.float64)
    for c in range(A.shape[0]):
        for n in range(A.shape[1]):
            entry = carry.h[:, c, n].double()
            for t in range(x.shape[1]):
                entry = torch.exp(delta[:, t, c] * A[c, n]) * entry + delta[:, t, c] * x[:, t, c] * B[:, t, n]
                h[:, t, c, n] = entry
    return h


@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_the_scan_of_transformers(backend):
    from transformers.models.mamba.modeling_mamba import mamba_selective_scan

    s = random_signals(2, 33)
    theirs = inspect.unwrap(mamba_selective_scan)
    expected, last = theirs(s.x.mT, s.delta.mT, s.A, s.B.mT, s.C.mT, return_last_state=True)
    result = scan(SELECTIVE, s, backend=backend)
    torch.testing.assert_close(result.read, expected.mT, rtol=0, atol=ATOL[torch.float32])
    torch.testing.assert_close(result.carry.h, last, rtol=0, atol=ATOL[torch.float32])


@pytest.mark.parametrize("dtype", ATOL, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("time", [1, 2, 17])
def test_reads_carries_and_readers_equal_the_entries_one_by_one(backend, dtype, time):
    s = random_signals(2, time, dtype=dtype)
    carry = random_carry(s)
    h = one_by_one(s, carry)
    shared = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    own = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1)).to(dtype)
    expected = (h * s.C.double().unsqueeze(2)).sum(-1)
    for readers in (None, shared, own):
        result = scan(SELECTIVE, s, carry, capture="all", readers=readers, backend=backend)
        for ours, theirs in ((result.read, expected), (result.captured.h, h), (result.carry.h, h[:, -1])):
            torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=ATOL[dtype])
        if readers is not None:
            spread = readers.double() if readers.ndim == 3 else readers.double()[:, None].expand(3, 5, 4)
            answers = torch.einsum("btcn,rcn->btrc", h, spread)
            torch.testing.assert_close(result.readers.double(), answers, rtol=0, atol=ATOL[dtype])


def test_a_few_captures_are_rows_of_all():
    s = random_signals(2, 20, dtype=torch.float64)
    every = scan(SELECTIVE, s, capture="all").captured.h
    some = scan(SELECTIVE, s, capture=[-1, 4, 11, 4]).captured.h
    assert torch.equal(some, every[:, [19, 4, 11, 4]])


@pytest.mark.parametrize("kind", ["none", "shared", "own"])
def test_gradients_are_exact(kind, monkeypatch):
    monkeypatch.setattr(chunked, "BLOCK_BYTES", 300)
    s = random_signals(2, 7, dtype=torch.float64, channels=3, state=2)
    readers = {"none": (), "shared": (torch.randn(2, 2).double(),), "own": (torch.randn(2, 3, 2).double(),)}[kind]

    def run(*tensors):
        signals, h, rest = type(s)(*tensors[:5]), tensors[5], tensors[6:]
        given = rest[0] if rest else None
        result = scan(SELECTIVE, signals, SelectiveCarry(h), capture=[1, 5], readers=given, backend="chunked")
        outputs = [result.read, result.carry.h, result.captured.h] + ([result.readers] if rest else [])
        assert all(x.requires_grad for x in outputs)
        return tuple(outputs)

    torch.manual_seed(0)
    assert torch.autograd.gradcheck(run, [x.clone().requires_grad_() for x in (*s, random_carry(s).h, *readers)])


@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_holds_the_carry_exactly(backend):
    s = random_signals(3, 12)
    carry = random_carry(s)
    mask = torch.tensor([[0, 1, 1, 0, 1, 0, 0, 1, 1, 1, 1, 0], [1] * 12, [0] * 12]).bool()
    result = scan(SELECTIVE, s, carry, mask=mask, backend=backend)
    real = mask[0]
    alone = type(s)(*(x[:1, real] for x in s[:4]), s.A)
    expected = scan(SELECTIVE, alone, SelectiveCarry(carry.h[:1]), backend="reference")
    torch.testing.assert_close(result.read[0, real], expected.read[0], rtol=0, atol=ATOL[torch.float32])
    torch.testing.assert_close(result.carry.h[0], expected.carry.h[0], rtol=0, atol=ATOL[torch.float32])
    assert torch.equal(result.carry.h[2], carry.h[2])


def test_effective_attention_reproduces_the_read():
    s = random_signals(2, 15, dtype=torch.float64)
    attention = effective_attention(SELECTIVE, s)
    assert attention.shape == (2, 5, 15, 15)
    assert (attention.triu(1) == 0).all()
    read = torch.einsum("bcts,bsc->btc", attention, s.x)
    torch.testing.assert_close(read, scan(SELECTIVE, s, backend="reference").read, rtol=0, atol=ATOL[torch.float64])
    some = s._replace(x=s.x[..., [3, 1]], delta=s.delta[..., [3, 1]], A=s.A[[3, 1]])
    torch.testing.assert_close(effective_attention(SELECTIVE, some), attention[:, [3, 1]], rtol=0, atol=0)


def test_the_transition_takes_each_carry_to_the_next():
    s = random_signals(2, 15, dtype=torch.float64)
    carry = random_carry(s)
    h = scan(SELECTIVE, s, carry, capture="all").captured.h
    linear = transition(SELECTIVE, s)
    before = torch.cat([carry.h[:, None], h[:, :-1]], 1)
    torch.testing.assert_close(linear.apply(before) + linear.write(), h, rtol=0, atol=ATOL[torch.float64])
    one = transition(SELECTIVE, SELECTIVE.at(s, 3))
    torch.testing.assert_close(one.apply(h[:, 2]) + one.write(), h[:, 3], rtol=0, atol=ATOL[torch.float64])


@pytest.mark.parametrize("backend", BACKENDS)
def test_low_precision_inputs_are_scanned_in_the_dtype_of_A(backend):
    s = random_signals(2, 20)
    half = type(s)(*(x.bfloat16() for x in s[:4]), s.A)
    widened = type(s)(*(x.float() for x in half[:4]), s.A)
    with torch.autocast("cpu", torch.bfloat16):
        result = scan(SELECTIVE, half, capture=[3], backend=backend)
    assert result.read.dtype == result.carry.h.dtype == result.captured.h.dtype == torch.float32
    expected = scan(SELECTIVE, widened, backend="reference").read
    torch.testing.assert_close(result.read, expected, rtol=0, atol=ATOL[torch.float32])
