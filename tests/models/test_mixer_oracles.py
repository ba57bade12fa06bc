"""Oracle: transformers' own module with the same tensors (full forward), torch.nn's cells, or the paper's loop."""

import warnings

import pytest
import torch
from torch import nn

from strobe.core.tolerances import assert_close, relative_error
from strobe.models import mixers
from strobe.models.run import Run

WIDTH, TIME = 8, 19


def build(name, **options):
    torch.manual_seed(1)
    kind = mixers.get(name)
    module = kind(kind.Config(d_model=WIDTH, **options))
    module.key = "m"
    return module


def moved(theirs):
    """Their module with every parameter off its initial value."""
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    return theirs.eval()


def share(ours, theirs, names):
    """Copy `theirs` into `ours` by `names` (ours -> theirs); every parameter of both must be named."""
    source = dict(theirs.named_parameters())
    assert set(names) == {n for n, _ in ours.named_parameters()}
    assert set(names.values()) == set(source)
    with torch.no_grad():
        for n, p in ours.named_parameters():
            p.copy_(source[names[n]].reshape(p.shape))


def tokens():
    return torch.randn(2, TIME, WIDTH)


@pytest.mark.parametrize(("name", "kind"), [("elman", nn.RNN), ("gru", nn.GRU), ("lstm", nn.LSTM)])
def test_cells_equal_torch(name, kind):
    ours, theirs = build(name, hidden=5).double(), moved(kind(WIDTH, 5, batch_first=True).double())
    with torch.no_grad():
        ours.W.copy_(theirs.weight_ih_l0)
        ours.R.copy_(theirs.weight_hh_l0)
        ours.b.copy_(theirs.bias_ih_l0 if name == "gru" else theirs.bias_ih_l0 + theirs.bias_hh_l0)
        if name == "gru":
            ours.b_r.copy_(theirs.bias_hh_l0)
    x = tokens().double()
    expected, end = theirs(x)
    ours.run = Run()
    assert_close(ours(x), ours.out_proj(expected), kind="scan")
    for mine, other in zip(ours.run.after["m"], end if name == "lstm" else (end,), strict=True):
        assert_close(mine, other[0], kind="scan")


@torch.no_grad()
def test_lstm_gates_and_forget_bias():
    """The memory is c, of which h is the gated tanh; b_f starts `forget_bias` above the others."""
    torch.manual_seed(0)
    raised, plain = (
        mixers.get("lstm")(mixers.get("lstm").Config(d_model=8, hidden=400, forget_bias=b)) for b in (1.0, 0.0)
    )
    assert abs(raised.b[400:800].mean().item() - 1) < 0.02 and abs(plain.b.mean().item()) < 0.02
    assert mixers.get("lstm").memory == "c"


@torch.no_grad()
def test_mingru_equals_the_paper_in_a_loop():
    ours, x = build("mingru", hidden=5).double(), tokens().double() * 3
    h, expected, negative = torch.zeros(2, 5, dtype=torch.float64), [], 0
    for t in range(TIME):
        z = 1 / (1 + torch.exp(-(x[:, t] @ ours.W_z.weight.T + ours.W_z.bias)))
        u = x[:, t] @ ours.W_h.weight.T + ours.W_h.bias
        g = u + 0.5
        g[u < 0] = 1 / (1 + torch.exp(-u[u < 0]))
        negative += int((u < 0).sum())
        h = (1 - z) * h + z * g
        expected.append(h)
    assert 0 < negative < 2 * 5 * TIME
    assert_close(ours(x), torch.stack(expected, 1) @ ours.out_proj.weight.T, kind="scan")


MAMBA_NAMES = {
    "in_proj.weight": "in_proj.weight",
    "conv_weight": "conv1d.weight",
    "x_proj.weight": "x_proj.weight",
    "dt_proj.weight": "dt_proj.weight",
    "dt_proj.bias": "dt_proj.bias",
    "A_log": "A_log",
    "D": "D",
    "out_proj.weight": "out_proj.weight",
}
CONV_BIAS = {"conv_bias": "conv1d.bias"}
BIASES = {"in_proj.bias": "in_proj.bias", "out_proj.bias": "out_proj.bias"}
NORMS = {
    "dt_norm_weight": "dt_layernorm.weight",
    "B_norm_weight": "b_layernorm.weight",
    "C_norm_weight": "c_layernorm.weight",
}


def mamba(**switches):
    from transformers.models.mamba import MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer

    return MambaMixer(
        MambaConfig(hidden_size=WIDTH, state_size=3, time_step_rank=2, num_hidden_layers=1, **switches), 0
    )


def falcon_mamba():
    from transformers.models.falcon_mamba import FalconMambaConfig
    from transformers.models.falcon_mamba.modeling_falcon_mamba import FalconMambaMixer

    sizes = {"hidden_size": WIDTH, "state_size": 3, "time_step_rank": 2, "num_hidden_layers": 1}
    # Its own initialisation asks for norms that it has not made yet, when it is not part of a model.
    return FalconMambaMixer(FalconMambaConfig(**sizes, mixer_rms_eps=1e-2), 0, initialize_mixer_weights=False)


