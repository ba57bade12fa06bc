"""Oracle: torch.nn.RNN, GRU and LSTM in float64, and rows of a batch run alone; for traces, a cell loop."""

import pytest
import torch
from torch import nn

from strobe.kernels import family, scan
from strobe.kernels.rnn import elman, elman_trace, gru, gru_trace, lstm, lstm_trace, slstm

TORCH = {"elman": (elman, nn.RNN), "gru": (gru, nn.GRU), "lstm": (lstm, nn.LSTM)}
# What torch has no module for is in test_slstm.py.
CELLS = {**TORCH, "slstm": (slstm, None)}
BACKENDS = ["reference", "chunked"]
# Largest difference seen: float64 7e-16, float32 4e-7; gradients, which sum over tokens, 3e-15.
ATOL = {torch.float64: 5e-15, torch.float32: 2e-6}
GRADIENT_ATOL = 3e-14


def module_with(name, signals):
    """torch's module holding the weights of `signals`."""
    gates = {"elman": 1, "gru": 3, "lstm": 4}[name]
    hidden, dim = signals.R.shape[0] // gates, signals.R.shape[1]
    R = torch.cat([torch.block_diag(*gate.split(dim)) for gate in signals.R.split(hidden)])
    module = TORCH[name][1](signals.x.shape[-1], hidden, batch_first=True, dtype=signals.x.dtype)
    with torch.no_grad():
        module.weight_ih_l0.copy_(signals.W)
        module.weight_hh_l0.copy_(R)
        module.bias_ih_l0.copy_(signals.b)
        module.bias_hh_l0.copy_(signals.b_r) if name == "gru" else module.bias_hh_l0.zero_()
    return module


