"""Oracle: the same mixer one token at a time, reference backend, float64, with edits done on the carry by hand.

Every mixer of the registry passes the whole list, with every backend of its family, so a new one is tested by being
registered. What each mixer computes is compared with independent code in `test_mixer_oracles.py`; continuing, padding
and hooks are in `test_mixer_sequences.py`.
"""

import pytest
import torch
from mixer_cases import OPTIONS, TIME, build, close, differs, drive, importable, inputs, recurrent, started, stepwise

from strobe.core.tolerances import relative_error
from strobe.kernels import Edit
from strobe.kernels.edits import apply_edit
from strobe.models import mixers


def test_every_mixer_is_here():
    assert set(OPTIONS) == set(mixers.names())
    assert [n for n in mixers.names() if not importable(n)] == []


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