def jamba():
    from transformers.models.jamba import JambaConfig
    from transformers.models.jamba.modeling_jamba import JambaMambaMixer

    sizes = {"hidden_size": WIDTH, "mamba_d_state": 3, "mamba_dt_rank": 2, "num_hidden_layers": 1}
    return JambaMambaMixer(JambaConfig(**sizes, rms_norm_eps=1e-2, use_mamba_kernels=False), 0)


@pytest.mark.parametrize(
    ("make", "options", "names"),
    [
        (mamba, {}, MAMBA_NAMES | CONV_BIAS),
        (
            lambda: mamba(use_conv_bias=False, use_bias=True),
            {"conv_bias": False, "proj_bias": True},
            MAMBA_NAMES | BIASES,
        ),
        (lambda: mamba(conv_kernel=2), {"kernel": 2}, MAMBA_NAMES | CONV_BIAS),
        (falcon_mamba, {"norm_eps": 1e-2}, MAMBA_NAMES | CONV_BIAS),
        (jamba, {"norm_eps": 1e-2, "norm_weights": True}, MAMBA_NAMES | CONV_BIAS | NORMS),
    ],
    ids=["mamba", "mamba-bias", "mamba-kernel2", "falcon_mamba", "jamba"],
)
def test_mamba_equals_transformers(make, options, names):
    theirs = moved(make())
    ours = build("mamba", inner=2 * WIDTH, state=3, rank=2, **options)
    share(ours, theirs, names)
    x = tokens()
    with torch.no_grad():
        assert_close(ours(x), theirs(x), kind="logits")


@torch.no_grad()
def test_mamba_starts_as_released():
    torch.manual_seed(0)
    kind = mixers.get("mamba")
    m = kind(kind.Config(d_model=8, inner=4000, state=3, rank=4))
    assert torch.allclose(m.A_log.exp(), torch.tensor([1.0, 2, 3]).expand(4000, 3))
    dt = nn.functional.softplus(m.dt_proj.bias)
    # Log-uniform between 0.001 and 0.1: the mean of the log is that of 0.01, the ends are reached.
    assert 0.00099 < dt.min() < 0.0011 and 0.09 < dt.max() < 0.101 and abs(float(dt.log().mean()) - -4.605) < 0.1
    assert 0.45 < m.dt_proj.weight.abs().max() <= 0.5


def test_mamba2_equals_transformers():
    from transformers.models.mamba2 import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    config = Mamba2Config(
        hidden_size=WIDTH,
        num_heads=4,
        head_dim=4,
        state_size=3,
        n_groups=2,
        expand=2,
        num_hidden_layers=1,
        chunk_size=8,
    )
    theirs, ours = moved(Mamba2Mixer(config, 0)), build("mamba2", heads=4, head_dim=4, state=3, groups=2)
    names = {n: n for n in ("in_proj.weight", "A_log", "D", "dt_bias", "out_proj.weight")}
    share(
        ours, theirs, names | {"conv_weight": "conv1d.weight", "conv_bias": "conv1d.bias", "norm_weight": "norm.weight"}
    )
    x = tokens()
    with torch.no_grad():
        assert_close(ours(x), theirs(x), kind="logits")


def recurrent_gemma(**sizes):
    from transformers.models.recurrent_gemma import RecurrentGemmaConfig
    from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRecurrentBlock

    config = RecurrentGemmaConfig(hidden_size=WIDTH, lru_width=12, num_attention_heads=2, num_hidden_layers=1, **sizes)
    return RecurrentGemmaRecurrentBlock(config, 0)


def rglru_like(theirs):
    ours = build("rglru", inner=12, heads=2)
    gates = ("recurrent_param", "input_gate_weight", "input_gate_bias", "recurrent_gate_weight", "recurrent_gate_bias")
    names = {n: f"rg_lru.{n}" for n in gates} | {"conv_weight": "conv_1d.weight", "conv_bias": "conv_1d.bias"}
    for mine, other in (("linear_x", "linear_x"), ("linear_y", "linear_y"), ("out_proj", "linear_out")):
        names |= {f"{mine}.{p}": f"{other}.{p}" for p in ("weight", "bias")}
    share(ours, theirs, names)
    return ours


def test_rglru_equals_transformers_and_its_gradient():
    """In float64, of which transformers leaves the accumulation in float32. In float32 its 1 - a^2 would lose every
    digit near a = 1 (3e-5 of the output here); ours, by expm1, does not."""
    theirs = moved(recurrent_gemma())
    ours, theirs = rglru_like(theirs).double(), theirs.double()
    with torch.no_grad():
        # So close to a = 1 that the true gradient of the square root is beyond the released bound.
        for lru in (ours.recurrent_param, theirs.rg_lru.recurrent_param):
            lru[:3] = -18.0
    x = tokens().double()
    expected = theirs(x, torch.arange(TIME)[None].expand(2, -1), None, use_cache=False)[0]
    assert_close(ours(x), expected, kind="logits", dtype=torch.float32)
    ramp = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).reshape(expected.shape)
    (expected * ramp).sum().backward()
    (ours(x) * ramp).sum().backward()
    for mine, other in (
        (ours.recurrent_param.grad[:3], theirs.rg_lru.recurrent_param.grad[:3]),
        (ours.recurrent_param.grad[3:], theirs.rg_lru.recurrent_param.grad[3:]),
        (ours.linear_x.weight.grad, theirs.linear_x.weight.grad),
        (ours.recurrent_gate_weight.grad, theirs.rg_lru.recurrent_gate_weight.grad),
    ):
        assert_close(mine, other, kind="logits", dtype=torch.float32)


