"""Oracle: the contract of `choose_backend`, with a backend made up for it; for plans, every token taken once."""

from dataclasses import replace

import pytest
import torch

from strobe.kernels import Edit, scan
from strobe.kernels.decay import DECAY, random_signals
from strobe.kernels.scan import DeviceBackend, choose_backend
from strobe.kernels.triton_matrix.plan import chunks, looks

CUDA = torch.device("cuda")


class Elsewhere:
    """A backend of a device that this machine need not have: it runs the reference and keeps what it was asked."""

    def __init__(self, reason=None):
        self.reason, self.edits, self.calls = reason, [], 0

    def __call__(self, signals, carry, positions, readers):
        self.calls += 1
        return DECAY.backends["reference"](signals, carry, positions, readers)

    def refusal(self, device, signals=None, carry=None, readers=None):
        return self.reason

    def inside(self, edits, signals, carry):
        return [here for here in edits if all(edit.kind == "scale" for edit in here.edits)]

    def with_edits(self, signals, carry, positions, readers, edits):
        self.edits += [(here.position, len(here.edits)) for here in edits]
        result = scan(
            DECAY,
            signals,
            carry,
            capture=positions,
            edits=[replace(e, position=here.position) for here in edits for e in here.edits],
            backend="reference",
        )
        self.calls += 1
        return DECAY.backends["reference"](signals, carry, positions, readers)._replace(
            read=result.read, carry=result.carry, captured=result.captured
        )


def family(run):
    return replace(DECAY, backends={**DECAY.backends, "triton": run})


def test_auto_takes_the_kernel_on_cuda_where_it_can_run_and_the_next_one_where_it_cannot():
    assert isinstance(Elsewhere(), DeviceBackend)
    assert not isinstance(DECAY.backends["chunked"], DeviceBackend)
    assert choose_backend(family(Elsewhere()), "auto", CUDA) == "triton"
    assert choose_backend(family(Elsewhere("too wide")), "auto", CUDA) == "chunked"
    assert choose_backend(family(Elsewhere()), "auto", torch.device("cpu")) == "chunked"


def test_asked_for_by_name_it_runs_or_says_why_not():
    assert choose_backend(family(Elsewhere()), "triton", CUDA) == "triton"
    with pytest.raises(ValueError, match="backend 'triton' was asked for the family 'decay': too wide"):
        choose_backend(family(Elsewhere("too wide")), "triton", CUDA)


def test_a_kernel_on_a_cpu_tensor_is_an_error_with_three_ways_out():
    pytest.importorskip("triton")
    match = "'triton' was asked for.*tensors are on cpu.*move them there.*backend='chunked'.*TRITON_INTERPRET=1"
    with pytest.raises(ValueError, match=match):
        scan(DECAY, random_signals(1, 3), backend="triton")
    assert scan(DECAY, random_signals(1, 3)).backend == "chunked"


def test_edits_it_takes_are_handed_over_and_the_scan_is_cut_at_the_others():
    it, signals = Elsewhere(), random_signals(1, 20, dtype=torch.float64)
    edits = [
        Edit(position=3, kind="scale", value=0.5),
        Edit(position=9, kind="add", value=1.0),
        Edit(position=12, kind="scale", value=2.0),
        Edit(position=12, kind="scale", value=-1.0),
        Edit(position=15, kind="scale", value=3.0),
        Edit(position=15, kind="add", value=2.0),
    ]
    found = scan(family(it), signals, edits=edits, capture=[9, 12, 14], backend="triton")
    wanted = scan(DECAY, signals, edits=edits, capture=[9, 12, 14], backend="reference")
    assert torch.equal(found.read, wanted.read)
    assert torch.equal(found.captured.S, wanted.captured.S)
    assert torch.equal(found.carry.S, wanted.carry.S)
    # Cut after tokens 9 and 15; positions are the piece's own.
    assert it.edits == [(3, 1), (2, 2)]
    assert it.calls == 3


@pytest.mark.parametrize("time", [1, 15, 16, 17, 50])
@pytest.mark.parametrize("ends", [[], [0], [14, 15, 16], [49]])
def test_chunks_take_every_token_once_and_end_where_they_must(time, ends):
    ends = [e for e in ends if e < time]
    layout = chunks(time, 16, ends)
    cuts = layout.cuts or [(i, min(i + 16, time)) for i in range(0, time, 16)]
    assert layout.n_chunks == len(cuts)
    assert [t for start, stop in cuts for t in range(start, stop)] == list(range(time))
    assert all(0 < stop - start <= 16 for start, stop in cuts)
    assert set(ends) <= {stop - 1 for _, stop in cuts}
    assert (layout.cuts is None) == (not ends)


def test_looks_name_every_position_and_edit_in_its_chunk_once():
    positions, edits = [0, 15, 16, 20, 31, 40], [15, 20, 20]
    layout = chunks(45, 16, sorted(set(edits)))
    assert layout.cuts == [(0, 16), (16, 21), (21, 37), (37, 45)]
    table = looks(layout, 16, 45, positions, edits)
    assert table[20:] == positions
    rows = [table[5 * i : 5 * i + 5] for i in range(4)]
    # (inside from, to, at the end, edits from, to)
    assert rows == [[0, 1, 1, 0, 1], [2, 3, 3, 1, 3], [4, 5, -1, 3, 3], [5, 6, -1, 3, 3]]


def test_a_kernel_is_launched_on_the_gpu_of_its_tensors_and_not_on_the_current_one(monkeypatch):
    from strobe.kernels.triton.device import launch

    seen = []

    class Current:
        def __init__(self, on):
            self.on = on

        def __enter__(self):
            seen.append(("enter", self.on))

        def __exit__(self, *error):
            seen.append(("exit", self.on))

    class Kernel:
        def __getitem__(self, grid):
            return lambda **arguments: seen.append((grid, arguments))

    monkeypatch.setattr(torch.cuda, "device", Current)
    other = torch.device("cuda", 1)
    launch(Kernel(), (3, 2), other, X=5)
    assert seen == [("enter", other), ((3, 2), {"X": 5}), ("exit", other)]
