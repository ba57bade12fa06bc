"""Oracle: the loop over the family's `step` in float64, and autograd through it; opcheck."""

import pytest
import torch

from strobe.core.tolerances import assert_close
from strobe.kernels import Edit, scan
from strobe.kernels.triton_wkv.operator import BLOCK, wkv_scan, wkv_scan_backward
from strobe.kernels.wkv import WKV, WKVCarry, WKVSignals
from strobe.kernels.wkv.reference import random_signals

LOOKS = [20, 0, 15, -1, 16, 20]


def problem(time=37, batch=2, channels=5):
    """k, v, w, u, num, den, max, readers."""
    signals = random_signals(batch, time, channels=channels)
    generator = torch.Generator().manual_seed(3)
    num, den, top = torch.randn(3, batch, channels, generator=generator)
    return [*signals[:4], num, den.abs() + 0.5, top, torch.randn(2, channels, generator=generator)]


def run(inputs, backend="triton", *, empty=False, **asked):
    *signals, num, den, top, readers = inputs
    carry = None if empty else WKVCarry(num, den, top)
    return scan(WKV, WKVSignals(*signals), carry, readers=readers, backend=backend, **asked)


def expected(inputs, **asked):
    return run([x.double() for x in inputs], "reference", **asked)


def outputs(result):
    found = {"read": result.read, "readers": result.readers, **result.carry._asdict()}
    looked = {} if result.captured is None else result.captured._asdict()
    return {**found, **{f"captured {name}": x for name, x in looked.items()}}


def close(result, wanted):
    found, wanted = outputs(result), outputs(wanted)
    assert found.keys() == wanted.keys()
    for name, x in found.items():
        assert x.dtype == torch.float32
        assert_close(x, wanted[name], kind="scan")


def padding(time):
    """Some tokens of each of two sequences, the first and the last among them."""
    mask = torch.rand(2, time, generator=torch.Generator().manual_seed(1)) < 0.6
    mask[0, :3], mask[1, -2:] = False, False
    return mask


@pytest.mark.parametrize("time", [1, 2, 37])
@pytest.mark.parametrize("empty", [False, True])
def test_reads_carries_captures_and_readers(time, empty):
    p = problem(time)
    looks = LOOKS if time == 37 else "all"
    result = run(p, empty=empty, capture=looks)
    assert result.backend == "triton"
    close(result, expected(p, empty=empty, capture=looks))


@pytest.mark.parametrize("empty", [False, True])
def test_padding_more_channels_than_a_program_holds_and_other_layouts(empty):
    p = problem(19, channels=BLOCK + 3)
    p[0] = p[0].mT.contiguous().mT
    asked = {"mask": padding(19), "capture": [0, 2, 18], "empty": empty}
    close(run(p, **asked), expected(p, **asked))


@pytest.mark.parametrize("scale", [100.0, -100.0, 50.0], ids=["all 100", "all -100", "both"])
@pytest.mark.parametrize("empty", [False, True])
def test_keys_of_a_hundred_neither_overflow_nor_vanish(empty, scale):
    p = problem(37)
    # Multiples of 1/16, of which sums are exact: float32 holds 100 + 0.3 to 4e-6 only, which would be the error seen.
    for i in (0, 2, 3, 6):
        p[i] = (16 * p[i]).round() / 16
    p[0] = p[0] * 16 if scale == 50.0 else p[0] + scale
    assert p[0].abs().max() > 90
    result = run(p, empty=empty, capture=LOOKS)
    assert all(x.isfinite().all() for x in outputs(result).values())
    close(result, expected(p, empty=empty, capture=LOOKS))


def test_edits_of_every_field():
    p = problem()
    value = torch.randn(5, generator=torch.Generator().manual_seed(5))
    edits = [
        Edit(position=4, kind="set", value=value[:2], heads=[1, 4]),
        Edit(position=9, kind="set", value=value.abs(), field="den"),
        Edit(position=9, kind="set", value=-0.5, field="max", heads=[0, 2]),
        Edit(position=15, kind="scale", value=value),
        Edit(position=15, kind="add", value=0.25, heads=[0]),
        Edit(position=16, kind="scale", value=2.5, field="den", heads=[3]),
        Edit(position=16, kind="add", value=0.75, field="den"),
        Edit(position=20, kind="scale", value=0.5, field="max"),
        Edit(position=20, kind="add", value=value, field="max"),
        Edit(position=22, kind="project_out", value=value),
        Edit(position=-1, kind="scale", value=-2.0),
    ]
    takes = [WKV.backends["triton"].takes(e, WKVSignals(*p[:4]), WKVCarry(*p[4:7])) for e in edits]
    assert takes == [e.kind != "project_out" for e in edits]
    looks = [*LOOKS, 4, 9, 22]
    close(run(p, capture=looks, edits=edits), expected(p, capture=looks, edits=edits))
    with pytest.raises(ValueError, match="this carry has num, den, max"):
        run(p, edits=[Edit(position=0, kind="set", value=0.0, field="h")])


def gradients(p, backend, wide, learned=None, **asked):
    """Of a random sum over everything that comes out, by every input, and by the edit's value if one is learned."""
    inputs = [(x.double() if wide else x).detach().requires_grad_() for x in p]
    if learned is not None:
        learned = (learned.double() if wide else learned).clone().requires_grad_()
        # The second has no gradient of its own, but the carry that it changes has.
        edits = [Edit(position=6, kind="scale", value=learned), Edit(position=8, kind="scale", value=0.5, field="den")]
        asked["edits"] = edits
    generator, loss = torch.Generator().manual_seed(7), 0.0
    for x in outputs(run(inputs, backend, **asked)).values():
        loss = loss + (x * torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)).sum()
    by = inputs if learned is None else [*inputs, learned]
    by = [x for x, used in zip(by, [*[True] * 4, *[not asked.get("empty")] * 3, True, True], strict=False) if used]
    return torch.autograd.grad(loss, by)