def test_rglru_forgets_where_a_document_starts():
    """Position ids that start again: transformers resets h there; ours where `hook_started` is set to 0."""
    theirs = moved(recurrent_gemma(conv1d_width=1))
    torch.manual_seed(1)
    kind = mixers.get("rglru")
    ours = kind(kind.Config(d_model=WIDTH, inner=12, heads=2, kernel=1))
    source = rglru_names(theirs)
    with torch.no_grad():
        for n, p in ours.named_parameters():
            p.copy_(source[n].reshape(p.shape))
    x, positions = tokens(), torch.cat([torch.arange(7), torch.arange(TIME - 7)])
    expected = theirs(x, positions[None].expand(2, -1), None, use_cache=False)[0]

    def restart(started, hook):
        return torch.where(torch.arange(TIME)[None, :, None] == 7, 0.0, started)

    ours.hook_started.add_hook(restart)
    assert_close(ours(x), expected, kind="logits")
    ours.hook_started.remove_hooks()
    assert relative_error(ours(x), expected) > 0.01


def rglru_names(theirs):
    source = dict(theirs.named_parameters())
    renamed = {"conv_weight": "conv_1d.weight", "conv_bias": "conv_1d.bias"}
    renamed |= {f"out_proj.{p}": f"linear_out.{p}" for p in ("weight", "bias")}
    inner = {n.removeprefix("rg_lru."): p for n, p in source.items()}
    return inner | {ours: source[other] for ours, other in renamed.items()}


@torch.no_grad()
def test_rglru_starts_on_the_released_ring():
    torch.manual_seed(0)
    kind = mixers.get("rglru")
    m = kind(kind.Config(d_model=8, inner=4000, heads=4))
    radius = torch.exp(-nn.functional.softplus(m.recurrent_param))
    assert 0.9 <= radius.min() < 0.901 and 0.9985 < radius.max() <= 0.9991
    assert abs(float((radius**2).mean()) - (0.9**2 + 0.999**2) / 2) < 0.002


def rwkv(kind):
    from transformers.models.rwkv import RwkvConfig, modeling_rwkv

    config = RwkvConfig(hidden_size=WIDTH, attention_hidden_size=6, intermediate_size=11, num_hidden_layers=2)
    return getattr(modeling_rwkv, kind)(config, 1)


def test_rwkv4_equals_transformers():
    theirs, ours = moved(rwkv("RwkvSelfAttention")), build("rwkv4", hidden=6)
    names = {n: n for n in ("time_decay", "time_first", "time_mix_key", "time_mix_value", "time_mix_receptance")}
    names |= {"W_k.weight": "key.weight", "W_v.weight": "value.weight", "W_r.weight": "receptance.weight"}
    share(ours, theirs, names | {"out_proj.weight": "output.weight"})
    # Keys beyond exp's range in float32: without the running maximum these are infinities.
    x = tokens()
    x[:, 5] *= 300
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert theirs.key(x).abs().max() > 90
        assert_close(ours(x), theirs(x)[0], kind="logits")


def test_rwkv4_channel_mix_equals_transformers():
    theirs, ours = moved(rwkv("RwkvFeedForward")), build("rwkv4_channel_mix", d_mlp=11)
    names = {"time_mix_key": "time_mix_key", "time_mix_receptance": "time_mix_receptance"}
    names |= {"W_k.weight": "key.weight", "W_r.weight": "receptance.weight", "out_proj.weight": "value.weight"}
    share(ours, theirs, names)
    x = tokens()
    with torch.no_grad():
        assert_close(ours(x), theirs(x)[0], kind="logits")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("elman", {"hidden": 5, "project_out": False}, "hidden 5 differs from d_model 8"),
        ("lstm", {"hidden": 5, "project_out": False}, "hidden 5 differs from d_model 8"),
        ("gru", {"hidden": 5, "project_out": False}, "hidden 5 differs from d_model 8"),
        ("mamba", {"inner": 4, "state": 2, "rank": 1, "norm_weights": True}, "give norm_eps"),
        ("mamba2", {"heads": 3, "head_dim": 2, "state": 2, "groups": 2}, "not a multiple of 2 groups"),
        ("rglru", {"inner": 5, "heads": 2}, "not a multiple of 2 heads"),
        ("gated_deltanet", {"heads": 3, "key": 2, "value": 2, "key_heads": 2}, "not a multiple of 2 key heads"),
        ("attention", {"n_heads": 3}, "must be a multiple of n_heads 3"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_the_numbers(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, **options)
