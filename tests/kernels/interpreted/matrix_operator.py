"""Oracle: torch.library.opcheck, eager mode, the `chunked` backend; for a refusal the reason it has to give."""

import pytest
import torch
from matrix_cases import CASES, case_id, cast, outputs, problem, run

from strobe.core.tolerances import assert_close
from strobe.kernels import scan
from strobe.kernels.triton_matrix.operator import matrix_scan

every_case = pytest.mark.parametrize("case", CASES, ids=case_id)


def arguments(case, time=5, keep=True):
    p = problem(case, time=time, heads=1, key=3, value=2)
    q, k, v, g, *low_rank = p.signals
    a, b = low_rank or (None, None)
    rank = 0 if b is None else 1 if a is None else 2
    return (q, k, v, g, a, b, p.carry.S, None, None, [], [], [3], None, time, 16, rank, keep)


@every_case
def test_the_operator_is_what_torch_expects_of_one(case):
    x = [y.requires_grad_() if isinstance(y, torch.Tensor) else y for y in arguments(case)]
    torch.library.opcheck(matrix_scan, tuple(x))


@every_case
def test_the_backward_operator_makes_what_its_fake_says(case):
    from strobe.kernels.triton_matrix.operator import matrix_scan_backward

    x = arguments(case)
    *_, starts, inverse = outputs_ = matrix_scan(*x)
    d = [torch.randn_like(y) for y in outputs_[:3]]
    given = (*d, *x[:7], starts, inverse, x[11], None, x[13], x[14], x[15])
    torch.library.opcheck(matrix_scan_backward, given, test_utils=("test_schema", "test_faketensor"))


def test_a_compiled_scan_is_one_graph_and_equals_eager():
    p = problem(CASES[2], time=9, heads=1)

    def scanned(q, k, v, g, b, S):
        signals = type(p.signals)(q, k, v, g, None, b)
        result = scan(p.family, signals, type(p.carry)(S), capture=[3], backend="triton")
        return result.read.sum() + result.captured.S.square().sum()

    inputs = [x.requires_grad_() for x in (*(x for x in p.signals if x is not None), p.carry.S)]
    eager = torch.autograd.grad(scanned(*inputs), inputs)
    compiled = torch.autograd.grad(torch.compile(scanned, fullgraph=True, backend="aot_eager")(*inputs), inputs)
    for x, y in zip(compiled, eager, strict=True):
        assert_close(x, y, kind="scan")


def test_what_cannot_run_is_refused_with_the_backend_that_can():
    p = problem(CASES[0], time=3)

    def refused(match, **changes):
        with pytest.raises(ValueError, match=match):
            run(p._replace(**changes))

    refused(r"backend 'triton' was asked for.*q is float64.*backend='chunked'", signals=cast(p.signals, torch.float64))
    refused("bfloat16, which the interpreter gets wrong; give float32", signals=cast(p.signals, torch.bfloat16))
    elsewhere = p.signals._replace(k=p.signals.k.to("meta"))
    refused("on several devices.*k on meta.*move them to one", signals=elsewhere)
    wide = problem(CASES[0], time=2, key=300)
    with pytest.raises(ValueError, match="300 key channels and the kernel holds 256; take backend='chunked'"):
        run(wide)
    with pytest.raises(ValueError, match="over no token"):
        scan(p.family, p.family.slice(p.signals, 0, 0), p.carry, backend="triton")
    with pytest.raises(ValueError, match="cannot share 2 heads"):
        run(p._replace(signals=p.signals._replace(q=p.signals.q.expand(-1, -1, 3, -1))))
    with pytest.raises(IndexError, match="position 3 was asked for"):
        run(p, capture=[3])
    short = p.signals._replace(k=p.signals.k[:, :2])
    refused(r"k is \[1, 2, 1, 8\], and beside the other signals it has to be \[1, 3, 1, 8\]", signals=short)
    delta = problem(CASES[2], time=3)
    with pytest.raises(ValueError, match="3 groups cannot share 2 heads"):
        run(delta._replace(signals=delta.signals._replace(k=delta.signals.k.repeat(1, 1, 2, 1)[:, :, :3])))


def test_an_empty_batch():
    p = problem(CASES[4], time=5)
    none = type(p.signals)(*(x[:0] for x in p.signals))
    result = scan(p.family, none, type(p.carry)(p.carry.S[:0]), capture=[2], readers=p.readers, backend="triton")
    shapes = {name: tuple(x.shape) for name, x in outputs(result).items()}
    assert shapes == {
        "read": (0, 5, 2, 6),
        "carry": (0, 2, 8, 6),
        "captured": (0, 1, 2, 8, 6),
        "readers": (0, 5, 2, 2, 6),
    }


def test_a_model_runs_on_it_and_so_does_one_at_the_seam(tmp_path):
    from transformers import Mamba2Config, Mamba2ForCausalLM

    import strobe

    config = Mamba2Config(
        vocab_size=11, hidden_size=8, num_hidden_layers=1, num_heads=2, head_dim=8, state_size=8, n_groups=1, expand=2
    )
    Mamba2ForCausalLM(config).eval().save_pretrained(tmp_path)
    tokens = torch.arange(9).unsqueeze(0)
    logits = {}
    for backend in ("triton", "chunked"):
        model = strobe.load(str(tmp_path), backend=backend)
        with torch.no_grad():
            logits[backend], cache = model.run_with_cache(tokens, states=[4])
        logits[f"{backend} state"] = cache["state", 0]
    assert_close(logits["triton"], logits["chunked"], kind="logits")
    assert_close(logits["triton state"], logits["chunked state"], kind="logits")
