"""Oracle: transformers' loop for RWKV-4 in float32, and a softmax over the past, token by token, in float64."""

import pytest
import torch

from strobe.kernels import Edit, scan
from strobe.kernels.linear import effective_attention
from strobe.kernels.wkv import WKV, WKVCarry, chunked, running_max
from strobe.kernels.wkv.reference import random_signals

BACKENDS = ["reference", "chunked"]
# Largest difference seen: float64 5e-15, float32 4e-7.
ATOL = {torch.float64: 3e-14, torch.float32: 3e-6}


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch):
    """Pieces of the shortest length, 16 tokens, so that longer tests cross several."""
    monkeypatch.setattr(chunked, "PIECE_BYTES", 1)


def softmax_over_the_past(signals):
    """wkv_t [batch, time, channels] in float64 from an empty carry, and the average [batch, time, channels] after t."""
    k, v, w, u = (x.double() for x in signals[:4])
    reads, averages = [], []
    for t in range(k.shape[1]):
        distance = torch.arange(t - 1, -1, -1, dtype=torch.float64)[:, None]
        past = k[:, :t] + distance * w
        for logits, values, into in (
            (torch.cat([past, (u + k[:, t])[:, None]], 1), v[:, : t + 1], reads),
            (torch.cat([past + w, k[:, t : t + 1]], 1), v[:, : t + 1], averages),
        ):
            weights = torch.exp(logits - logits.amax(1, keepdim=True))
            into.append((weights * values).sum(1) / weights.sum(1))
    return torch.stack(reads, 1), torch.stack(averages, 1)


def random_carry(signals, seed=5):
    generator = torch.Generator().manual_seed(seed)
    num, den, top = torch.randn(3, *signals.k[:, 0].shape, generator=generator, dtype=torch.float64).to(signals.k.dtype)
    return WKVCarry(num, den.abs() + 0.5, top)


@pytest.mark.parametrize("scale", [1.0, 50.0], ids=["keys of 2", "keys of 100"])
@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_the_loop_of_transformers(backend, start, scale):
    from transformers.models.rwkv.modeling_rwkv import rwkv_linear_attention_cpu

    s = random_signals(2, 40)
    s = s._replace(k=s.k * scale)
    carry = random_carry(s) if start else None
    state = None if carry is None else list(carry)
    expected, end = rwkv_linear_attention_cpu(torch.log(-s.w), s.u, s.k, s.v, state=state, return_state=True)
    result = scan(WKV, s, carry, backend=backend)
    # theirs gets w through exp(log(-w)), so its w differs by rounding, which a distance of up to 40 multiplies
    torch.testing.assert_close(result.read, expected, rtol=0, atol=1e-5)
    for ours, theirs in zip(result.carry, end, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", ATOL, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("time", [1, 2, 16, 37, 150])
def test_equals_a_softmax_over_the_past(backend, dtype, time):
    s = random_signals(2, time, dtype=dtype)
    read, average = softmax_over_the_past(s)
    readers = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    result = scan(WKV, s, readers=readers, capture="all", backend=backend)
    num, den, _ = result.captured
    for ours, theirs in (
        (result.read, read),
        (num / den, average),
        (result.carry.num / result.carry.den, average[:, -1]),
        (result.readers, average @ readers.double().T),
    ):
        torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=ATOL[dtype])


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("backend", BACKENDS)
def test_keys_of_a_hundred_neither_overflow_nor_vanish(backend, sign):
    s = random_signals(2, 37)
    s = s._replace(k=s.k + 100 * sign)
    result = scan(WKV, s, backend=backend)
    # k of 100 is stored to 4e-6, which is the error of the weights
    torch.testing.assert_close(result.read.double(), softmax_over_the_past(s)[0], rtol=0, atol=3e-5)
    assert all(x.isfinite().all() for x in result.carry)


@pytest.mark.parametrize("dtype", ATOL, ids=str)
def test_captures_equal_the_reference_in_every_field(dtype):
    s = random_signals(2, 150, dtype=dtype)
    carry = random_carry(s)
    positions = [-1, 3, 15, 16, 3, 47]
    fast, slow = (scan(WKV, s, carry, capture=positions, backend=b) for b in ("chunked", "reference"))
    for ours, theirs in zip((*fast.captured, *fast.carry), (*slow.captured, *slow.carry), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=ATOL[dtype])


