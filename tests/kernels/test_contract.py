"""Oracle: the loop over each family's `step` in float64; edits and padding are made by hand in such a loop."""

from importlib import import_module

import pytest
import torch

from strobe.core.tolerances import assert_close
from strobe.kernels import Edit, families, family, scan

# Every family with its defaults, and the members of a family that take another path through its backend.
CASES = [(name, {}) for name in families()] + [
    ("decay", {"per_channel": True}),
    ("decay", {"groups": 4}),
    ("delta", {"per_channel": True}),
    ("delta", {"delta_rule": True}),
    ("delta", {"delta_rule": True, "per_channel": True, "groups": 4}),
    *((name, {"hidden": 6, "heads": 2}) for name in ("elman", "gru", "lstm", "slstm")),
]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join([c[0], *c[1]]))


def problem(case, batch=2, time=130, dtype=torch.float64, seed=0):
    """A family, signals, and the carry that seven other tokens leave behind."""
    name, options = case
    it = family(name)
    random_signals = import_module(it.step.__module__).random_signals
    before = random_signals(batch, 7, dtype=torch.float64, seed=seed + 1, **options)
    carry = scan(it, before, backend="reference").carry
    return it, random_signals(batch, time, dtype=dtype, seed=seed, **options), cast(carry, dtype)


def cast(fields, dtype):
    return type(fields)(*(x if x is None or not x.is_floating_point() else x.to(dtype) for x in fields))


def per_token(it, signals):
    """Names of the signals that have a batch and a time axis."""
    return [f for f in signals._fields if f not in it.constants and getattr(signals, f) is not None]


def random_readers(carry, n=2):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(n, *carry[0].shape[1:3], generator=generator, dtype=torch.float64)


