"""Oracle: maps whose cycles are known: the logistic map's points sin^2(pi k / (2^n -+ 1)), tanh(-2x), and Henon's map.

The logistic map at 4 has as many n-cycles as there are binary necklaces of length n without a period; each has the
multiplier 2^n but the fixed point 0, which has 4.
"""

import numpy as np
import pytest
import torch

from strobe.probes.fixed_points import KCycles, Limits, cycles, from_function
from strobe.probes.fixed_points.cells import elman


def logistic():
    return from_function(lambda x: 4 * x * (1 - x), 1, jacobian=lambda x: (4 - 8 * x)[:, :, None])


def test_the_logistic_maps_cycles_are_necklaces():
    start = torch.linspace(0.0005, 0.9995, 600, dtype=torch.float64)[:, None]
    result = cycles(logistic(), (1, 2, 3, 4, 5, 6), start)
    assert result.counts() == {1: 2, 2: 1, 3: 2, 4: 3, 5: 6, 6: 9}
    leading = np.abs(result.multipliers[:, 0])
    np.testing.assert_allclose(np.delete(leading, leading[:2].argmax()), np.delete(2.0**result.periods, 0), rtol=1e-8)
    for k in (3, 5):
        angles = np.concatenate([np.arange(2**k) / (2**k - 1), np.arange(2**k) / (2**k + 1)])
        expected = np.sin(np.pi * angles) ** 2
        mine = result.points[np.isin(result.of, np.nonzero(result.periods == k)[0])]
        assert np.abs(mine - expected[None]).min(1).max() < 1e-10
    for c, period in enumerate(result.periods):
        row = result.points[result.of == c]
        np.testing.assert_allclose(4 * row * (1 - row), np.roll(row, -1, 0), atol=1e-10)
        assert len(row) == period
    assert result.speeds.max() < 1e-10


def test_a_two_cycle_and_its_multiplier():
    result = cycles(from_function(lambda x: torch.tanh(-2 * x), 1), (2,), n_initial=32)
    assert result.counts() == {2: 1}
    np.testing.assert_allclose(np.sort(result.points[:, 0]), [-0.9575040240772687, 0.9575040240772687], atol=1e-10)
    np.testing.assert_allclose(result.multipliers[0], 0.0276797, atol=1e-7)
    np.testing.assert_allclose(result.timescales[0], -2 / np.log(0.0276797), rtol=1e-5)
    assert result.kinds == ["stable node"]


def test_the_henon_maps_cycles():
    def henon(x):
        return torch.stack([1 - 1.4 * x[:, 0] ** 2 + x[:, 1], 0.3 * x[:, 0]], 1)

    generator = torch.Generator().manual_seed(0)

    def jacobian(x):
        top = torch.stack([-2.8 * x[:, 0], torch.ones_like(x[:, 0])], 1)
        return torch.stack([top, torch.tensor([[0.3, 0.0]], dtype=x.dtype).expand(len(x), 2)], 1)

    start = torch.rand(200, 2, generator=generator, dtype=torch.float64) * torch.tensor([2.6, 0.8]) - torch.tensor(
        [1.3, 0.4]
    )
    system = from_function(henon, 2, jacobian=jacobian)
    result = cycles(system, (1, 2, 3, 4, 5, 6), start, rounds=0, limits=Limits(max_iterations=30))
    assert result.counts() == {1: 2, 2: 1, 3: 0, 4: 1, 5: 0, 6: 2}
    # The map shrinks areas by .3 a step.
    np.testing.assert_allclose(np.abs(result.multipliers.prod(1)), 0.3**result.periods, rtol=1e-6)


def test_a_shuffled_network_is_the_control_and_a_result_survives_its_file(tmp_path):
    R = torch.tensor([[0.0, -1.8], [1.8, 0.0]], dtype=torch.float64)
    system = elman(R, torch.zeros(2, dtype=torch.float64), name="turns")
    result = cycles(system, (1, 4), n_initial=64)
    assert result.counts()[4] >= 1
    assert result.control is not None
    assert KCycles.load(result.save(tmp_path / "cycles.safetensors")) == result
    figure = result.figure()
    assert [t.name for t in figure.data] == [f"length {k} ({n})" for k, n in result.counts().items()]
    assert len(result.figure(dimensions=3).data) == 2
    assert result.to_frame()["period"].tolist() == result.periods.tolist()
    assert "control" in result.summary()


def test_a_length_below_one_is_refused():
    with pytest.raises(ValueError, match="1 or more"):
        cycles(logistic(), (0, 1))
