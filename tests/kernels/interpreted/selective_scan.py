"""Oracle: the loop over the family's `step` in float64, and autograd through it; torch.library.opcheck."""

import pytest
import torch
from selective_cases import close, expected, gradients, leaves, outputs, problem, run

from strobe.core.tolerances import assert_close
from strobe.kernels import Edit, scan
from strobe.kernels.selective import triton
from strobe.kernels.triton_selective import launch
from strobe.kernels.triton_selective.operator import selective_scan, selective_scan_backward

# First, last, inside, repeated, not in order, from the end.
LOOKS = [20, 0, 15, -1, 16, 20]
both_readers = pytest.mark.parametrize("per_channel", [False, True], ids=["shared", "per-channel"])


@both_readers
def test_reads_carries_captures_and_readers(per_channel):
    p = problem(batch=2, per_channel=per_channel)
    result = run(p, capture=LOOKS)
    assert result.backend == "triton"
    close(result, expected(p, capture=LOOKS))


@pytest.mark.parametrize("time", [1, 2, 9])
def test_every_carry_of_a_short_sequence(time):
    p = problem(time=time)
    close(run(p, capture="all"), expected(p, capture="all"))


def test_more_channels_than_a_program_holds_and_tensors_that_are_not_contiguous():
    p = problem(time=5, channels=2 * launch.blocks(17)["BLOCK_CHANNELS"] + 1, state=17)
    turned = type(p.signals)(*(x.mT.contiguous().mT for x in p.signals))
    assert not turned.x.is_contiguous()
    close(run(p._replace(signals=turned)), expected(p))


def test_edits():
    p, generator = problem(), torch.Generator().manual_seed(5)
    edits = [
        Edit(position=4, kind="project_out", value=torch.randn(5, generator=generator)),
        Edit(position=15, kind="set", value=torch.randn(1, 2, 5, generator=generator), heads=[1, 4]),
        Edit(position=20, kind="scale", value=torch.rand(6, 1, generator=generator) - 0.5),
        Edit(position=20, kind="add", value=0.25, heads=[0]),
        Edit(position=22, kind="project_out", value=torch.randn(6, generator=generator)),
        Edit(position=23, kind="project_out", value=torch.randn(6, 5, generator=generator)),
        Edit(position=-1, kind="scale", value=-2.0),
    ]
    assert [triton.takes(e, p.signals, p.carry) for e in edits] == [True, True, True, True, False, False, True]
    close(run(p, capture=LOOKS, edits=edits), expected(p, capture=LOOKS, edits=edits))


def test_a_direction_with_as_many_entries_as_channels_is_one_over_channels():
    p = problem(time=9, channels=5, state=5)
    edits = [Edit(position=3, kind="project_out", value=torch.arange(1.0, 6.0))]
    close(run(p, edits=edits), expected(p, edits=edits))


def test_padding_changes_nothing():
    p = problem(time=23, batch=2)
    mask = torch.ones(2, 23, dtype=torch.bool)
    mask[0, :9], mask[1, 12:15] = False, False
    found = run(p, mask=mask)
    for i in range(2):
        x, delta, B, C = (s[i : i + 1, mask[i]] for s in p.exact.signals[:4])
        before = type(p.carry)(p.exact.carry.h[i : i + 1])
        alone = scan(p.family, type(p.signals)(x, delta, B, C, p.exact.signals.A), before, backend="reference")
        assert_close(found.read[i : i + 1, mask[i]], alone.read, kind="scan")
        assert_close(found.carry.h[i : i + 1], alone.carry.h, kind="scan")


def compare_gradients(p, extra=(), exact_extra=(), edits=lambda values: [], **kwargs):
    leaves(p)
    leaves(p.exact)
    found = gradients(p, run(p, edits=edits(extra), **kwargs), extra)
    wanted = gradients(p.exact, expected(p, edits=edits(exact_extra), **kwargs), exact_extra)
    for name, x in found.items():
        assert x.dtype == torch.float32
        assert wanted[name].abs().max() > 0, f"the oracle's gradient of {name} is zero"
        assert_close(x, wanted[name], kind="scan")


@both_readers
def test_gradient_of_every_input_through_reads_carry_captures_and_readers(per_channel):
    compare_gradients(problem(time=23, batch=2, per_channel=per_channel), capture=[12, 5, -1])


def test_gradient_over_several_segments_and_programs(monkeypatch):
    monkeypatch.setattr(launch, "LONGEST", 4)
    monkeypatch.setattr(launch, "_ENTRIES", 32)
    compare_gradients(problem(time=11), capture=[5])


def test_gradient_through_edits_and_to_their_values():
    values = [torch.randn(5), torch.randn(6, 5), torch.rand(6, 1)]

    def edits(values):
        return [
            Edit(position=4, kind="project_out", value=values[0]),
            Edit(position=7, kind="set", value=values[1][:1], heads=[0]),
            Edit(position=9, kind="add", value=values[1]),
            Edit(position=10, kind="scale", value=values[2]),
        ]

    extra = [x.clone().requires_grad_() for x in values]
    exact = [x.double().requires_grad_() for x in values]
    compare_gradients(problem(time=13), extra, exact, edits=edits, capture=[7, 11])


