"""Oracle: the loop over each cell's `step` in float64, with the same captures, edits, readers and padding."""

import pytest
import torch
from rnn_cases import CELLS, close, edits, expected, outputs, padding, problem, run

from strobe.core.tolerances import assert_close
from strobe.kernels import Edit
from strobe.kernels.triton_rnn import adapter
from strobe.kernels.triton_rnn.launch import tiles
from strobe.kernels.triton_rnn.operator import rnn_scan

every_cell = pytest.mark.parametrize("cell", CELLS)
# First and last, repeated, not in order, from the end.
LOOKS = [9, 0, -1, 4, 9]


@every_cell
def test_reads_carries_captures_and_readers(cell):
    p = problem(cell)
    result = run(p, capture=LOOKS)
    assert result.backend == "triton"
    close(result, expected(p, capture=LOOKS))


@every_cell
def test_edits_inside_one_launch(cell, monkeypatch):
    p, launches = problem(cell), []
    monkeypatch.setattr(adapter, "rnn_scan", lambda *a: launches.append(a) or rnn_scan(*a))
    close(run(p, capture=LOOKS, edits=edits(cell)), expected(p, capture=LOOKS, edits=edits(cell)))
    assert len(launches) == 1


@every_cell
def test_a_direction_over_the_batch_cuts_the_scan(cell):
    p = problem(cell)
    edit = Edit(position=6, kind="project_out", value=torch.randn(3, 7))
    assert not adapter.takes(edit, p.signals, p.carry)
    close(run(p, edits=[edit]), expected(p, edits=[edit]))


@every_cell
def test_padding(cell):
    p, mask = problem(cell), padding()
    close(
        run(p, mask=mask, capture=LOOKS, edits=edits(cell)),
        expected(p, mask=mask, capture=LOOKS, edits=edits(cell)),
    )


@every_cell
@pytest.mark.parametrize(("time", "batch", "hidden"), [(1, 1, 1), (2, 17, 16), (63, 1, 5), (5, 33, 33), (3, 2, 64)])
def test_lengths_and_sizes_around_a_tile(cell, time, batch, hidden):
    p = problem(cell, time=time, batch=batch, hidden=hidden)
    close(run(p, capture="all"), expected(p, capture="all"))


@every_cell
def test_heads_whose_weights_are_read_in_pieces(cell):
    """97 channels are six pieces and one row of a seventh."""
    assert tiles(cell, 97, torch.float32).piece == (0 if cell == "elman" else 16)
    p, mask = problem(cell, time=13, hidden=194, heads=2), padding(time=13)
    asked = {"mask": mask, "capture": [9, 0, -1], "edits": [e for e in edits(cell, 194) if e.kind != "project_out"]}
    close(run(p, **asked), expected(p, **asked))


@every_cell
def test_a_nan_weight_of_one_head_does_not_reach_another(cell):
    """The row after a head's last is the next head's, and 0 times its NaN would be one."""
    p = problem(cell, time=2, hidden=194, heads=2)
    R = p.signals.R.unflatten(0, (-1, 2, 97)).clone()
    R[:, 1] = torch.nan
    found = run(p._replace(signals=p.signals._replace(R=R.flatten(0, 2)))).read
    assert found[..., 97:].isnan().all()
    assert torch.equal(found[..., :97], run(p).read[..., :97])


@every_cell
def test_block_diagonal_weights_are_heads_that_do_not_meet(cell):
    heads, dim = 3, 5
    p = problem(cell, hidden=heads * dim)
    blocks = p.signals.R.unflatten(1, (heads, dim)).unflatten(0, (-1, heads, dim)).diagonal(0, 1, 3).permute(0, 3, 1, 2)
    gates = blocks.shape[0]
    R = torch.stack([torch.block_diag(*gate) for gate in blocks]).flatten(0, 1)
    dense = p.exact._replace(signals=p.exact.signals._replace(R=R.double()))
    wanted = run(dense, backend="reference", capture=[4])
    pre = (p.signals.x @ p.signals.W.T + p.signals.b).unflatten(-1, (gates, heads, dim))
    b = p.signals.b_r.unflatten(0, (gates, heads, dim)) if cell == "gru" else None
    first = torch.stack(list(p.carry), 1).unflatten(-1, (heads, dim))
    read, last, captured, carries, _ = rnn_scan(cell, pre, blocks, b, None, first, None, None, [], [4], True)
    assert_close(read.flatten(2), wanted.read, kind="scan")
    assert adapter.refusal(p.signals, p.carry, None) is None
    for i, name in enumerate(wanted.carry._fields):
        assert_close(last[:, i].flatten(1), getattr(wanted.carry, name), kind="scan")
        assert_close(captured[:, :, i].flatten(2), getattr(wanted.captured, name), kind="scan")
        assert_close(carries[:, 4, i], captured[:, 0, i], kind="scan")


