"""Oracle: the loop over each family's `step` in float64, with the same captures, edits, readers and padding."""

import pytest
import torch
from matrix_cases import CASES, case_id, close, expected, outputs, problem, run

from strobe.core.tolerances import assert_close
from strobe.kernels import Edit, scan
from strobe.kernels.triton_matrix import adapter
from strobe.kernels.triton_matrix.operator import matrix_scan

every_case = pytest.mark.parametrize("case", CASES, ids=case_id)
# In chunks of 16: first and last of one, inside, repeated, not in order, from the end.
LOOKS = [20, 0, 15, -1, 16, 20]


def edits(value=6):
    """Every kind, inside a chunk and at its end, for some heads, two at one token, and one that has to cut the scan."""
    generator = torch.Generator().manual_seed(5)
    direction = torch.randn(8, generator=generator)
    return [
        Edit(position=4, kind="project_out", value=direction),
        Edit(position=15, kind="set", value=torch.randn(1, 1, 8, value, generator=generator), heads=[1]),
        Edit(position=20, kind="scale", value=torch.rand(8, 1, generator=generator) - 0.5),
        Edit(position=20, kind="add", value=0.25, heads=[0]),
        Edit(position=22, kind="project_out", value=torch.randn(8, value, generator=generator)),
        Edit(position=-1, kind="scale", value=-2.0),
    ]


@every_case
def test_reads_carries_captures_and_readers(case):
    p = problem(case)
    result = run(p, capture=LOOKS)
    assert result.backend == "triton"
    close(result, expected(p, capture=LOOKS))


@every_case
def test_edits(case):
    p = problem(case)
    here = edits()
    inside = [adapter.takes(e, p.signals, p.carry) for e in here]
    assert inside == [True, True, True, True, False, True]
    close(run(p, capture=LOOKS, edits=here), expected(p, capture=LOOKS, edits=here))


@pytest.mark.parametrize("case", [CASES[0], CASES[5]], ids=case_id)
@pytest.mark.parametrize("time", [1, 2, 17])
def test_lengths_around_a_chunk(case, time):
    p = problem(case, time=time)
    close(run(p, capture="all"), expected(p, capture="all"))


@pytest.mark.parametrize(("case", "chunk"), [(CASES[0], 64), (CASES[1], 32), (CASES[3], 32), (CASES[4], 64)], ids=str)
def test_longer_chunks(case, chunk):
    p = problem(case, time=63, heads=1)
    rank = 0 if case[0] == "decay" else 1 if p.signals.a is None else 2
    found = adapter.run(rank, p.signals, p.carry, [5, 40], p.readers, (), chunk)
    wanted = expected(p, capture=[5, 40])
    for name, x in outputs(found).items():
        assert_close(x, outputs(wanted)[name], kind="scan")


def test_heads_in_groups_and_sizes_that_fill_no_tile():
    for case in (CASES[0], CASES[2]):
        p = problem(case, time=17, heads=2, key=17, value=70)
        close(run(p), expected(p))


@pytest.mark.parametrize("case", [CASES[1], CASES[2]], ids=case_id)
def test_padding_changes_nothing(case):
    p = problem(case, time=33, batch=2, heads=1)
    mask = torch.ones(2, 33, dtype=torch.bool)
    mask[0, :9], mask[1, 20:26] = False, False
    found = run(p, mask=mask)
    for i in range(2):
        real = type(p.signals)(*(None if x is None else x[i : i + 1, mask[i]] for x in p.exact.signals))
        before = type(p.carry)(p.exact.carry.S[i : i + 1])
        alone = scan(p.family, real, before, readers=p.exact.readers, backend="reference")
        assert_close(found.read[i : i + 1, mask[i]], alone.read, kind="scan")
        assert_close(found.readers[i : i + 1, mask[i]], alone.readers, kind="scan")
        assert_close(found.carry.S[i : i + 1], alone.carry.S, kind="scan")


@pytest.mark.parametrize("case", [CASES[0], CASES[3]], ids=case_id)
def test_sequences_of_different_lengths_end_to_end(case):
    lengths, p = [5, 20, 1], problem(case, time=26)
    offsets = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)
    S = torch.randn(3, 2, 8, 6)
    q, k, v, g, *low_rank = p.signals
    a, b = low_rank or (None, None)
    rank = 1 if low_rank else 0
    read, carry, *_ = matrix_scan(q, k, v, g, a, b, S, None, None, [], [], [], offsets, 20, 16, rank, False)
    for i, (start, stop) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)):
        piece = p.family.slice(p.exact.signals, start, stop)
        alone = scan(p.family, piece, type(p.carry)(S[i : i + 1].double()), backend="reference")
        assert_close(read[:, start:stop], alone.read, kind="scan")
        assert_close(carry[i : i + 1], alone.carry.S, kind="scan")


def test_the_carry_at_each_chunks_start_on_request():
    p = problem(CASES[4], time=37, heads=1)
    everything = expected(p, capture="all").captured.S
    q, k, v, g, a, b = p.signals
    starts = matrix_scan(q, k, v, g, a, b, p.carry.S, None, None, [], [], [], None, 37, 16, 2, True)[4]
    wanted = torch.stack([p.carry.S.double(), everything[:, 15], everything[:, 31]], 2)
    assert_close(starts, wanted, kind="scan")


EXTREMES = {
    "all forgotten": lambda x: torch.full_like(x, -30),
    "nothing forgotten": torch.zeros_like,
    "strong, then none": lambda x: torch.where(
        torch.arange(x.shape[1]).view(1, -1, *[1] * (x.ndim - 2)) < 20, -30.0, 0.1 * x
    ),
    "reset to exactly zero": lambda x: torch.where(x < -0.9, -torch.inf, x),
    "very negative": lambda x: 1e36 * x,
    "growing a little": lambda x: x + 0.6,
}


# Decays of these three are cumulated in three ways.
@pytest.mark.parametrize("case", [CASES[0], CASES[2], CASES[3]], ids=case_id)
@pytest.mark.parametrize("extreme", EXTREMES)
def test_extreme_decays(case, extreme):
    p = problem(case, heads=1, change=lambda s: s._replace(log_decay=EXTREMES[extreme](s.log_decay)))
    close(run(p, capture=[5, 30]), expected(p, capture=[5, 30]))


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_a_nan_goes_where_the_loop_takes_it_and_nowhere_else(case):
    fields = [f for f, x in problem(case, time=2).signals._asdict().items() if x is not None]
    for field in fields:

        def spoil(signals, field=field):
            x = getattr(signals, field).clone()
            x[0, 21].view(-1)[-1] = torch.nan
            return signals._replace(**{field: x})

        p = problem(case, time=27, heads=1, change=spoil)
        found, wanted = outputs(run(p, capture=[18, 23])), outputs(expected(p, capture=[18, 23]))
        assert wanted["read"].isnan().any()
        for name, x in found.items():
            assert torch.equal(x.isnan(), wanted[name].isnan()), f"NaN in {field}: {name}"
            if (clean := ~x.isnan()).any():
                assert_close(x[clean], wanted[name][clean], kind="scan")


def test_tensors_that_are_not_contiguous():
    p = problem(CASES[4], time=19)
    turned = type(p.signals)(*(x.transpose(1, -1).contiguous().transpose(1, -1) for x in p.signals))
    assert not turned.q.is_contiguous()
    close(run(p._replace(signals=turned)), expected(p))
    wide = type(p.signals)(*(torch.stack([x, torch.full_like(x, torch.nan)], -1)[..., 0] for x in p.signals))
    close(run(p._replace(signals=wide)), expected(p))