@pytest.mark.parametrize("case", ["plain", "empty", "padding", "ties", "large keys", "edits"])
def test_gradients_of_every_input(case):
    p = problem(13)
    asked = {"capture": [3, 6, 12], "empty": case == "empty"}
    if case == "padding":
        asked["mask"] = padding(13)
    if case == "ties":
        p[0], p[2], p[6] = p[0].round() / 2, torch.full_like(p[2], -0.5), p[6].round() / 2
        top, k = p[6], p[0]
        assert (top - 0.5 == k[:, 0]).any()
    if case == "large keys":
        p[0] = (16 * p[0]).round() * 2
        p[2], p[3], p[6] = ((16 * x).round() / 16 for x in (p[2], p[3], p[6]))
    asked["learned"] = torch.rand(5) + 0.5 if case == "edits" else None
    found, wanted = gradients(p, "triton", False, **asked), gradients(p, "reference", True, **asked)
    for x, y in zip(found, wanted, strict=True):
        assert y.abs().max() > 0
        assert_close(x, y, kind="scan")


def test_a_gradient_reaches_a_learned_edit_through_one_that_is_not():
    found = []
    for wide, backend in ((False, "triton"), (True, "reference")):
        p = [x.double() if wide else x for x in problem(11)]
        value = torch.tensor(1.5, dtype=p[0].dtype, requires_grad=True)
        edits = [Edit(position=2, kind="scale", value=value), Edit(position=5, kind="add", value=0.5, field="max")]
        result = run(p, backend, edits=edits, capture=[8])
        found.append(torch.autograd.grad(result.captured.num.sum() + result.carry.num.sum(), value)[0])
    assert found[1].abs() > 1e-3
    assert_close(found[0], found[1], kind="scan")


def test_a_nan_goes_where_the_loop_takes_it_and_nowhere_else():
    p = problem(9)
    p[0][0, 4, -1], p[1][1, 6, 0] = torch.nan, torch.nan
    found, wanted = outputs(run(p, capture="all")), outputs(expected(p, capture="all"))
    assert wanted["captured max"].isnan().any()
    for name, x in found.items():
        assert torch.equal(x.isnan(), wanted[name].isnan()), name


def test_the_operator_is_what_torch_expects():
    k, v, w, u, num, den, top, _ = (x.requires_grad_() for x in problem(3, channels=2))
    carry = torch.stack([num, den, top], 1).detach().requires_grad_()
    for mask in (None, padding(3)):
        torch.library.opcheck(wkv_scan, (k, v, w, u, mask, carry, None, None, [], [], True))
    plain, carry = [x.detach() for x in (k, v, w, u)], carry.detach()
    torch.library.opcheck(wkv_scan, (*plain, None, carry, None, None, [], [0, 2], False))
    read, every, *_ = wkv_scan(*plain, padding(3), carry, None, None, [], [], True)
    given = (torch.ones_like(read), torch.ones_like(every), *plain, padding(3), carry, every)
    torch.library.opcheck(wkv_scan_backward, given, test_utils=("test_schema", "test_faketensor"))


def test_a_graph_without_breaks_gives_the_same_numbers():
    inputs = [x.requires_grad_() for x in problem(5)]

    def scanned(*inputs):
        result = run(inputs, capture=[1])
        return result.read.sum() + result.readers.sum() + result.captured.num.sum() + result.carry.max.sum()

    eager = torch.autograd.grad(scanned(*inputs), inputs)
    compiled = torch.autograd.grad(torch.compile(scanned, fullgraph=True, backend="aot_eager")(*inputs), inputs)
    assert eager[0].abs().max() > 0
    for x, y in zip(compiled, eager, strict=True):
        assert_close(x, y, kind="scan")


def test_a_gradient_of_what_was_not_kept_is_an_error():
    k, v, w, u, num, den, top, _ = problem(3)
    carry = torch.stack([num, den, top], 1)
    read, *_ = wkv_scan(k.requires_grad_(), v, w, u, None, carry, None, None, [], [], False)
    with pytest.raises(RuntimeError, match=r"strobe::wkv_scan was asked for.*without keep=True.*call strobe"):
        read.sum().backward()


def test_what_cannot_run_is_refused_and_an_empty_batch_is_not():
    p = problem(3)
    with pytest.raises(ValueError, match=r"'triton' was asked for.*k is float64.*backend='chunked'"):
        run([x.double() for x in p])
    with pytest.raises(ValueError, match=r"v is \[\d, 2, 5\], and beside the other signals it has to be \[\d, 3, 5\]"):
        run([p[0], p[1][:, 1:], *p[2:]])
    none = [*(x[:0] for x in p[:2]), *p[2:4], *(x[:0] for x in p[4:7]), p[7]]
    found = {name: tuple(x.shape) for name, x in outputs(run(none, capture=[1])).items()}
    each = {"num": (0, 5), "den": (0, 5), "max": (0, 5)}
    looked = {f"captured {name}": (0, 1, 5) for name in each}
    assert found == {"read": (0, 3, 5), "readers": (0, 3, 2), **each, **looked}
    inputs = [x.requires_grad_() for x in none]
    got = torch.autograd.grad(run(inputs).read.sum(), inputs[:4])
    assert [(tuple(x.shape), x.abs().sum().item()) for x in got[2:]] == [((5,), 0.0)] * 2