@pytest.mark.parametrize("order", [running_max._in_place, running_max._two_level])
@pytest.mark.parametrize("time", [2, 3, 63, 64, 65])
def test_both_orders_of_the_maximum_equal_a_loop(order, time):
    k, _, w, _ = random_signals(2, time, dtype=torch.float64)[:4]
    w = w * torch.rand(2, time, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    start = k[:, 0] + 5
    rows, top = [], start
    for t in range(time):
        top = torch.maximum(top + w[:, t], k[:, t])
        rows.append(top)
    torch.testing.assert_close(order(k, w, start), torch.stack(rows, 1), rtol=0, atol=1e-14)


def test_gradients_are_exact_for_reads_carries_and_captures():
    s = random_signals(1, 20, dtype=torch.float64, channels=2)
    carry = random_carry(s)
    mask = torch.arange(20)[None] % 5 != 2

    def run(k, v, w, u, num, den, top):
        result = scan(WKV, type(s)(k, v, w, u), WKVCarry(num, den, top), capture=[4, 17], mask=mask, backend="chunked")
        outputs = (result.read, *result.carry, *result.captured)
        assert all(x.requires_grad for x in outputs)
        return outputs

    assert torch.autograd.gradcheck(run, [x.clone().requires_grad_() for x in (*s[:4], *carry)])


@pytest.mark.parametrize("ties", [False, True])
def test_gradients_equal_the_reference_from_an_empty_carry(ties):
    gradients = []
    for backend in BACKENDS:
        s = random_signals(2, 40, dtype=torch.float64)
        if ties:
            s = s._replace(k=(2 * s.k).round() / 2, w=torch.full_like(s.w, -0.5))
        s = type(s)(*(x.clone().requires_grad_() for x in s[:4]))
        result = scan(WKV, s, capture=[7], readers=torch.ones(1, 5, dtype=torch.float64), backend=backend)
        outputs = (result.read, *result.carry, *result.captured, result.readers)
        sum((x * torch.linspace(-1, 1, x.numel(), dtype=x.dtype).reshape(x.shape)).sum() for x in outputs).backward()
        gradients.append([x.grad for x in s[:4]])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("time", [12, 45])
@pytest.mark.parametrize("empty", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_holds_the_carry_exactly(backend, empty, time):
    s = random_signals(3, time)
    carry = WKV.init_carry(s) if empty else random_carry(s)
    mask = torch.rand(3, time, generator=torch.Generator().manual_seed(0)) < 0.5
    mask[1], mask[2] = True, False
    mask[0, 0] = False
    result = scan(WKV, s, carry, mask=mask, capture="all", readers=torch.ones(1, 5), backend=backend)
    alone = s._replace(k=s.k[:1, mask[0]], v=s.v[:1, mask[0]])
    expected = scan(WKV, alone, WKVCarry(*(x[:1] for x in carry)), backend="reference")
    torch.testing.assert_close(result.read[0, mask[0]], expected.read[0], rtol=0, atol=ATOL[torch.float32])
    for held, start, end, real in zip(result.captured, carry, result.carry, expected.carry, strict=True):
        torch.testing.assert_close(end[0], real[0], rtol=0, atol=ATOL[torch.float32])
        assert torch.equal(held[2], start[2].expand(time, -1))
        previous = torch.cat([start[:1], held[0, :-1]])
        assert torch.equal(held[0, ~mask[0]], previous[~mask[0]])
    assert result.read.isfinite().all() and result.readers.isfinite().all()
    if empty:
        assert (result.readers[2] == 0).all()


@pytest.mark.parametrize("masked", [False, True])
def test_effective_attention_reproduces_the_read(masked):
    s = random_signals(2, 15, dtype=torch.float64)
    if masked:
        s = WKV.hold(s, torch.rand(2, 15, generator=torch.Generator().manual_seed(0)) < 0.6)
    attention = effective_attention(WKV, s)
    assert attention.shape == (2, 5, 15, 15)
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 5, 15, dtype=torch.float64), rtol=0, atol=1e-14)
    read = torch.einsum("bcts,bsc->btc", attention, s.v)
    torch.testing.assert_close(read, scan(WKV, s, backend="reference").read, rtol=0, atol=ATOL[torch.float64])


@pytest.mark.parametrize("backend", BACKENDS)
def test_weighing_the_past_more_is_a_larger_key_for_all_of_it(backend):
    s = random_signals(2, 24, dtype=torch.float64)
    edits = [Edit(position=9, kind="scale", value=5.0, field=field) for field in ("num", "den")]
    edited = scan(WKV, s, edits=edits, backend=backend).read
    louder = s._replace(k=torch.cat([s.k[:, :10] + torch.log(torch.tensor(5.0).double()), s.k[:, 10:]], 1))
    torch.testing.assert_close(edited[:, 10:], softmax_over_the_past(louder)[0][:, 10:], rtol=0, atol=3e-14)
    torch.testing.assert_close(edited[:, :10], softmax_over_the_past(s)[0][:, :10], rtol=0, atol=3e-14)
