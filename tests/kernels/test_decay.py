"""Oracle: the time x time attention matrix built from explicit products of decays; transformers' Mamba-2 scan."""

import pytest
import torch

from strobe.core.tolerances import assert_close
from strobe.kernels import scan
from strobe.kernels.chunks import chunk_decay, decay_of
from strobe.kernels.decay import DECAY, DecayCarry, random_signals
from strobe.kernels.linear import effective_attention, transition

both = pytest.mark.parametrize("per_channel", [False, True], ids=["per_head", "per_channel"])


def explicit_attention(signals):
    """E[t, s] = sum_key q_t k_s alpha_{s+1} ... alpha_t, every product multiplied out: [batch, heads, time, time]."""
    heads = signals.v.shape[2]
    q, k = (x.repeat_interleave(heads // x.shape[2], 2) for x in signals[:2])
    alpha = signals.log_decay.exp()
    alpha = alpha.unsqueeze(-1).expand_as(k) if alpha.ndim == 3 else alpha
    batch, time = q.shape[:2]
    E = q.new_zeros(batch, heads, time, time)
    for t in range(time):
        for s in range(t + 1):
            E[:, :, t, s] = (q[:, t] * k[:, s] * alpha[:, s + 1 : t + 1].prod(1)).sum(-1)
    return E


@both
@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_the_read_is_an_explicit_attention(backend, per_channel):
    signals = random_signals(2, 45, dtype=torch.float64, per_channel=per_channel)
    expected = torch.einsum("bhts,bshv->bthv", explicit_attention(signals), signals.v)
    assert_close(scan(DECAY, signals, backend=backend).read, expected, kind="scan")


@both
def test_effective_attention_is_the_explicit_one(per_channel):
    signals = random_signals(2, 45, dtype=torch.float64, per_channel=per_channel)
    E = effective_attention(DECAY, signals)
    assert_close(E, explicit_attention(signals), kind="scan")
    assert (E.triu(1) == 0).all()


@both
def test_transition_drives_the_carry(per_channel):
    signals = random_signals(2, 9, dtype=torch.float64, per_channel=per_channel)
    result = scan(DECAY, signals, capture="all")
    S = result.captured.S
    whole = transition(DECAY, signals)
    predicted = whole.apply(torch.cat([torch.zeros_like(S[:, :1]), S[:, :-1]], 1)) + whole.write()
    assert_close(predicted, S, kind="scan")
    assert_close(whole.operator(8) @ S, whole.apply(S), kind="scan")
    # One token's transition is the same without the time axis.
    one = transition(DECAY, DECAY.at(signals, 4))
    assert_close(one.apply(S[:, 3]) + one.write(), S[:, 4], kind="scan")


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_equals_transformers_mamba2(groups):
    from transformers.models.mamba2.modeling_mamba2 import mamba2_chunk_scan

    signals = random_signals(2, 130, groups=groups)
    S = torch.randn(2, 4, 8, 6)
    dt = 0.1 + torch.rand(2, 130, 4)
    A = -torch.rand(4)
    theirs, state = mamba2_chunk_scan.__wrapped__(
        signals.v, dt, A, signals.k, signals.q, chunk_size=32, initial_states=S.mT, return_final_states=True
    )
    ours = signals._replace(v=signals.v * dt.unsqueeze(-1), log_decay=dt * A)
    result = scan(DECAY, ours, DecayCarry(S), backend="chunked")
    assert_close(result.read, theirs, kind="scan")
    assert_close(result.carry.S, state.mT, kind="scan")


EXTREMES = {
    "strong": lambda x: torch.full_like(x, -30),
    "none": torch.zeros_like,
    # After forty tokens of -30 the cumulated sum is -1200: its rounding in float32 would be 1e-4 of the next decay.
    "strong, then none": lambda x: torch.where(
        torch.arange(x.shape[1]).view(1, -1, *[1] * (x.ndim - 2)) % 32 < 20, -30.0, -0.5 * x.sigmoid()
    ),
    "reset": lambda x: torch.where(x < -0.9, -torch.inf, x),
    "growing a little": lambda x: x + 0.5,
}


@both
@pytest.mark.parametrize("extreme", EXTREMES)
def test_extreme_decays(extreme, per_channel):
    signals = random_signals(2, 130, per_channel=per_channel)
    signals = signals._replace(log_decay=EXTREMES[extreme](signals.log_decay))
    exact = type(signals)(*(x.double() for x in signals))
    expected = scan(DECAY, exact, capture=[5, 77, 129], backend="reference")
    result = scan(DECAY, signals, capture=[5, 77, 129], backend="chunked")
    assert_close(result.read, expected.read, kind="scan")
    assert_close(result.carry.S, expected.carry.S, kind="scan")
    assert_close(result.captured.S, expected.captured.S, kind="scan")


@both
def test_a_reset_has_finite_gradients(per_channel):
    signals = random_signals(1, 40, dtype=torch.float64, per_channel=per_channel)
    log_decay = signals.log_decay.masked_fill(signals.log_decay < -0.9, -torch.inf).requires_grad_()
    grads = [
        torch.autograd.grad(scan(DECAY, signals._replace(log_decay=log_decay), backend=b).read.sum(), log_decay)[0]
        for b in ("reference", "chunked")
    ]
    assert_close(grads[1], grads[0], kind="scan")


@both
def test_second_derivatives(per_channel):
    signals = random_signals(1, 3, dtype=torch.float64, per_channel=per_channel, groups=1, heads=2, key=2, value=2)
    inputs = [x.requires_grad_() for x in (*signals, torch.randn(1, 2, 2, 2, dtype=torch.float64))]

    def run(*x):
        return scan(DECAY, type(signals)(*x[:4]), DecayCarry(x[4]), capture=[1], backend="chunked").captured.S

    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


@both
@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_a_reader_is_a_query_that_never_changes(backend, per_channel):
    signals = random_signals(2, 70, dtype=torch.float64, groups=4, per_channel=per_channel)
    S = DecayCarry(torch.randn(2, 4, 8, 6, dtype=torch.float64))
    u = torch.randn(3, 4, 8, dtype=torch.float64)
    answers = scan(DECAY, signals, S, readers=u, backend=backend).readers
    assert answers.shape == (2, 70, 3, 4, 6)
    for i in range(3):
        asked = scan(DECAY, signals._replace(q=u[i].expand(2, 70, 4, 8)), S, backend=backend).read
        assert_close(answers[:, :, i], asked, kind="scan")
    # One vector for all heads.
    shared = scan(DECAY, signals, S, readers=u[:, 0], backend=backend).readers
    repeated = scan(DECAY, signals, S, readers=u[:, :1].expand(3, 4, 8), backend=backend).readers
    assert_close(shared, repeated, kind="scan")


@both
def test_sharing_q_and_k_in_a_group_is_repeating_them(per_channel):
    signals = random_signals(2, 70, dtype=torch.float64, groups=2, per_channel=per_channel)
    repeated = signals._replace(q=signals.q.repeat_interleave(2, 2), k=signals.k.repeat_interleave(2, 2))
    assert_close(scan(DECAY, signals).read, scan(DECAY, repeated).read, kind="scan")


def test_groups_that_do_not_divide_the_heads_are_refused():
    signals = random_signals(1, 5, groups=3)
    for backend in ("reference", "chunked"):
        with pytest.raises(ValueError, match="3 groups cannot share 4 heads; give q, k or b a number of groups"):
            scan(DECAY, signals, backend=backend)


def test_padding_may_be_garbage_and_its_mask_integers():
    signals = random_signals(1, 40)
    mask = torch.ones(1, 40, dtype=torch.int64)
    mask[:, :7] = 0
    spoilt = signals._replace(
        **{
            f: torch.where(mask.bool().view(1, 40, *[1] * (x.ndim - 2)), x, torch.nan)
            for f, x in signals._asdict().items()
        }
    )
    clean = scan(DECAY, DECAY.slice(signals, 7, 40))
    padded = scan(DECAY, spoilt._replace(q=signals.q), mask=mask)
    assert_close(padded.read[:, 7:], clean.read, kind="scan")
    assert_close(padded.carry.S, clean.carry.S, kind="scan")


def test_decays_between_tokens_are_products_between_them_at_every_level():
    log_decay = -torch.rand(1, 1, 32, 3, dtype=torch.float64) * 50
    one = torch.eye(3, dtype=torch.float64)
    for channel in range(3):
        row = one[channel].expand(1, 1, 32, 3)
        gram = chunk_decay(log_decay).gram(row, row)[0, 0]
        explicit = torch.stack(
            [
                torch.stack(
                    [
                        log_decay[0, 0, s + 1 : t + 1, channel].sum().exp() if s <= t else torch.tensor(0.0).double()
                        for s in range(32)
                    ]
                )
                for t in range(32)
            ]
        )
        torch.testing.assert_close(gram, explicit, rtol=1e-11, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_decay_is_the_exponential_of_its_logarithm_and_nothing_where_that_is_too_small(dtype):
    smallest, scale = torch.finfo(dtype).tiny, 1 if dtype == torch.float32 else 8
    logs = torch.tensor([3.0, 0.0, -1e-3, -1.0, -20.0, -86.0, -88.0, -100.0, -110.0, -1e4, -torch.inf], dtype=dtype)
    logs = (logs * scale).requires_grad_()
    found = decay_of(logs)
    expected = logs.detach().double().exp()
    normal = expected > smallest
    assert normal[:6].all()
    error = (found.double() - expected).abs()
    assert (error[normal] <= 4 * torch.finfo(dtype).eps * expected[normal]).all()
    assert (error[~normal] <= smallest).all()
    assert not found[-3:].any()
    # The exponential is its own derivative.
    (slope,) = torch.autograd.grad(found.sum(), logs)
    assert ((slope - found).abs() <= smallest).all()
    assert torch.equal(slope[normal], found[normal])