EXTREMES = {
    "all forgotten": lambda s: s._replace(delta=torch.full_like(s.delta, 300.0)),
    "nothing forgotten": lambda s: s._replace(A=torch.zeros_like(s.A)),
    "very negative": lambda s: s._replace(A=6e37 * s.A),
    "reset to exactly zero": lambda s: s._replace(A=torch.full_like(s.A, -torch.inf)),
    "growing a little": lambda s: s._replace(A=-0.2 * s.A),
}


@pytest.mark.parametrize("extreme", EXTREMES)
def test_extreme_decays(extreme):
    p = problem(time=19, change=EXTREMES[extreme])
    close(run(p, capture=[5]), expected(p, capture=[5]))


@pytest.mark.parametrize("field", ["x", "delta", "B", "C"])
def test_a_nan_goes_where_the_loop_takes_it_and_nowhere_else(field):
    def spoil(signals):
        x = getattr(signals, field).clone()
        x[0, 11, -1] = torch.nan
        return signals._replace(**{field: x})

    p = problem(time=15, change=spoil)
    found, wanted = outputs(run(p, capture=[9, 13])), outputs(expected(p, capture=[9, 13]))
    assert wanted["read"].isnan().any()
    for name, x in found.items():
        assert torch.equal(x.isnan(), wanted[name].isnan()), name
        if (clean := ~x.isnan()).any():
            assert_close(x[clean], wanted[name][clean], kind="scan")


def test_the_operators_are_what_torch_expects():
    p = problem(time=5, channels=3, state=2, per_channel=True)
    leaves(p)
    given = (*p.signals, p.carry.h, p.readers, None, None, [], [3], True)
    torch.library.opcheck(selective_scan, given)
    given = tuple(x.detach() if isinstance(x, torch.Tensor) else x for x in given)
    found = selective_scan(*given)
    d = [torch.randn_like(x) for x in found[:4]]
    backward = (*d, *given[:7], found[4], [3])
    torch.library.opcheck(selective_scan_backward, backward, test_utils=("test_schema", "test_faketensor"))


def test_a_compiled_scan_is_one_graph_and_equals_eager():
    p = problem(time=9)

    def scanned(x, delta, B, C, A, h):
        result = scan(p.family, type(p.signals)(x, delta, B, C, A), type(p.carry)(h), capture=[3], backend="triton")
        return result.read.sum() + result.captured.h.square().sum()

    inputs = [x.requires_grad_() for x in (*p.signals, p.carry.h)]
    eager = torch.autograd.grad(scanned(*inputs), inputs)
    compiled = torch.autograd.grad(torch.compile(scanned, fullgraph=True, backend="aot_eager")(*inputs), inputs)
    for x, y in zip(compiled, eager, strict=True):
        assert_close(x, y, kind="scan")


def test_what_cannot_run_is_refused_with_the_backend_that_can():
    p = problem(time=3)
    with pytest.raises(ValueError, match=r"'triton' was asked for.*x is float64.*backend='chunked'"):
        run(p.exact)
    with pytest.raises(ValueError, match="300 entries of state and the kernel holds 256; take backend='chunked'"):
        run(problem(time=2, state=300))
    with pytest.raises(ValueError, match="over no token"):
        scan(p.family, p.family.slice(p.signals, 0, 0), p.carry, backend="triton")
    with pytest.raises(ValueError, match=r"on several devices.*B on meta.*move them to one"):
        run(p._replace(signals=p.signals._replace(B=p.signals.B.to("meta"))))
    with pytest.raises(ValueError, match=r"C is \[1, 2, 5\], and beside the other signals it has to be \[1, 3, 5\]"):
        run(p._replace(signals=p.signals._replace(C=p.signals.C[:, 1:])))


def test_an_empty_batch():
    p = problem(time=5)
    none = type(p.signals)(*(x[:0] for x in p.signals[:4]), p.signals.A)
    result = scan(p.family, none, type(p.carry)(p.carry.h[:0]), capture=[2], readers=p.readers, backend="triton")
    shapes = {name: tuple(x.shape) for name, x in outputs(result).items()}
    assert shapes == {"read": (0, 5, 6), "carry": (0, 6, 5), "captured": (0, 1, 6, 5), "readers": (0, 5, 2, 6)}


def test_second_derivatives_and_gradients_of_nothing_kept_are_refused():
    p = problem(time=3)
    leaves(p)
    first = torch.autograd.grad(run(p).read.square().sum(), p.signals.x, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="selective_scan_backward"):
        torch.autograd.grad(first.sum(), p.signals.B)
    read = selective_scan(*p.signals, p.carry.h, None, None, None, [], [], False)[0]
    with pytest.raises(RuntimeError, match=r"ran without keep=True.*call strobe\.kernels\.scan"):
        read.sum().backward()


def test_a_model_runs_on_it_at_the_seam(tmp_path):
    from transformers import MambaConfig, MambaForCausalLM

    import strobe

    config = MambaConfig(vocab_size=11, hidden_size=8, num_hidden_layers=1, state_size=4, expand=2)
    MambaForCausalLM(config).eval().save_pretrained(tmp_path)
    tokens = torch.arange(9).unsqueeze(0)
    found = {}
    for backend in ("triton", "chunked"):
        model = strobe.load(str(tmp_path), backend=backend)
        with torch.no_grad():
            logits, cache = model.run_with_cache(tokens, states=[4])
        found[backend] = logits, cache["state", 0]
    for x, y in zip(found["triton"], found["chunked"], strict=True):
        assert_close(x, y, kind="logits")