@pytest.mark.parametrize("cell", ["gru", "lstm", "slstm"])
def test_every_gate_is_kept(cell):
    from strobe.kernels.rnn import gru_trace, lstm_trace, slstm_trace

    p = problem(cell)
    gates = 3 if cell == "gru" else 4
    pre = (p.signals.x @ p.signals.W.T + p.signals.b).unflatten(-1, (gates, 1, 7))
    b = p.signals.b_r.unflatten(0, (3, 1, 7)) if cell == "gru" else None
    first = torch.stack(list(p.carry), 1).unsqueeze(2)
    R = p.signals.R.unflatten(0, (gates, 1, 7))
    *_, saved = rnn_scan(cell, pre, R, b, None, first, None, None, [], [], True)
    trace = {"gru": gru_trace, "lstm": lstm_trace, "slstm": slstm_trace}[cell]
    wanted = trace(p.exact.signals, p.exact.carry, expected(p).read)
    saved = saved[:, :, :, 0].unbind(2)
    if cell == "slstm":
        # The first two are kept before the exponential: with m of both tokens they are the trace's i and f.
        before = torch.cat([p.exact.carry.m.unsqueeze(1), wanted.m[:, :-1]], 1)
        forget = torch.nn.functional.logsigmoid(saved[1]) + before - wanted.m
        saved = ((saved[0] - wanted.m).exp().float(), forget.exp().float(), *saved[2:])
    for x, name in zip(saved, {"gru": "rzn", "lstm": "ifgo", "slstm": "ifzo"}[cell], strict=False):
        assert_close(x, getattr(wanted, name), kind="scan")


def exact_gates(signals):
    """Pre-activations of i, f that float32 holds exactly, i~ from -100 over 0 to 100: e^i~ does neither."""
    R = signals.R.unflatten(0, (4, -1)).clone()
    W, b = signals.W.unflatten(0, (4, -1)).clone(), signals.b.unflatten(0, (4, -1)).clone()
    R[:2], W[:2], b[:2] = 0, (8 * W[:2]).round() / 8, (8 * b[:2]).round() / 8
    x = (8 * signals.x).round() / 8
    x[..., 0] = torch.linspace(-100, 100, x.shape[1]).round()
    W[0, :, 0], W[1, :, 0] = 1, -0.25
    return signals._replace(x=x, W=W.flatten(0, 1), R=R.flatten(0, 1), b=b.flatten())


def test_an_exponential_gate_that_float32_does_not_hold():
    p = problem("slstm", change=exact_gates)
    fresh = p._replace(carry=None, exact=p.exact._replace(carry=None))
    for it in (p, fresh):
        result = run(it, capture=LOOKS)
        assert result.carry.m.min() > 90
        assert (result.captured.m[:, 1].max() < -90) == (it.carry is None)
        close(result, expected(it, capture=LOOKS))


@every_cell
def test_heads_of_the_recurrent_weights(cell):
    p = problem(cell, hidden=15, heads=3)
    edit = Edit(position=6, kind="project_out", value=torch.randn(15))
    assert not adapter.takes(edit, p.signals, p.carry)
    here = [edit, Edit(position=9, kind="set", value=torch.randn(3, 2), heads=[14, 1])]
    close(run(p, capture=LOOKS, edits=here), expected(p, capture=LOOKS, edits=here))


@pytest.mark.parametrize("cell", ["elman", "gru", "lstm"])  # what saturates is a sigmoid or a tanh
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_saturated_gates_do_not_overflow(cell, size):
    p = problem(cell, change=lambda s: s._replace(b=s.b + size))
    result = run(p)
    assert result.read.isfinite().all()
    close(result, expected(p))


@every_cell
def test_a_nan_goes_where_the_loop_takes_it_and_nowhere_else(cell):
    def spoil(signals):
        x = signals.x.clone()
        x[1, 6, 0] = torch.nan
        return signals._replace(x=x)

    p = problem(cell, time=11, change=spoil)
    # Set after the token, it is gone from h; an LSTM still has it in c, an sLSTM in all three others.
    for here in ([], [Edit(position=8, kind="set", value=0.5)]):
        found, wanted = outputs(run(p, capture=[5, 7], edits=here)), outputs(expected(p, capture=[5, 7], edits=here))
        assert wanted["read"].isnan().any()
        for name, x in found.items():
            assert torch.equal(x.isnan(), wanted[name].isnan()), name
            clean = ~x.isnan()
            assert_close(x[clean], wanted[name][clean], kind="scan")


@every_cell
def test_tensors_that_are_not_contiguous(cell):
    p = problem(cell)

    def turned(x):
        return x if x is None else torch.stack([x, torch.full_like(x, torch.nan)], -1)[..., 0]

    signals = type(p.signals)(*map(turned, p.signals))
    assert not signals.R.is_contiguous()
    close(run(p._replace(signals=signals, carry=type(p.carry)(*map(turned, p.carry)))), expected(p))
