"""Oracle: the same mixer one token at a time, reference backend, float64, with edits done on the carry by hand.

Every mixer of the registry passes the whole list, with every backend of its family, so a new one is tested by being
registered. What each mixer computes is compared with independent code in `test_mixer_oracles.py`.
"""

import re
import sys
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


def test_every_mixer_is_here():
    assert set(OPTIONS) == set(mixers.names())
    assert [n for n in mixers.names() if not importable(n)] == []


# Backends ------------------------------------------------------------------------------------------------------------


@recurrent
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_backend_equals_the_float64_reference(name, options, backend, dtype):
    exact, module = build(name, options), build(name, options).to(dtype)
    expected = drive(exact, inputs(time=33), looks=range(33), states=True, backend="reference")
    out = drive(module, inputs(time=33, dtype=dtype), looks=range(33), states=True, backend=backend)
    assert out.ran == {"m": backend}
    kind = "scan" if dtype == torch.float64 else "logits"
    close(out.y, expected.y, dtype, kind)
    close(out.carry, expected.carry, dtype, kind)
    close(out.states, expected.states, dtype, kind)


@recurrent
def test_gradients_equal_the_reference_s(name, options, backend):
    """Of parameters, inputs, the initial carry and an edit's value, through reads, captures and the last carry."""
    x, grads = inputs(), []
    for chosen in ("reference", backend):
        module = build(name, options)
        start = type(started(module))(*(f.detach().clone().requires_grad_() for f in started(module)))
        value = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        tokens = x.clone().requires_grad_()
        field_name = module.Carry._fields[0]
        edits = [Edit(position=6, kind="add", value=value, field=field_name)]
        out = drive(module, tokens, start, looks=[2, 6, 9], edits=edits, states=True, backend=chosen)
        ramp = torch.linspace(-1, 1, out.y.numel(), dtype=torch.float64).reshape(out.y.shape)
        # `max` only says how num and den are scaled: its gradient is a convention, and stays out.
        fields = [*out.states, *out.carry]
        loss = (out.y * ramp).sum() + sum((f * f.detach().cos()).sum() for f in fields if f.abs().max() < 1e30)
        loss.backward()
        named = {**dict(module.named_parameters()), "x": tokens, "value": value}
        named |= {f"carry.{f}": c for f, c in zip(start._fields, start, strict=True)}
        grads.append({n: p.grad for n, p in named.items()})
    expected, actual = grads
    assert {n for n, g in expected.items() if g is None} == {n for n, g in actual.items() if g is None}
    # A flag has no gradient.
    assert {n for n, g in actual.items() if g is None} <= {f"carry.{f}" for f in FLAGS}
    for n, g in expected.items():
        if g is not None and g.abs().max() > 0:
            assert relative_error(actual[n], g) < 1e-11, n
    assert differs(
        expected["carry." + module.Carry._fields[0]], torch.zeros_like(actual["carry." + module.Carry._fields[0]])
    )


# Looking --------------------------------------------------------------------------------------------------------------


@recurrent
def test_each_captured_carry_is_one_step_from_the_last(name, options, backend):
    module, x = build(name, options), inputs()
    hooks = {f"hook_{f}": None for f in module.signal_hooks()} | {"hook_read": None}
    start = started(module)
    out = drive(module, x, start, looks=range(TIME), states=True, backend=backend, hooks=hooks)
    signals = module.Signals(*(out.shown[f"hook_{f}"] for f in module.Signals._fields))
    carry = start
    for t in range(TIME):
        now = type(signals)(*(s[:, t] for s in signals))
        memory, read = module.step(now, carry)
        carry = module.Carry(*(s[:, t] for s in out.states))
        close(module.memory_of(carry), memory)
        close(out.shown["hook_read"][:, t], read)
    assert (
        drive(module, x, start, backend=backend).y.equal(out.y)
        or relative_error(drive(module, x, start, backend=backend).y, out.y) < 1e-12
    )


@recurrent
def test_captures_are_in_the_order_asked_for(name, options, backend):
    module, x = build(name, options), inputs()
    every_state = drive(module, x, looks=range(TIME), states=True, backend=backend).states
    asked = [7, 2, 12, 2, 0]
    some = drive(module, x, looks=asked, states=True, backend=backend).states
    close(some, type(some)(*(s[:, asked] for s in every_state)))


