"""Oracle: the same mixer one token at a time, reference backend, float64, with the additions made on the carry by hand.

An addition to a window is not made by a cut, so what is counted too is how often a mixer projects and scans.
"""

import pytest
import torch
from mixer_cases import RECURRENT, TIME, build, drive, inputs, stepwise

from strobe.core.tolerances import relative_error
from strobe.kernels import Edit
from strobe.models import mixer as module
from strobe.models import mixers

EXACT = 1e-10


def windowed(mixer):
    """The fields of the carry that are windows."""
    return [f for f in mixer.Carry._fields if f not in mixer.Memory._fields]


with_windows = pytest.mark.parametrize(
    ("name", "options", "backend"), [case for case in RECURRENT if windowed(mixers.get(case.values[0]))]
)


def value_of(mixer, field, generator, *batch):
    size = getattr(mixer.init_carry(1, torch.float64, torch.device("cpu")), field).shape[1:]
    return torch.randn(*batch, *size, generator=generator, dtype=torch.float64)


def everywhere(mixer):
    """The same vector for each field after every token: what steering a whole carry is."""
    generator = torch.Generator().manual_seed(7)
    values = {f: value_of(mixer, f, generator) for f in mixer.Carry._fields}
    return [Edit(position=t, kind="add", value=0.3 * v, field=f) for f, v in values.items() for t in range(TIME)]


def here_and_there(mixer):
    """Another vector for each row, two after one token, of some channels, at the first and the last token."""
    generator, edits = torch.Generator().manual_seed(8), []
    for field in windowed(mixer):
        for position in (0, 4, 4, 5, -3, TIME - 1):
            value = value_of(mixer, field, generator, 2)
            edits.append(Edit(position=position, kind="add", value=value, field=field))
        # A window's first axis is its slots.
        edits.append(Edit(position=7, kind="add", value=1.5, field=field, heads=[0]))
    return edits


@with_windows
@pytest.mark.parametrize("which", [everywhere, here_and_there])
@pytest.mark.parametrize("first", [0, 5])
def test_additions_at_many_tokens_are_the_stepwise_run(name, options, backend, which, first, monkeypatch):
    mixer = build(name, options)
    carry = drive(mixer, inputs(time=first, seed=3)).carry if first else None
    x, edits, scans = inputs(), which(mixer), []
    real = module.scan
    monkeypatch.setattr(module, "scan", lambda *a, **k: scans.append(1) or real(*a, **k))
    out = drive(mixer, x, carry, edits=edits, looks=[0, 3, 6, TIME - 1], states=True, backend=backend)
    assert len(scans) == 1, "one scan, however many edits"
    y, last, carries = stepwise(mixer, x, carry, edits=edits)
    assert relative_error(out.y, y) < EXACT
    for field, got, expected in zip(mixer.Carry._fields, out.carry, last, strict=True):
        assert relative_error(got, expected) < EXACT, field
        captured = getattr(out.states, field)
        for i, t in enumerate((0, 3, 6, TIME - 1)):
            assert relative_error(captured[:, i], getattr(carries[t], field)) < EXACT, (field, t)
    assert relative_error(drive(mixer, x, carry, backend=backend).y, y) > 1e-3


@with_windows
def test_gradients_reach_what_is_added_and_what_comes_before(name, options, backend):
    mixer = build(name, options).requires_grad_(False)
    field = windowed(mixer)[0]
    found = []
    for run in (lambda x, e: drive(mixer, x, edits=e, backend=backend).y, lambda x, e: stepwise(mixer, x, edits=e)[0]):
        value = value_of(mixer, field, torch.Generator().manual_seed(9)).requires_grad_()
        x = inputs().requires_grad_()
        run(x, [Edit(position=t, kind="add", value=value, field=field) for t in (2, 3, 9)]).square().sum().backward()
        found.append((value.grad, x.grad))
    for got, expected in zip(*found, strict=True):
        assert expected.abs().max() > 0 and relative_error(got, expected) < EXACT


@with_windows
def test_what_is_not_only_added_to_or_is_looked_at_is_cut(name, options, backend):
    mixer, x = build(name, options), inputs()
    field = windowed(mixer)[0]
    added = [Edit(position=4, kind="add", value=0.5, field=field)]
    both = [*added, Edit(position=6, kind="scale", value=0.5, field=field)]
    assert relative_error(drive(mixer, x, edits=both, backend=backend).y, stepwise(mixer, x, edits=both)[0]) < EXACT
    seen = []
    looked = drive(
        mixer, x, edits=added, looks=[5], hooks={"hook_carry": lambda c, hook: seen.append(getattr(c, field))},
        backend=backend,
    )  # fmt: skip
    _, _, carries = stepwise(mixer, x, edits=added)
    assert relative_error(seen[0], getattr(carries[5], field)) < EXACT
    assert relative_error(looked.y, stepwise(mixer, x, edits=added)[0]) < EXACT
