"""Oracle: counting, token by token; for carries, the recurrence between chunks written out."""

from typing import Any

import pytest
import torch

from strobe.kernels import Edit, scan
from strobe.kernels.chunk_carries import captured_carries, carries_across
from strobe.kernels.chunk_layout import Layout
from strobe.kernels.decay import DECAY, DecayCarry, random_signals
from strobe.kernels.edits import edits_by_position

TIMES = pytest.mark.parametrize("time", [1, 7, 8, 9, 40])
EDITS = pytest.mark.parametrize("where", [[], [0], [6], [7], [2, 3], [0, 6, 7, 8, 39]])


def layout_of(time, where, longest=8):
    edits = [Edit(position=p, kind="scale", value=2.0) for p in where if p < time]
    return Layout(time, longest, edits_by_position(edits, time))


@TIMES
@EDITS
def test_every_token_has_one_place_and_all_others_hold_zeros(time, where):
    layout = layout_of(time, where)
    tokens = torch.arange(1, time + 1).expand(2, time)
    chunks = layout.to_chunks(tokens[..., None], torch.float64)
    assert chunks.dtype == torch.float64
    assert chunks.shape[2] == layout.chunk <= 8
    flat = chunks.flatten(1)[0].tolist()
    assert [x for x in flat if x] == list(range(1, time + 1))
    assert [flat[place] for place in layout.places(range(time))] == list(range(1, time + 1))
    assert torch.equal(layout.to_time(chunks)[..., 0], tokens.double())


@TIMES
@EDITS
def test_a_carry_crosses_where_no_later_token_is_in_its_chunk(time, where):
    layout = layout_of(time, where)
    chunk_of = [place // layout.chunk for place in layout.places(range(time))]
    crossing = [c if t + 1 == time or chunk_of[t + 1] > c else None for t, c in enumerate(chunk_of)]
    assert layout.crossings(range(time)) == crossing
    edited = sorted({p for p in where if p < time})
    assert [crossing[p] for p in edited] == list(layout.edits)
    assert not edited or None not in [crossing[p] for p in edited]


def test_without_edits_no_chunk_but_the_last_has_room():
    assert layout_of(40, []).to_chunks(torch.ones(1, 40, 3), torch.float32).shape == (1, 5, 8, 3)
    # A piece of five tokens needs no chunk of more than eight, and one of two none of more than two.
    assert Layout(5, 32).chunk == 8
    assert layout_of(4, [1], 32).chunk == 2


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("gradients", [False, True])
def test_carries_between_chunks_are_the_recurrence_and_its_edits(axis, gradients):
    generator = torch.Generator().manual_seed(0)
    write, decay = (torch.randn(3, 3, 4, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    S = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    with torch.set_grad_enabled(gradients):
        every = carries_across(write, decay[..., :1], S, axis, {1: lambda S: S + 10})
    expected = [S]
    for i in range(3):
        after = decay.select(axis, i)[..., :1] * expected[-1] + write.select(axis, i)
        expected.append(after + 10 if i == 1 else after)
    torch.testing.assert_close(every, torch.stack(expected, axis))


def test_few_captures_do_not_keep_all_carries_alive():
    layout = Layout(64, 8)
    carries = torch.randn(1, 9, 2, 3)
    few = captured_carries(layout, [15, 63], carries, 1, lambda places: pytest.fail("both are between chunks"))
    assert torch.equal(few, carries[:, [2, 8]])
    assert few.untyped_storage().nbytes() == few.numel() * 4


@pytest.mark.parametrize("options", [{"groups": 1}, {"groups": 4}, {"per_channel": True}], ids=str)
def test_the_carry_that_is_handed_on_does_not_keep_the_others_alive(options):
    with torch.no_grad():
        S = scan(DECAY, random_signals(1, 256, **options)).carry.S
    assert S.untyped_storage().nbytes() == S.numel() * S.element_size()


@pytest.mark.parametrize("time", [1, 31, 1024])
def test_passes_are_cut_where_edits_would_take_more_than_four_times_the_memory(time):
    backend: Any = DECAY.backends["chunked"]
    signals = random_signals(1, time)
    edits = edits_by_position([Edit(position=p, kind="scale", value=2.0) for p in range(time)], time)
    taken = {here.position for here in backend.inside(edits, signals, DecayCarry(torch.zeros(1)))}
    passes = "".join("x" if p in taken else " " for p in range(time)).split(" ")
    most = max(16, 3 * -(-time // 32))
    assert {len(p) for p in passes[:-1]} <= {most}
    assert len(passes[-1]) <= most
    assert len(taken) == time - time // (most + 1)