@recurrent
def test_captured_windows_equal_the_stepwise_run(name, options, backend):
    module, x = build(name, options), inputs()
    out = drive(module, x, looks=range(TIME), states=True, backend=backend)
    _, last, carries = stepwise(module, x)
    for t, carry in enumerate(carries):
        close(type(carry)(*(s[:, t] for s in out.states)), carry)
    close(out.carry, last)


@recurrent
def test_gates_equal_a_run_of_one_token_each(name, options, backend):
    kind = mixers.get(name)
    if not kind.gates:
        return
    module, x = build(name, options), inputs()
    hooks = {f"hook_gate_{g}": None for g in kind.gates}
    edits = [Edit(position=4, kind="scale", value=-1.0), Edit(position=8, kind="add", value=0.5, field="h")]
    out = drive(module, x, edits=edits, backend=backend, hooks=hooks)
    carry = None
    for t in range(TIME):
        one = drive(module, x[:, t : t + 1], carry, hooks=hooks, backend="reference")
        carry = one.carry
        for edit in [e for e in edits if e.position == t]:
            carry = apply_edit(
                Edit(position=t, kind=edit.kind, value=edit.value, field=edit.field or module.memory), carry
            )
        for gate in hooks:
            close(out.shown[gate][:, t : t + 1], one.shown[gate])


# Editing --------------------------------------------------------------------------------------------------------------


# Fields that only say yes (anything but 0) or no.
FLAGS = {"started"}


