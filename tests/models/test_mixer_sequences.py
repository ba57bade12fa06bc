"""Oracle: the same mixer on the same tokens in one piece, alone, or without padding; and its own docstring.

Every mixer of the registry passes the whole list, with every backend of its family.
"""

import re
import sys

import pytest
import torch
from mixer_cases import NAMES, OPTIONS, TIME, build, close, differs, drive, every, inputs, recurrent, started

from strobe.core.tolerances import relative_error
from strobe.kernels import Edit
from strobe.models import mixers
from strobe.models.mixer import Mixer


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
