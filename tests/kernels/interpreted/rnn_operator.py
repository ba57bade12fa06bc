"""Oracle: torch.library.opcheck, eager mode, the `chunked` backend; for a refusal the reason it has to give."""

import pytest
import torch
from rnn_cases import CELLS, cast, outputs, problem, run

from strobe.core.tolerances import assert_close
from strobe.kernels import scan
from strobe.kernels.triton_rnn.launch import CELLS as SIZES
from strobe.kernels.triton_rnn.operator import rnn_scan, rnn_scan_backward

every_cell = pytest.mark.parametrize("cell", CELLS)


def arguments(cell, time=3, heads=2, dim=3):
    it = SIZES[cell]
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    b = normal(it.gates, heads, dim) if cell == "gru" else None
    kinds = torch.randint(0, 5, (1, it.fields, heads, dim), generator=generator, dtype=torch.int32)
    R, first = normal(it.gates, heads, dim, dim), normal(2, it.fields, heads, dim)
    mask = torch.tensor([[True] * time, [False] + [True] * (time - 1)])
    return [cell, normal(2, time, it.gates, heads, dim), R, b, mask, first, normal(1, 2, heads, dim), kinds, [1], [2]]


@every_cell
def test_the_operator_is_what_torch_expects_of_one(cell):
    x = arguments(cell)
    for i in (1, 2, 3, 5):
        if x[i] is not None:
            x[i].requires_grad_()
    torch.library.opcheck(rnn_scan, (*x, True))


@every_cell
def test_the_backward_operator_makes_what_its_fake_says(cell):
    x = arguments(cell)
    *made, carries, saved = rnn_scan(*x, True)
    given = (*(torch.randn_like(y) for y in made), *x, carries, saved)
    torch.library.opcheck(rnn_scan_backward, given, test_utils=("test_schema", "test_faketensor"))


def test_a_gradient_of_an_edits_value_is_refused_by_the_operator():
    x = arguments("lstm")
    x[6].requires_grad_()
    with pytest.raises(RuntimeError, match=r"edit's value was asked.*which has none; call strobe\.kernels\.scan"):
        rnn_scan(*x, True)[0].sum().backward()


@every_cell
def test_a_compiled_scan_is_one_graph_and_equals_eager(cell):
    p = problem(cell, time=5, hidden=6, heads=2)
    weights = sum(x is not None for x in p.signals)

    def scanned(*inputs):
        signals, carry = type(p.signals)(*inputs[:weights]), type(p.carry)(*inputs[weights:])
        result = scan(p.family, signals, carry, capture=[3], backend="triton")
        return result.read.sum() + sum(x.square().sum() for x in result.captured)

    inputs = [x.requires_grad_() for x in (*(x for x in p.signals if x is not None), *p.carry)]
    eager = torch.autograd.grad(scanned(*inputs), inputs)
    compiled = torch.autograd.grad(torch.compile(scanned, fullgraph=True, backend="aot_eager")(*inputs), inputs)
    for x, y in zip(compiled, eager, strict=True):
        assert_close(x, y, kind="scan")


def test_what_cannot_run_is_refused_with_the_backend_that_can():
    p = problem("gru", time=3)

    def refused(match, **changes):
        with pytest.raises(ValueError, match=match):
            run(p._replace(**changes))

    refused(r"backend 'triton' was asked for.*x is float64.*backend='chunked'", signals=cast(p.signals, torch.float64))
    refused("bfloat16, which the interpreter gets wrong; give float32", signals=cast(p.signals, torch.bfloat16))
    refused("on several devices.*W on meta.*move them to one", signals=p.signals._replace(W=p.signals.W.to("meta")))
    with pytest.raises(ValueError, match=r"R of 129 channels.*the kernel takes 128; take backend='chunked'"):
        run(problem("gru", time=2, hidden=129))
    with pytest.raises(ValueError, match="over no token"):
        scan(p.family, p.family.slice(p.signals, 0, 0), p.carry, backend="triton")
    with pytest.raises(IndexError, match="position 3 was asked for"):
        run(p, capture=[3])


@every_cell
def test_an_edit_that_does_not_fit_is_refused_as_it_is_elsewhere(cell):
    from strobe.kernels import Edit

    p = problem(cell, time=3)
    for edit, match in [
        (Edit(position=0, kind="add", value=torch.ones(3, 6)), "does not broadcast"),
        (Edit(position=0, kind="set", value=1.0, heads=[7]), "asks for heads"),
        (Edit(position=0, kind="project_out", value=torch.zeros(7)), "positive norm"),
        (Edit(position=0, kind="set", value=1.0, field="S"), "names the field 'S'"),
    ]:
        with pytest.raises(ValueError, match=match):
            run(p, edits=[edit])


@every_cell
def test_an_empty_batch(cell):
    p = problem(cell, time=5)
    none = p.signals._replace(x=p.signals.x[:0].requires_grad_())
    result = scan(
        p.family, none, type(p.carry)(*(x[:0] for x in p.carry)), capture=[2], readers=p.readers, backend="triton"
    )
    found = outputs(result)
    assert found["read"].shape == (0, 5, 7)
    assert found["captured h"].shape == (0, 1, 7)
    assert found["readers"].shape == (0, 5, 2)
    assert torch.autograd.grad(result.read.sum(), none.x)[0].shape == none.x.shape


def test_under_autocast_it_stays_in_the_dtype_of_its_weights():
    p = problem("lstm", time=5)
    with torch.autocast("cpu", torch.bfloat16):
        result = run(p)
    assert result.read.dtype == torch.float32
    assert torch.equal(result.read, run(p).read)


@every_cell
def test_a_model_runs_on_it(cell):
    from strobe.models.config import ModelConfig
    from strobe.models.native import HookedLM

    config = ModelConfig(d_model=8, d_vocab=11, layers=[cell], d_mlp=8, mixer_options={cell: {"hidden": 8}})
    tokens, found = torch.arange(9).unsqueeze(0), {}
    for backend in ("triton", "chunked"):
        model = HookedLM(config)
        model.backend = backend
        with torch.no_grad():
            logits, cache = model.run_with_cache(tokens, states=[4])
        found[backend] = logits, cache["state", 0]
    for ours, theirs in zip(*found.values(), strict=True):
        assert_close(ours, theirs, kind="logits")