def edits_of(module, field_name, batch=2):
    """Edits of one field: every kind, two at one position, a negative position, the last token."""
    if field_name in FLAGS:
        return [Edit(position=p, kind="set", value=v, field=field_name) for p, v in ((3, 0), (6, 1), (6, 0), (-4, 0))]
    width = getattr(module.init_carry(batch, torch.float64, torch.device("cpu")), field_name).shape[1:]
    generator = torch.Generator().manual_seed(11)

    def value(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return [
        Edit(position=3, kind="set", value=value(batch, *width), field=field_name),
        Edit(position=6, kind="scale", value=0.25, field=field_name),
        Edit(position=6, kind="add", value=value(*width), field=field_name),
        Edit(position=-4, kind="add", value=value(1), field=field_name, heads=[0]),
        Edit(position=TIME - 1, kind="project_out", value=value(*width), field=field_name),
    ]


@recurrent
def test_an_edit_changes_nothing_before_and_what_follows_is_the_stepwise_run(name, options, backend):
    module, x = build(name, options), inputs()
    plain = drive(module, x, backend=backend)
    for field_name in module.Carry._fields:
        edits = edits_of(module, field_name)
        out = drive(module, x, edits=edits, looks=range(TIME), states=True, backend=backend)
        y, last, carries = stepwise(module, x, edits=edits)
        close(out.y, y)
        close(out.carry, last)
        for t, carry in enumerate(carries):
            close(type(carry)(*(s[:, t] for s in out.states)), carry)
        close(out.y[:, :4], plain.y[:, :4])
        assert differs(out.y[:, 4:], plain.y[:, 4:]), field_name


@recurrent
def test_an_edit_without_a_field_is_of_the_memory(name, options, backend):
    module, x = build(name, options), inputs()
    bare = drive(module, x, edits=[Edit(position=5, kind="scale", value=3.0)], backend=backend)
    named = drive(module, x, edits=[Edit(position=5, kind="scale", value=3.0, field=module.memory)], backend=backend)
    close(bare.y, named.y)
    assert differs(bare.y[:, 6:], drive(module, x, backend=backend).y[:, 6:])


@recurrent
def test_a_callback_equals_the_edit_as_data(name, options, backend):
    module, x = build(name, options), inputs()
    for field_name in module.Carry._fields:
        edits = [e for e in edits_of(module, field_name) if e.position in (3, 6)]
        seen = []

        def callback(carry, hook, edits=edits, seen=seen):
            seen.append(hook.position)
            for edit in edits:
                if edit.position == hook.position:
                    carry = apply_edit(edit, carry)
            return carry

        by_hook = drive(module, x, looks=[3, 5, 6], states=True, backend=backend, hooks={"hook_carry": callback})
        by_data = drive(module, x, looks=[3, 5, 6], states=True, backend=backend, edits=edits)
        assert seen == [3, 5, 6]
        close(by_hook.y, by_data.y)
        close(by_hook.carry, by_data.carry)
        close(by_hook.states, by_data.states)


@recurrent
def test_a_callback_may_write_in_place(name, options, backend):
    module, x = build(name, options), inputs()

    def in_place(carry, hook):
        for part in carry:
            part.mul_(0.5)

    with torch.no_grad():
        by_hook = drive(module, x, looks=[4], states=True, backend=backend, hooks={"hook_carry": in_place})
    edits = [Edit(position=4, kind="scale", value=0.5, field=f) for f in module.Carry._fields]
    by_data = drive(module, x, looks=[4], states=True, backend=backend, edits=edits)
    close(by_hook.y, by_data.y)
    close(by_hook.states, by_data.states)


@recurrent
def test_a_hook_on_a_signal_that_writes_in_place_counts_once(name, options, backend):
    """Also where a window edit makes the rest of the sequence be projected again."""
    module, x = build(name, options), inputs()
    window = next((f for f in module.Carry._fields if f not in module.Memory._fields), module.memory)
    edits = [Edit(position=4, kind="add", value=0.7, field=window)]

    def in_place(tensor, hook):
        tensor *= 1.5
        return tensor

    for hook in module.signal_hooks():
        with torch.no_grad():
            written = drive(module, x.clone(), edits=edits, backend=backend, hooks={f"hook_{hook}": in_place})
            returned = drive(
                module, x, edits=edits, backend=backend, hooks={f"hook_{hook}": lambda tensor, hook: tensor * 1.5}
            )
        close(written.y, returned.y)


@recurrent
def test_a_hook_on_the_read_changes_the_output(name, options, backend):
    module, x = build(name, options), inputs()
    zeroed = drive(
        module,
        x,
        backend=backend,
        hooks={"hook_read": lambda read, hook: read * (torch.arange(TIME) != 5).view(1, -1, *[1] * (read.ndim - 2))},
    )
    plain = drive(module, x, backend=backend)
    assert differs(zeroed.y[:, 5], plain.y[:, 5])
    close(torch.cat([zeroed.y[:, :5], zeroed.y[:, 6:]], 1), torch.cat([plain.y[:, :5], plain.y[:, 6:]], 1))
    close(zeroed.carry, plain.carry)


# Continuing -----------------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("cuts", [[6], [1], [12], [1, 2, 3], [5, 6, 11], list(range(1, TIME))])
def test_stopping_and_continuing_changes_nothing(name, options, backend, cuts):
    module, x = build(name, options), inputs()
    whole = drive(module, x, backend=backend)
    carry, ys = None, []
    for piece in x.tensor_split(cuts, 1):
        out = drive(module, piece, carry, backend=backend)
        carry = out.carry
        ys.append(out.y)
    close(torch.cat(ys, 1), whole.y)
    close(carry, whole.carry)


@every
def test_a_future_token_changes_nothing_earlier(name, options, backend):
    module, x = build(name, options), inputs()
    other = x.clone()
    other[:, 8:] += 3
    a, b = drive(module, x, backend=backend).y, drive(module, other, backend=backend).y
    close(a[:, :8], b[:, :8])
    assert differs(a[:, 8:], b[:, 8:])


@every
def test_a_batch_of_two_is_two_batches_of_one(name, options, backend):
    module, x = build(name, options), inputs()
    start = started(module)
    both = drive(module, x, start, backend=backend)
    for row in range(2):
        alone = drive(module, x[row : row + 1], type(start)(*(f[row : row + 1] for f in start)), backend=backend)
        close(both.y[row : row + 1], alone.y)
        close(type(start)(*(f[row : row + 1] for f in both.carry)), alone.carry)


# Padding --------------------------------------------------------------------------------------------------------------

MASKS = {
    "right": ["1111111111111", "1111111000000", "1000000000000"],
    "left": ["1111111111111", "0000001111111", "0000000000001"],
    "middle": ["1110001111111", "1010101010101", "0011100110010"],
    "nothing": ["1111111111111", "0000000000000", "0000000000001"],
}


def masks(kind):
    return torch.tensor([[c == "1" for c in row] for row in MASKS[kind]])


def padded(x, mask):
    """Garbage, not zeros, where there is padding."""
    return torch.where(mask[..., None], x, 37.0)


@every
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("continued", [False, True])
def test_padding_changes_nothing_for_real_tokens(name, options, backend, kind, continued):
    module, mask = build(name, options), masks(kind)
    x = padded(inputs(3), mask)
    start = started(module, 3) if continued else None
    out = drive(module, x, start, mask=mask, backend=backend)
    for row in range(3):
        if not mask[row].any():
            continue
        one = None if start is None else type(start)(*(f[row : row + 1] for f in start))
        alone = drive(module, x[row : row + 1, mask[row]], one, backend=backend)
        close(out.y[row : row + 1, mask[row]], alone.y)
        if isinstance(module, Mixer):
            close(type(out.carry)(*(f[row : row + 1] for f in out.carry)), alone.carry)


@every
def test_a_left_padded_second_piece_continues_the_first(name, options, backend):
    """The first piece is padded on the right, the second on the left, the third has one token."""
    module = build(name, options)
    pieces = [(inputs(3, seed=1), masks("right")), (inputs(3, seed=2), masks("left")), (inputs(3, 1, seed=3), None)]
    carry, ys = None, []
    for x, mask in pieces:
        out = drive(module, x if mask is None else padded(x, mask), carry, mask=mask, backend=backend)
        carry = out.carry
        ys.append(out.y)
    real = [torch.ones(3, 1, dtype=torch.bool) if mask is None else mask for _, mask in pieces]
    for row in range(3):
        x = torch.cat([x[row, m[row]] for (x, _), m in zip(pieces, real, strict=True)])
        y = torch.cat([y[row, m[row]] for y, m in zip(ys, real, strict=True)])
        close(y, drive(module, x[None], backend=backend).y[0])


@recurrent
@pytest.mark.parametrize("positions", [(6, 10), (3, 9)], ids=["at-tokens", "at-padding"])
def test_edits_with_padding_equal_the_row_alone(name, options, backend, positions):
    """Windows edited too: the rest of the row is projected again, among its real tokens only. An edit at a padding
    token is of the carry that passes through it, so it is the last real token's."""
    module, mask = build(name, options), masks("middle")[:2]
    x = padded(inputs(), mask)
    for field_name in module.Carry._fields:
        edits = [Edit(position=p, kind="add", value=0.7, field=field_name) for p in positions]
        out = drive(module, x, mask=mask, edits=edits, looks=range(TIME), states=True, backend=backend)
        for row in (0, 1):
            count = mask[row].cumsum(0)
            own = [Edit(position=int(count[p]) - 1, kind="add", value=0.7, field=field_name) for p in positions]
            alone = drive(
                module,
                x[row : row + 1, mask[row]],
                edits=own,
                looks=range(int(count[-1])),
                states=True,
                backend=backend,
            )
            close(out.y[row, mask[row]], alone.y[0])
            close([f[row] for f in out.carry], [f[0] for f in alone.carry])
            # What a row shows at a token is what it shows alone, unless an edit came in the padding after it.
            shown = (
                [s[row, mask[row]] for s in out.states] if positions == (6, 10) else [s[row, -1:] for s in out.states]
            )
            close(shown, [s[0, -len(shown[0]) :] for s in alone.states])


@recurrent
def test_gates_with_padding_equal_the_row_alone(name, options, backend):
    kind = mixers.get(name)
    if not kind.gates:
        return
    module, mask = build(name, options), masks("middle")
    x = padded(inputs(3), mask)
    hooks = {f"hook_gate_{g}": None for g in kind.gates}
    out = drive(module, x, mask=mask, hooks=hooks, backend=backend)
    for row in range(3):
        alone = drive(module, x[row : row + 1, mask[row]], hooks=hooks, backend=backend)
        for gate in hooks:
            close(out.shown[gate][row, mask[row]], alone.shown[gate][0])
    # No gate was computed at padding, and none is made up: some are not a number there, the others hold the carry.
    assert any(out.shown[gate][~mask].isnan().all() for gate in hooks)


# Hooks and errors -----------------------------------------------------------------------------------------------------

GENERIC = {"hook_read", "hook_carry", "hook_state"}


@pytest.mark.parametrize("name", NAMES)
def test_the_hooks_are_those_in_the_docstring(name):
    from transformer_lens.hook_points import HookPoint

    module = build(name, OPTIONS[name][0])
    doc = sys.modules[type(module).__module__].__doc__
    there = {n for n, m in module.named_modules() if isinstance(m, HookPoint)}
    written = set(re.findall(r"``(hook_\w+)``", doc))
    if not isinstance(module, Mixer):
        assert written - GENERIC == there
        return
    states = {f"hook_state_{f}" for f in module.Carry._fields}
    assert states | GENERIC <= there
    assert written - GENERIC == there - GENERIC - states
    after = doc.split("State:")[1].split("\n\n")[0]
    assert {n for n in re.findall(r"``(\w+)``", after) if not n.startswith("hook_")} == set(module.Carry._fields)


@pytest.mark.parametrize("name", NAMES)
def test_the_shapes_in_the_docstring_are_those_of_the_hooks(name):
    """``hook_q`` [B,T,G,D]: as many axes, and letters mean the same size wherever they appear."""
    module = build(name, OPTIONS[name][0])
    doc = sys.modules[type(module).__module__].__doc__
    table = {}
    for names_run, letters in re.findall(r"((?:``hook_\w+``(?:,\s+|\s+and\s+)?)+)(?:\s+\w+)?\s+\[([^\]]+)\]", doc):
        for hook in re.findall(r"hook_\w+", names_run):
            table[hook] = letters.split(",")
    hooks = {h: None for h in table if hasattr(module, h)}
    assert hooks
    out = drive(module, inputs(), hooks=hooks)
    sizes = {}
    for hook in hooks:
        shape = out.shown[hook].shape
        assert len(shape) == len(table[hook]), hook
        for letter, size in zip(table[hook], shape, strict=True):
            if letter.isalpha() and len(letter) == 1:
                assert sizes.setdefault(letter, size) == size, (hook, letter)


@recurrent
def test_returning_a_tensor_from_a_captured_state_is_an_error(name, options, backend):
    module, x = build(name, options), inputs()
    points = ["hook_state", f"hook_state_{module.Carry._fields[-1]}", *(f"hook_gate_{g}" for g in module.gates)]
    for point in points:
        with pytest.raises(RuntimeError, match=r"(?s)hook_.*Edit 'hook_carry'"):
            drive(module, x, looks=[3], backend=backend, hooks={point: lambda state, hook: state * 2})


@recurrent
def test_a_callback_that_returns_something_else_is_an_error(name, options, backend):
    module, x = build(name, options), inputs()
    with pytest.raises(TypeError, match=r"carry\._replace"):
        drive(module, x, looks=[3], backend=backend, hooks={"hook_carry": lambda carry, hook: carry[0]})
    with pytest.raises(ValueError, match=rf"{module.Carry._fields[0]} of shape"):
        drive(
            module,
            x,
            looks=[3],
            hooks={"hook_carry": lambda carry, hook: carry._replace(**{carry._fields[0]: carry[0][:1]})},
        )


@recurrent
def test_an_edit_that_does_not_fit_is_an_error(name, options, backend):
    module, x = build(name, options), inputs()
    with pytest.raises(IndexError, match="this run has 13 tokens"):
        drive(module, x, edits=[Edit(position=13, kind="scale", value=0.0)], backend=backend)
    with pytest.raises(ValueError, match=r"'nothing'; it has .*" + module.Carry._fields[-1]):
        drive(module, x, edits=[Edit(position=1, kind="scale", value=0.0, field="nothing")], backend=backend)
    with pytest.raises(ValueError, match="does not broadcast"):
        drive(module, x, edits=[Edit(position=1, kind="set", value=torch.zeros(97))], backend=backend)


@recurrent
def test_a_backend_that_does_not_exist_is_an_error(name, options, backend):
    with pytest.raises(ValueError, match=f"no backend 'cuneiform'; it has .*{backend}"):
        drive(build(name, options), inputs(), backend="cuneiform")


@recurrent
def test_bfloat16_keeps_the_memory_in_float32(name, options, backend):
    """Where a released model does: a carry rounded at each cut would make continuing differ from not stopping."""
    module = build(name, options, torch.bfloat16)
    x = inputs(dtype=torch.bfloat16)
    whole = drive(module, x, backend=backend)
    first = drive(module, x[:, :6], backend=backend)
    second = drive(module, x[:, 6:], first.carry, backend=backend)
    assert whole.y.dtype == torch.bfloat16 and [f.dtype for f in second.carry] == [f.dtype for f in whole.carry]
    assert relative_error(torch.cat([first.y, second.y], 1), whole.y) < 2e-2
    start = module.init_carry(2, torch.bfloat16, torch.device("cpu"))
    assert [f.dtype for f in start] == [f.dtype for f in whole.carry]
    # The nonlinear cells stay in the dtype of their weights.
    if name not in ("elman", "gru", "lstm"):
        assert all(getattr(whole.carry, f).dtype == torch.float32 for f in module.Memory._fields)