def blocks_of(matrix, like):
    """The blocks on the diagonal of each gate's square of `matrix`, in the shape of `like`, [gates * hidden, dim]."""
    hidden, dim = matrix.shape[1], like.shape[1]
    rows = torch.arange(matrix.shape[0])
    columns = (rows % hidden // dim * dim).unsqueeze(1) + torch.arange(dim)
    return matrix.gather(1, columns)


def random_carry(name, signals, seed=5):
    generator = torch.Generator().manual_seed(seed)
    zeros = family(name).init_carry(signals)
    carry = type(zeros)(*(torch.randn(x.shape, generator=generator, dtype=x.dtype) for x in zeros))
    return carry._replace(n=1 + carry.n.abs()) if name == "slstm" else carry


def with_gradients(x):
    return type(x)(*(y if y is None or y.dtype == torch.bool else y.clone().requires_grad_() for y in x))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("name", TORCH)
def test_equals_the_torch_module_and_its_gradients(name, heads, backend):
    sizes = {"hidden": 5} if heads == 1 else {"hidden": 6, "heads": heads}
    signals = with_gradients(TORCH[name][0].random_signals(3, 33, dtype=torch.float64, **sizes))
    carry = with_gradients(random_carry(name, signals))
    result = scan(family(name), signals, carry, backend=backend)

    module = module_with(name, signals)
    x = signals.x.detach().clone().requires_grad_()
    start = [y.detach().clone().requires_grad_() for y in carry]
    hidden = tuple(y.unsqueeze(0) for y in start)
    expected, end = module(x, hidden if name == "lstm" else hidden[0])
    end = end if name == "lstm" else (end,)
    for ours, theirs in zip((result.read, *result.carry), (expected, *(y[0] for y in end)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=ATOL[torch.float64])

    weight = torch.linspace(-1, 1, expected.numel(), dtype=expected.dtype).reshape(expected.shape)
    ((result.read * weight).sum() + sum((y**2).sum() for y in result.carry)).backward()
    ((expected * weight).sum() + sum((y**2).sum() for y in end)).backward()
    pairs = [(signals.x, x), (signals.W, module.weight_ih_l0), (signals.R, module.weight_hh_l0)]
    pairs += [(signals.b, module.bias_ih_l0), *zip(carry, start, strict=True)]
    pairs += [(signals.b_r, module.bias_hh_l0)] if name == "gru" else []
    for ours, theirs in pairs:
        wanted = blocks_of(theirs.grad, ours.grad) if ours is signals.R else theirs.grad
        torch.testing.assert_close(ours.grad, wanted, rtol=0, atol=GRADIENT_ATOL)


@pytest.mark.parametrize("name", CELLS)
def test_gradients_of_the_fast_path_are_exact(name):
    signals = CELLS[name][0].random_signals(2, 5, dtype=torch.float64, hidden=3, input=2)
    mask = torch.tensor([[True, False, True, True, True], [True, True, True, False, False]])

    carry = random_carry(name, signals)

    def run(*tensors):
        weights, start = tensors[: -len(carry)], tensors[-len(carry) :]
        result = scan(family(name), type(signals)(*weights), type(carry)(*start), capture=[1, 3], mask=mask)
        outputs = (result.read, *result.carry, *result.captured)
        assert all(x.requires_grad for x in outputs)
        return outputs

    inputs = [x.clone().requires_grad_() for x in (*signals, *carry) if x is not None]
    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("dtype", ATOL)
@pytest.mark.parametrize("positions", [[0, 7, 32], "all"], ids=["few", "all"])
@pytest.mark.parametrize("name", CELLS)
def test_a_captured_carry_is_where_a_shorter_run_ends(name, positions, dtype):
    signals = CELLS[name][0].random_signals(2, 90, dtype=dtype)
    carry = random_carry(name, signals)
    result = scan(family(name), signals, carry, capture=positions)
    for n, position in enumerate(range(90) if positions == "all" else positions):
        alone = scan(family(name), signals._replace(x=signals.x[:, : position + 1]), carry, backend="reference")
        for captured, end in zip(result.captured, alone.carry, strict=True):
            torch.testing.assert_close(captured[:, n], end, rtol=0, atol=ATOL[dtype])


MASKS = {
    "right": torch.tensor([[1] * 7 + [0] * 2, [1] * 9, [0] * 9, [1] + [0] * 8]).bool(),
    "left": torch.tensor([[0] * 2 + [1] * 7, [1] * 9, [0] * 9, [0] * 8 + [1]]).bool(),
    "holes": torch.tensor([[0, 1, 1, 0, 1, 0, 0, 1, 1], [1] * 9, [0] * 9, [1, 0, 1, 0, 1, 0, 1, 0, 0]]).bool(),
}


@pytest.mark.parametrize("dtype", ATOL)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("name", CELLS)
def test_padding_changes_no_real_token_and_holds_the_carry(name, mask, backend, dtype):
    signals = CELLS[name][0].random_signals(4, 9, dtype=dtype)
    carry = random_carry(name, signals)
    result = scan(family(name), signals, carry, capture="all", mask=mask, backend=backend)
    for row in range(4):
        start = type(carry)(*(x[row : row + 1] for x in carry))
        real = mask[row].nonzero()[:, 0].tolist()
        latest = start
        if real:
            alone = scan(family(name), signals._replace(x=signals.x[row : row + 1, real]), start, capture="all")
            torch.testing.assert_close(result.read[row, real], alone.read[0], rtol=0, atol=ATOL[dtype])
        for t in range(9):
            if mask[row, t]:
                latest = type(carry)(*(x[:, real.index(t)] for x in alone.captured))
            for captured, expected in zip(result.captured, latest, strict=True):
                torch.testing.assert_close(captured[row, t], expected[0], rtol=0, atol=ATOL[dtype])
            torch.testing.assert_close(result.read[row, t], latest.h[0], rtol=0, atol=ATOL[dtype])
        without_capture = scan(family(name), signals, carry, mask=mask, backend=backend).carry
        for end, expected in zip(without_capture, latest, strict=True):
            torch.testing.assert_close(end[row], expected[0], rtol=0, atol=ATOL[dtype])
            if not real:
                assert torch.equal(end[row], expected[0])


def strong(name, time=64):
    """float64 signals with weights four times the usual, so that gates saturate."""
    signals = CELLS[name][0].random_signals(2, time, dtype=torch.float64)
    return signals._replace(W=4 * signals.W, R=4 * signals.R)


def test_lstm_trace_equals_a_cell_loop():
    s = strong("lstm")
    carry = random_carry("lstm", s)
    trace = lstm_trace(s, carry, scan(family("lstm"), s, carry).read)
    h, c = carry
    for t in range(64):
        i, f, g, o = (s.W @ s.x[:, t].T + s.R @ h.T + s.b[:, None]).T.chunk(4, 1)
        c = c / (1 + torch.exp(-f)) + torch.tanh(g) / (1 + torch.exp(-i))
        h = torch.tanh(c) / (1 + torch.exp(-o))
        expected = (torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o), c, h)
        for ours, theirs in zip(trace, expected, strict=True):
            torch.testing.assert_close(ours[:, t], theirs, rtol=0, atol=1e-13)


def test_gru_trace_equals_a_cell_loop():
    s = strong("gru")
    carry = random_carry("gru", s)
    trace = gru_trace(s, carry, scan(family("gru"), s, carry).read)
    h = carry.h
    for t in range(64):
        x_r, x_z, x_n = (s.x[:, t] @ s.W.T + s.b).chunk(3, 1)
        h_r, h_z, h_n = (h @ s.R.T + s.b_r).chunk(3, 1)
        r, z = 1 / (1 + torch.exp(-x_r - h_r)), 1 / (1 + torch.exp(-x_z - h_z))
        n = torch.tanh(x_n + r * h_n)
        h = n + z * (h - n)
        for ours, theirs in zip(trace, (r, z, n, h), strict=True):
            torch.testing.assert_close(ours[:, t], theirs, rtol=0, atol=1e-13)


def test_elman_trace_equals_a_cell_loop():
    s = strong("elman")
    carry = random_carry("elman", s)
    trace = elman_trace(s, carry, scan(family("elman"), s, carry).read)
    h = carry.h
    for t in range(64):
        a = s.x[:, t] @ s.W.T + h @ s.R.T + s.b
        h = torch.tanh(a)
        for ours, theirs in zip(trace, (a, h), strict=True):
            torch.testing.assert_close(ours[:, t], theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", TORCH)
def test_a_trace_holds_at_padding(name):
    signals = CELLS[name][0].random_signals(4, 9, dtype=torch.float64)
    carry = random_carry(name, signals)
    mask = MASKS["holes"]
    read = scan(family(name), signals, carry, mask=mask).read
    trace = {"elman": elman_trace, "gru": gru_trace, "lstm": lstm_trace}[name](signals._replace(mask=mask), carry, read)
    previous = torch.cat([carry.h[:, None], read[:, :-1]], 1)
    assert torch.equal(trace.h[~mask], previous[~mask])
    if name == "lstm":
        states = torch.cat([carry.c[:, None], trace.c], 1)
        assert torch.equal(states[:, 1:][~mask], states[:, :-1][~mask])
        torch.testing.assert_close(trace.o[mask] * trace.c[mask].tanh(), read[mask], rtol=0, atol=5e-15)
    if name == "gru":
        assert (trace.z[~mask] == 1).all() and (trace.r[~mask] == 0).all()
        mixed = (1 - trace.z) * trace.n + trace.z * previous
        torch.testing.assert_close(mixed[mask], read[mask], rtol=0, atol=5e-15)
    first = trace[2] if name == "lstm" else trace.n if name == "gru" else trace.a
    assert first[~mask].isnan().all() and not first[mask].isnan().any()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CELLS)
def test_autocast_leaves_the_recurrence_in_the_dtype_of_its_weights(name, backend):
    signals = CELLS[name][0].random_signals(2, 20)
    signals = signals._replace(x=signals.x.bfloat16().float())
    plain = scan(family(name), signals, capture=[3], backend=backend)
    with torch.autocast("cpu", torch.bfloat16):
        cast = scan(family(name), signals._replace(x=signals.x.bfloat16()), capture=[3], backend=backend)
    assert all(x.dtype == torch.float32 for x in (cast.read, *cast.carry, *cast.captured))
    torch.testing.assert_close(cast.read, plain.read, rtol=0, atol=0)


@pytest.mark.parametrize("name", CELLS)
def test_many_scattered_tokens_keep_their_order(name):
    mask = torch.rand(3, 200, generator=torch.Generator().manual_seed(0)) < 0.5
    signals = CELLS[name][0].random_signals(3, 200, dtype=torch.float64)
    fast, slow = (scan(family(name), signals, mask=mask, backend=b).read for b in ("chunked", "reference"))
    torch.testing.assert_close(fast, slow, rtol=0, atol=ATOL[torch.float64])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CELLS)
def test_readers_answer_with_a_direction_of_h(name, backend):
    signals = CELLS[name][0].random_signals(2, 6, dtype=torch.float64)
    readers = torch.eye(5, dtype=torch.float64)[[4, 0]]
    result = scan(family(name), signals, readers=readers, backend=backend)
    torch.testing.assert_close(result.readers, result.read[..., [4, 0]], rtol=0, atol=0)