def close(actual, expected, dtype=None):
    """Tensors, or carries field by field."""
    if isinstance(actual, torch.Tensor):
        assert_close(actual, expected, kind="scan", dtype=dtype)
        return
    for field in actual._fields:
        assert_close(getattr(actual, field), getattr(expected, field), kind="scan", dtype=dtype)


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("time", [1, 2, 63, 130])
def test_every_backend_equals_the_loop_in_float64(case, time, dtype):
    it, signals, carry = problem(case, time=time, dtype=dtype)
    readers = random_readers(carry)
    where = sorted({0, time // 3, time - 1})
    exact = cast(signals, torch.float64)
    expected = scan(it, exact, cast(carry, torch.float64), capture=where, readers=readers, backend="reference")
    for backend in it.backends:
        if backend == "triton":
            continue
        result = scan(it, signals, carry, capture=where, readers=readers.to(dtype), backend=backend)
        assert result.backend == backend
        assert result.read.dtype == result.carry[0].dtype == dtype
        close(result.read, expected.read)
        close(result.carry, expected.carry)
        close(result.captured, expected.captured)
        close(result.readers, expected.readers)


@every_case
def test_without_a_carry_it_starts_from_the_initial_one(case):
    it, signals, _ = problem(case, time=40)
    result = scan(it, signals)
    assert result.backend == "chunked"
    assert result.captured is None
    assert result.readers is None
    close(result.read, scan(it, signals, it.init_carry(signals), backend="reference").read)


@every_case
@pytest.mark.parametrize("cut", [1, 37, 64, 129])
def test_stopping_and_continuing_changes_nothing(case, cut):
    it, signals, carry = problem(case)
    whole = scan(it, signals, carry)
    first = scan(it, it.slice(signals, 0, cut), carry)
    second = scan(it, it.slice(signals, cut, 130), first.carry)
    close(torch.cat([first.read, second.read], 1), whole.read)
    close(second.carry, whole.carry)


@every_case
def test_one_token_at_a_time_is_the_whole(case):
    it, signals, carry = problem(case, time=20)
    whole = scan(it, signals, carry, capture="all")
    for t in range(20):
        now = scan(it, it.slice(signals, t, t + 1), carry, capture=[-1])
        carry = now.carry
        close(now.read[:, 0], whole.read[:, t])
        close(now.captured, type(carry)(*(x[:, t : t + 1] for x in whole.captured)))


@every_case
def test_captures_come_in_the_order_asked_for(case):
    it, signals, carry = problem(case, time=70)
    every = scan(it, signals, carry, capture="all", backend="reference").captured
    plain = scan(it, signals, carry)
    for capture, wanted in [
        ([40, -1, 0, 40, -70], [40, 69, 0, 40, 0]),
        (slice(3, None, 31), [3, 34, 65]),
        ([-1, 31], [69, 31]),  # carries that a chunked backend has anyway
        (slice(-2, None), [68, 69]),
        ("all", list(range(70))),
    ]:
        result = scan(it, signals, carry, capture=capture)
        close(result.captured, type(carry)(*(x[:, wanted] for x in every)))
        close(result.read, plain.read)  # looking changes nothing
        close(result.carry, plain.carry)


@every_case
def test_a_captured_carry_is_one_step_from_the_last(case):
    it, signals, carry = problem(case, time=70)
    result = scan(it, signals, carry, capture="all")
    for t in range(70):
        carry, read = it.step(it.at(signals, t), carry)
        close(type(carry)(*(x[:, t] for x in result.captured)), carry)
        close(result.read[:, t], read)
        carry = type(carry)(*(x[:, t] for x in result.captured))


def memory_edits(memory):
    """Edits of the memory [batch, heads, ...] at 41, and the same by hand as functions of the memory."""
    generator = torch.Generator().manual_seed(5)
    other = torch.randn(memory.shape[1:], generator=generator, dtype=memory.dtype)
    part = torch.rand(memory[:, [2, 0]].shape, generator=generator, dtype=memory.dtype)
    direction = torch.randn(memory.shape[1:] if memory.ndim == 2 else memory.shape[2:], generator=generator).to(other)

    def without(x):
        flat, d = x.reshape(-1, direction.numel()), direction.flatten()
        return (flat - (flat @ d)[:, None] * d / (d @ d)).reshape(x.shape)

    def in_heads(x, new):
        x = x.clone()
        x[:, 2], x[:, 0] = new(x[:, 2], 0), new(x[:, 0], 1)
        return x

    return {
        "set": (Edit(position=41, kind="set", value=other), lambda x: other.expand_as(x)),
        "add": (Edit(position=41, kind="add", value=other), lambda x: x + other),
        "scale": (Edit(position=41, kind="scale", value=0.25), lambda x: x * 0.25),
        "project_out": (Edit(position=41, kind="project_out", value=direction), without),
        "set heads": (
            Edit(position=41, kind="set", value=part, heads=[2, 0]),
            lambda x: in_heads(x, lambda _, i: part[:, i]),
        ),
        "add heads": (
            Edit(position=41, kind="add", value=part, heads=[2, 0]),
            lambda x: in_heads(x, lambda old, i: old + part[:, i]),
        ),
        "scale heads": (
            Edit(position=41, kind="scale", value=-2.0, heads=[2, 0]),
            lambda x: in_heads(x, lambda old, _: -2 * old),
        ),
    }


@every_case
@pytest.mark.parametrize("kind", ["set", "add", "scale", "project_out", "set heads", "add heads", "scale heads"])
def test_an_edit_equals_the_loop_with_the_same_edit_by_hand(case, kind):
    it, signals, carry = problem(case, time=100)
    edit, by_hand = memory_edits(carry[0])[kind]
    plain = scan(it, signals, carry, capture=[40])
    edited = scan(it, signals, carry, edits=[edit], capture=[40, 41, 99])
    loop_carry, reads, kept = carry, [], []
    for t in range(100):
        loop_carry, read = it.step(it.at(signals, t), loop_carry)
        if t == 41:
            loop_carry = loop_carry._replace(**{carry._fields[0]: by_hand(loop_carry[0])})
        reads.append(read)
        if t in (40, 41, 99):
            kept.append(loop_carry)
    close(edited.read, torch.stack(reads, 1))
    close(edited.carry, loop_carry)
    close(edited.captured, type(carry)(*(torch.stack(x, 1) for x in zip(*kept, strict=True))))
    # Up to the edited token, its own read included, nothing moves; after it, something does.
    close(edited.read[:, :42], plain.read[:, :42])
    close(type(carry)(*(x[:, :1] for x in edited.captured)), plain.captured)
    assert (edited.read[:, 42] - plain.read[:, 42]).abs().max() > 1e-3


@every_case
def test_edits_apply_in_the_order_given_and_at_the_last_token(case):
    it, signals, carry = problem(case, time=35)
    last = Edit(position=-1, kind="scale", value=3.0)
    more = Edit(position=34, kind="add", value=1.0)
    plain = scan(it, signals, carry)
    close(scan(it, signals, carry, edits=[last, more], capture=[34]).captured[0][:, 0], 3 * plain.carry[0] + 1)
    close(scan(it, signals, carry, edits=[more, last]).carry[0], 3 * (plain.carry[0] + 1))
    close(scan(it, signals, carry, edits=[more, last]).read, plain.read)


@every_case
@pytest.mark.parametrize("every", [False, True], ids=["apart", "at every token"])
def test_many_edits_equal_the_loop_with_the_same_edits_by_hand(case, every):
    it, signals, carry = problem(case, time=130)
    # In one chunk and next to each other, at a chunk's end, twice at one token, the first token and the last.
    where = list(range(130)) if every else [0, 5, 7, 8, 31, 64, 64, 127, 129]
    edits = [Edit(position=p, kind="scale", value=0.5 + 0.01 * i) for i, p in enumerate(where)]
    looks, readers = [0, 1, 5, 6, 8, 30, 31, 63, 64, 100, 127, 128, 129], random_readers(carry)
    result = scan(it, signals, carry, edits=edits, capture=looks, readers=readers)
    reads, answers, kept = [], [], []
    for t in range(130):
        carry, read = it.step(it.at(signals, t), carry)
        reads.append(read)
        answers.append(it.reader(carry, readers))
        for edit in (e for e in edits if e.position == t):
            carry = carry._replace(**{carry._fields[0]: carry[0] * edit.value})
        if t in looks:
            kept.append(carry)
    close(result.read, torch.stack(reads, 1))
    close(result.readers, torch.stack(answers, 1))
    close(result.carry, carry)
    close(result.captured, type(carry)(*(torch.stack(x, 1) for x in zip(*kept, strict=True))))


@every_case
def test_gradients_of_learned_edits_equal_those_of_the_loop(case):
    it, signals, carry = problem(case, time=100)
    generator = torch.Generator().manual_seed(5)
    values = [torch.randn(carry[0].shape[1:], generator=generator, dtype=torch.float64) for _ in range(3)]
    inputs = [x.requires_grad_() for x in (*values, *carry, *signals) if x is not None and x.is_floating_point()]
    kinds, where = ("add", "scale", "add"), (20, 22, 63)
    edits = [Edit(position=p, kind=k, value=v) for p, k, v in zip(where, kinds, values, strict=True)]
    found = {}
    for backend in ("reference", "chunked"):
        result = scan(it, signals, carry, edits=edits, capture=[20, 21, 63, 80], backend=backend)
        outputs = [result.read, *result.carry, *result.captured]
        generator = torch.Generator().manual_seed(7)
        loss = sum((x * torch.randn(x.shape, generator=generator, dtype=x.dtype)).sum() for x in outputs)
        found[backend] = torch.autograd.grad(loss, inputs)
    for chunked, loop in zip(found["chunked"], found["reference"], strict=True):
        assert loop.abs().max() > 0
        close(chunked, loop)


@every_case
@pytest.mark.parametrize("where", ["left", "right", "middle"])
def test_padding_leaves_every_real_token_unchanged(case, where):
    it, signals, carry = problem(case, time=90)
    mask = torch.ones(2, 90, dtype=torch.bool)
    padding = {"left": slice(0, 33), "right": slice(57, 90), "middle": slice(20, 53)}[where]
    mask[1, padding] = False
    whole = scan(it, signals, carry, mask=mask, capture="all")
    real = type(signals)(
        *(x[1:, mask[1]] if f in per_token(it, signals) else x for f, x in zip(signals._fields, signals, strict=True))
    )
    alone = scan(it, real, type(carry)(*(x[1:] for x in carry)), backend="reference")
    close(whole.read[1:, mask[1]], alone.read)
    close(type(carry)(*(x[1:] for x in whole.carry)), alone.carry)
    close(whole.read[:1], scan(it, signals, carry).read[:1])
    # Through the padding the carry passes unchanged.
    before = carry if where == "left" else type(carry)(*(x[:, padding.start - 1] for x in whole.captured))
    for field, crossed in zip(before, whole.captured, strict=True):
        for t in (padding.start, padding.stop - 1):
            close(crossed[1, t], field[1])


@every_case
def test_a_mask_that_does_not_fit_is_refused_and_one_row_is_every_sequences(case):
    it, signals, carry = problem(case, time=5)
    row = torch.tensor([[True, True, False, True, False]])
    assert torch.equal(scan(it, signals, carry, mask=row).read, scan(it, signals, carry, mask=row.repeat(2, 1)).read)
    for mask in (row[:, :4], row.repeat(3, 1), row[0]):
        with pytest.raises(ValueError, match=r"a mask of shape .* was given for 2 sequences of 5 tokens; give one of"):
            scan(it, signals, carry, mask=mask)
    with pytest.raises(ValueError, match="a mask on meta was given beside signals on cpu; move it there"):
        scan(it, signals, carry, mask=row.to("meta"))


@every_case
@pytest.mark.parametrize("time", [1, 70])
def test_gradients_equal_those_of_the_loop(case, time):
    it, signals, carry = problem(case, time=time)
    readers = random_readers(carry)
    inputs = [x.requires_grad_() for x in (*signals, *carry, readers) if x is not None and x.is_floating_point()]
    found = {}
    for backend in ("reference", "chunked"):
        result = scan(it, signals, carry, capture=sorted({0, time // 2, time - 1}), readers=readers, backend=backend)
        outputs = [result.read, result.readers, *result.carry, *result.captured]
        generator = torch.Generator().manual_seed(7)
        loss = sum((x * torch.randn(x.shape, generator=generator, dtype=x.dtype)).sum() for x in outputs)
        found[backend] = torch.autograd.grad(loss, inputs)
    for chunked, loop in zip(found["chunked"], found["reference"], strict=True):
        assert loop.abs().max() > 0
        close(chunked, loop)


@every_case
def test_a_batch_of_two_is_two_batches_of_one(case):
    it, signals, carry = problem(case)
    both = scan(it, signals, carry, capture=[50])
    for i in range(2):
        tokens = per_token(it, signals)
        one = type(signals)(
            *(x[i : i + 1] if f in tokens else x for f, x in zip(signals._fields, signals, strict=True))
        )
        alone = scan(it, one, type(carry)(*(x[i : i + 1] for x in carry)), capture=[50])
        close(both.read[i : i + 1], alone.read)
        for together, separate in zip((*both.carry, *both.captured), (*alone.carry, *alone.captured), strict=True):
            close(together[i : i + 1], separate)


@every_case
def test_a_future_token_changes_nothing_earlier(case):
    it, signals, carry = problem(case)
    readers = random_readers(carry)
    _, other, _ = problem(case, seed=11)
    tokens = per_token(it, signals)
    changed = type(signals)(
        *(
            torch.cat([x[:, :70], y[:, 70:]], 1) if f in tokens else x
            for f, x, y in zip(signals._fields, signals, other, strict=True)
        )
    )
    a = scan(it, signals, carry, capture=[69, 70], readers=readers)
    b = scan(it, changed, carry, capture=[69, 70], readers=readers)
    close(b.read[:, :70], a.read[:, :70])
    close(b.readers[:, :70], a.readers[:, :70])
    close(b.captured[0][:, 0], a.captured[0][:, 0])
    assert (b.read[:, 70] - a.read[:, 70]).abs().max() > 1e-3
    assert (b.captured[0][:, 1] - a.captured[0][:, 1]).abs().max() > 1e-3


@every_case
@pytest.mark.parametrize("time", [1, 70])
def test_autocast_costs_no_precision(case, time):
    it, signals, carry = problem(case, time=time, dtype=torch.float32)
    expected = scan(it, cast(signals, torch.float64), cast(carry, torch.float64), backend="reference")
    for backend in ("reference", "chunked"):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = scan(it, signals, carry, backend=backend)
        close(result.read, expected.read, torch.float32)
        close(result.carry, expected.carry, torch.float32)


@every_case
def test_a_backend_that_does_not_exist_is_an_error_that_names_those_that_do(case):
    it, signals, _ = problem(case, time=2)
    with pytest.raises(ValueError, match=f"{it.name!r} has no backend 'cudnn'; it has reference, chunked"):
        scan(it, signals, backend="cudnn")


def test_an_unknown_family_is_an_error_that_names_the_known_ones():
    with pytest.raises(ValueError, match=r"no scan family 'lsmt'; there are .*lstm"):
        family("lsmt")
