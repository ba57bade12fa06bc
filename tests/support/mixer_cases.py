"""What the conformance tests of mixers share: a configuration of each, and two ways to run one.

`drive` runs a mixer as a model would; `stepwise` runs the same tokens one at a time through the reference backend with
edits done on the carry by hand, and is their oracle.
"""

from dataclasses import dataclass, field

import pytest
import torch

from strobe.core.tolerances import assert_close, relative_error
from strobe.kernels import Edit
from strobe.kernels.edits import apply_edit
from strobe.models import mixers
from strobe.models.mixer import Mixer
from strobe.models.run import Run

WIDTH, TIME = 6, 13
# By mixer, one or more configurations; a mixer without an entry fails `test_every_mixer_is_here`.
OPTIONS = {
    "attention": [{"n_heads": 3}, {"n_heads": 3, "n_key_heads": 1, "window": 4}],
    "elman": [{"hidden": 5}],
    "lstm": [{"hidden": 5}],
    "gru": [{"hidden": 5}],
    "slstm": [{"hidden": 5}, {"hidden": 6, "heads": 2}],
    "mingru": [{"hidden": 5}],
    "mamba": [
        {"inner": 8, "state": 3, "rank": 2},
        {
            "inner": 8,
            "state": 3,
            "rank": 2,
            "norm_eps": 1e-6,
            "norm_weights": True,
            "proj_bias": True,
            "conv_bias": False,
        },
    ],
    "mamba2": [{"heads": 4, "head_dim": 2, "state": 3, "groups": 2}],
    "gated_deltanet": [{"heads": 4, "key": 3, "value": 2, "key_heads": 2}],
    "rglru": [{"inner": 8, "heads": 2}],
    "rwkv4": [{"hidden": 5}],
    "rwkv4_channel_mix": [{"d_mlp": 9}],
}


def importable(name):
    """Whether the mixer's kernel family is there at all; a missing one is one failure, not a collection error."""
    try:
        return issubclass(mixers.get(name), object)
    except ImportError:
        return False


def backends(name):
    kind = mixers.get(name)
    if not issubclass(kind, Mixer):
        return ["auto"]
    return [b for b in kind.family.backends if b != "triton" or torch.cuda.is_available()]


NAMES = [n for n in mixers.names() if importable(n)]
ALL = [
    pytest.param(name, options, backend, id=f"{name}{i or ''}-{backend}")
    for name in NAMES
    for i, options in enumerate(OPTIONS[name])
    for backend in backends(name)
]
RECURRENT = [case for case in ALL if issubclass(mixers.get(case.values[0]), Mixer)]
every = pytest.mark.parametrize(("name", "options", "backend"), ALL)
recurrent = pytest.mark.parametrize(("name", "options", "backend"), RECURRENT)


@dataclass
class Out:
    """One run of one mixer."""

    y: torch.Tensor
    carry: object
    states: object = None
    shown: dict = field(default_factory=dict)
    ran: dict = field(default_factory=dict)


def build(name, options, dtype=torch.float64):
    """The mixer with every parameter moved off its initial value, so that none is 0 or 1 by accident."""
    torch.manual_seed(3)
    kind = mixers.get(name)
    module = kind(kind.Config(d_model=WIDTH, **options)).to(dtype)
    module.key = "m"
    for point_name, point in module.named_modules():
        point.name = point_name
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, dtype=torch.float64).to(dtype)
    return module


def inputs(batch=2, time=TIME, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, time, WIDTH, generator=generator, dtype=torch.float64).to(dtype)


def drive(module, x, carry=None, *, looks=(), edits=(), mask=None, backend="auto", hooks=(), states=False):
    """Run `module` over `x`; `states`: capture the carry at `looks`; `hooks`: {name: f(tensor, hook)}."""
    out = Out(y=x, carry=None)
    run = Run(
        carries={} if carry is None else {"m": carry}, looks=looks, edits={"m": edits}, mask=mask, backend=backend
    )
    hooks = dict(hooks)
    if states:
        hooks |= {f"hook_state_{f}": None for f in module.Carry._fields}
    for hook_name, f in hooks.items():

        def keep(tensor, hook, hook_name=hook_name, f=f):
            result = None if f is None else f(tensor, hook=hook)
            out.shown[hook_name] = tensor if result is None else result
            return result

        getattr(module, hook_name).add_hook(keep)
    module.run = run
    try:
        out.y = module(x)
    finally:
        module.run = None
        for hook_name in hooks:
            getattr(module, hook_name).remove_hooks()
    out.carry, out.ran = run.after["m"], run.ran
    if states:
        out.states = module.Carry(*(out.shown[f"hook_state_{f}"] for f in module.Carry._fields))
    return out


def stepwise(module, x, carry=None, edits=()):
    """The oracle: one token at a time; edits are made on the carry, here. Returns y, the last carry, all carries."""
    ys, carries = [], []
    for t in range(x.shape[1]):
        out = drive(module, x[:, t : t + 1], carry, backend="reference" if isinstance(module, Mixer) else "auto")
        carry = out.carry
        for edit in edits:
            if edit.position % x.shape[1] == t:
                named = edit.field or module.memory
                carry = apply_edit(
                    Edit(position=t, kind=edit.kind, value=edit.value, field=named, heads=edit.heads), carry
                )
        ys.append(out.y)
        carries.append(carry)
    return torch.cat(ys, 1), carry, carries


def started(module, batch=2, seed=9):
    """A carry in the middle of a sequence: what 5 tokens leave behind."""
    return drive(module, inputs(batch, 5, seed)).carry


def close(actual, expected, dtype=torch.float64, kind="scan"):
    for a, e in zip(flat(actual), flat(expected), strict=True):
        if a.dtype in (torch.bool, torch.int64) or e.abs().max() == 0:
            assert torch.equal(a, e.to(a.dtype))
        else:
            assert_close(a, e, kind=kind, dtype=dtype)


def flat(value):
    return [value] if isinstance(value, torch.Tensor) else [v for v in value if v.numel()]


def differs(a, b):
    """Far more than rounding: the guard that a test compares things that could have been equal and are not."""
    return relative_error(a, b) > 1e-4
