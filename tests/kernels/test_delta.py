"""Oracle: transformers' recurrent gated delta rule and KDA, RWKV-7 written out, the `decay` family, two theorems."""

import pytest
import torch
from torch.nn.functional import normalize

from strobe.core.tolerances import assert_close
from strobe.kernels import scan
from strobe.kernels.decay import DECAY, DecaySignals
from strobe.kernels.delta import DELTA, DeltaCarry, DeltaSignals, random_signals
from strobe.kernels.linear import effective_attention, transition

BACKENDS = ["reference", "chunked"]
every_form = pytest.mark.parametrize(
    "form",
    [{}, {"delta_rule": True}, {"per_channel": True}, {"delta_rule": True, "per_channel": True}],
    ids=lambda form: "-".join(form) or "general",
)


def delta_rule(per_channel, batch=2, time=130, heads=4, key=8, value=6, dtype=torch.float32):
    """q, unit k, v, log decay and beta as transformers takes them."""
    q, k = torch.randn(2, batch, time, heads, key, dtype=dtype)
    g = -torch.rand(batch, time, heads, *([key] if per_channel else []), dtype=dtype)
    return (
        q,
        normalize(k, dim=-1),
        torch.randn(batch, time, heads, value, dtype=dtype),
        g,
        torch.rand(batch, time, heads, dtype=dtype),
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("per_channel", [False, True], ids=["gated_deltanet", "kda"])
def test_equals_transformers_recurrence(backend, per_channel):
    from transformers.models.kimi_linear.modeling_kimi_linear import recurrent_kimi_delta_attention as kda
    from transformers.models.qwen3_next.modeling_qwen3_next import torch_recurrent_gated_delta_rule as gated

    theirs = getattr(kda if per_channel else gated, "__wrapped__", kda if per_channel else gated)
    q, k, v, g, beta = delta_rule(per_channel)
    S = torch.randn(2, 4, 8, 6)
    read, state = theirs(q, k, v, g, beta, initial_state=S.clone(), output_final_state=True)
    ours = DeltaSignals(q=q * 8**-0.5, k=beta.unsqueeze(-1) * k, v=v, log_decay=g, a=None, b=k)
    result = scan(DELTA, ours, DeltaCarry(S), backend=backend)
    assert_close(result.read, read, kind="scan")
    assert_close(result.carry.S, state, kind="scan")


@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_the_rwkv7_equation(backend):
    # Peng et al., 2025, eq. 17, with S [value, key]: S_t = S_{t-1} (diag(w) - kappa^T (eta * kappa)) + v^T k; y = S r.
    r, k, v, kappa = torch.randn(4, 2, 70, 4, 8, dtype=torch.float64)
    kappa = normalize(kappa, dim=-1)
    w = torch.exp(-(0.5**0.5) * torch.rand(2, 70, 4, 8, dtype=torch.float64)).clamp(min=0.55)
    eta = torch.rand(2, 70, 4, 8, dtype=torch.float64)
    S, reads = torch.zeros(2, 4, 8, 8, dtype=torch.float64), []
    for t in range(70):
        removal = kappa[:, t].unsqueeze(-1) * (eta * kappa)[:, t].unsqueeze(-2)
        S = S @ (torch.diag_embed(w[:, t]) - removal) + v[:, t].unsqueeze(-1) * k[:, t].unsqueeze(-2)
        reads.append((S @ r[:, t].unsqueeze(-1)).squeeze(-1))
    ours = DeltaSignals(q=r, k=k, v=v, log_decay=w.log(), a=-eta * kappa, b=kappa / w)
    result = scan(DELTA, ours, backend=backend)
    assert_close(result.read, torch.stack(reads, 1), kind="scan")
    assert_close(result.carry.S, S.mT, kind="scan")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("per_channel", [False, True])
def test_without_a_correction_it_is_decay(backend, per_channel):
    signals = random_signals(2, 70, dtype=torch.float64, groups=4, per_channel=per_channel)
    plain = scan(DECAY, DecaySignals(signals.q, signals.k, signals.v, signals.log_decay), capture=[33])
    result = scan(DELTA, signals._replace(a=torch.zeros_like(signals.a)), capture=[33], backend=backend)
    assert_close(result.read, plain.read, kind="scan")
    assert_close(result.captured.S, plain.captured.S, kind="scan")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("per_channel", [False, True])
def test_leaving_a_out_means_minus_k(backend, per_channel):
    signals = random_signals(2, 70, dtype=torch.float64, delta_rule=True, per_channel=per_channel)
    u = torch.randn(2, 4, 8, dtype=torch.float64)
    short = scan(DELTA, signals, capture=[33], readers=u, backend=backend)
    spelled = scan(DELTA, signals._replace(a=-signals.k), capture=[33], readers=u, backend=backend)
    assert_close(short.read, spelled.read, kind="scan")
    assert_close(short.captured.S, spelled.captured.S, kind="scan")
    assert_close(short.readers, spelled.readers, kind="scan")


@pytest.mark.parametrize("backend", BACKENDS)
def test_full_strength_writes_recall_what_was_written_last(backend):
    # beta = 1, unit keys, no decay: S_t^T k_t = v_t whatever was there before (Schlag et al., 2021, section 4.2).
    _, k, v, g, _ = delta_rule(False, dtype=torch.float64)
    signals = DeltaSignals(q=k, k=k, v=v, log_decay=torch.zeros_like(g), a=None, b=k)
    S = DeltaCarry(10 * torch.randn(2, 4, 8, 6, dtype=torch.float64))
    assert_close(scan(DELTA, signals, S, backend=backend).read, v, kind="scan")


def test_double_strength_is_a_reflection_and_keeps_the_norm():
    # I - 2 k k^T is orthogonal; with v = 0 and no decay the singular values of S never change.
    _, k, v, g, _ = delta_rule(False, dtype=torch.float64)
    signals = DeltaSignals(q=k, k=2 * k, v=torch.zeros_like(v), log_decay=torch.zeros_like(g), a=None, b=k)
    S = torch.randn(2, 4, 8, 6, dtype=torch.float64)
    last = scan(DELTA, signals, DeltaCarry(S), backend="chunked").carry.S
    assert_close(torch.linalg.svdvals(last), torch.linalg.svdvals(S), kind="scan")
    A = transition(DELTA, signals).operator(8)
    assert_close(A @ A.mT, torch.eye(8, dtype=torch.float64).expand_as(A), kind="scan")


@every_form
def test_effective_attention_reproduces_the_read(form):
    signals = random_signals(2, 70, dtype=torch.float64, **form)
    E = effective_attention(DELTA, signals)
    assert E.shape == (2, 4, 70, 70)
    read = scan(DELTA, signals, backend="reference").read
    assert_close(torch.einsum("bhts,bshv->bthv", E, signals.v), read, kind="scan")
    assert E.triu(1).abs().max() == 0
    # It depends on no value: other values through the same matrix.
    other = signals._replace(v=torch.randn_like(signals.v))
    assert_close(torch.einsum("bhts,bshv->bthv", E, other.v), scan(DELTA, other).read, kind="scan")


@every_form
def test_transition_drives_the_carry(form):
    signals = random_signals(2, 9, dtype=torch.float64, **form)
    S = scan(DELTA, signals, capture="all").captured.S
    whole = transition(DELTA, signals)
    before = torch.cat([torch.zeros_like(S[:, :1]), S[:, :-1]], 1)
    assert_close(whole.apply(before) + whole.write(), S, kind="scan")
    assert_close(whole.operator(8) @ before + whole.write(), S, kind="scan")


EXTREMES = {
    "strong": lambda x: torch.full_like(x, -30),
    "none": torch.zeros_like,
    "strong, then none": lambda x: torch.where(
        torch.arange(x.shape[1]).view(1, -1, *[1] * (x.ndim - 2)) % 32 < 20, -30.0, 0.1 * x
    ),
    "reset": lambda x: torch.where(x < -0.9, -torch.inf, x),
    "growing a little": lambda x: x + 0.4,
}


@every_form
@pytest.mark.parametrize("extreme", EXTREMES)
def test_extreme_decays(extreme, form):
    signals = random_signals(2, 130, **form)
    signals = signals._replace(log_decay=EXTREMES[extreme](signals.log_decay))
    exact = type(signals)(*(None if x is None else x.double() for x in signals))
    expected = scan(DELTA, exact, capture=[5, 77, 129], backend="reference")
    result = scan(DELTA, signals, capture=[5, 77, 129], backend="chunked")
    assert_close(result.read, expected.read, kind="scan")
    assert_close(result.carry.S, expected.carry.S, kind="scan")
    assert_close(result.captured.S, expected.captured.S, kind="scan")


@pytest.mark.parametrize("backend", BACKENDS)
@every_form
def test_a_reader_is_a_query_that_never_changes(backend, form):
    signals = random_signals(2, 70, dtype=torch.float64, groups=4, **form)
    S = DeltaCarry(torch.randn(2, 4, 8, 6, dtype=torch.float64))
    u = torch.randn(3, 4, 8, dtype=torch.float64)
    answers = scan(DELTA, signals, S, readers=u, backend=backend).readers
    assert answers.shape == (2, 70, 3, 4, 6)
    for i in range(3):
        asked = scan(DELTA, signals._replace(q=u[i].expand(2, 70, 4, 8)), S, backend=backend).read
        assert_close(answers[:, :, i], asked, kind="scan")
    shared = scan(DELTA, signals, S, readers=u[:, 0], backend=backend).readers
    repeated = scan(DELTA, signals, S, readers=u[:, :1].expand(3, 4, 8), backend=backend).readers
    assert_close(shared, repeated, kind="scan")


def test_q_and_b_may_be_shared_in_groups():
    signals = random_signals(2, 70, dtype=torch.float64, groups=2)
    repeated = signals._replace(q=signals.q.repeat_interleave(2, 2), b=signals.b.repeat_interleave(2, 2))
    assert_close(scan(DELTA, signals).read, scan(DELTA, repeated).read, kind="scan")


@every_form
def test_second_derivatives(form):
    signals = random_signals(1, 3, dtype=torch.float64, groups=1, heads=2, key=2, value=2, **form)
    names = [f for f in signals._fields if getattr(signals, f) is not None]
    inputs = [getattr(signals, f).requires_grad_() for f in names] + [torch.randn(1, 2, 2, 2).double().requires_grad_()]

    def run(*x):
        given = signals._replace(**dict(zip(names, x, strict=False)))
        return scan(DELTA, given, DeltaCarry(x[-1]), capture=[1], backend="chunked").captured.S

    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


def test_padding_may_be_garbage():
    signals = random_signals(1, 40)
    mask = torch.arange(40).unsqueeze(0) >= 7
    spoilt = signals._replace(
        **{f: torch.where(mask.view(1, 40, *[1] * (x.ndim - 2)), x, torch.nan) for f, x in signals._asdict().items()}
    )
    clean = scan(DELTA, DELTA.slice(signals, 7, 40))
    padded = scan(DELTA, spoilt._replace(q=signals.q), mask=mask)
    assert_close(padded.read[:, 7:], clean.read, kind="scan")
    assert_close(padded.carry.S, clean.carry.S, kind="scan")
