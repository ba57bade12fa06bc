"""Oracle: maps whose cycles are known: the logistic map's points sin^2(pi k / (2^n -+ 1)), tanh(-2x), and Henon's map.

The logistic map at 4 has as many n-cycles as there are binary necklaces of length n without a period; each has the
multiplier 2^n but the fixed point 0, which has 4. Henon's cycles are counted a second time by a flow of Biham and
Wenzel (1989, Phys. Rev. Lett. 63, 819), symbol sequence by symbol sequence.
"""

from itertools import product

import numpy as np
import pytest
import torch

from strobe.probes.dynamics.known_systems import henon, logistic
from strobe.probes.fixed_points import KCycles, Limits, cycles, from_function
from strobe.probes.fixed_points.cells import elman


def necklaces(n):
    """Binary necklaces of `n` beads without a period, one by one; 0 and 1 as they would be cut."""
    turned = ([w[d:] + w[:d] for d in range(n)] for w in product((0, 1), repeat=n))
    return sorted({min(t) for t in turned if len(set(t)) == n})


def test_the_logistic_maps_cycles_are_necklaces():
    start = torch.linspace(0.0005, 0.9995, 600, dtype=torch.float64)[:, None]
    result = cycles(logistic(), range(1, 9), start)
    assert result.counts() == {n: len(necklaces(n)) for n in range(1, 9)}
    assert result.counts()[8] == 30
    leading = np.abs(result.multipliers[:, 0])
    np.testing.assert_allclose(np.delete(leading, leading[:2].argmax()), np.delete(2.0**result.periods, 0), rtol=1e-8)
    for k in range(1, 9):
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


def by_symbols(n, a=1.4, b=0.3):
    """Henon's cycles of length `n`, x alone [cycle, n], by Biham and Wenzel's flow: one row for each necklace of signs,
    each x_i drawn to the root of its own sign, which has nothing of a Newton step."""
    signs = 2.0 * np.array(necklaces(n)) - 1
    x = np.zeros_like(signs)
    for _ in range(3000):
        pull = 1 - a * x**2 + b * np.roll(x, 1, 1) - np.roll(x, -1, 1)
        # Signs that no orbit has run away.
        x = np.clip(x + 0.05 * signs * pull, -10, 10)
    left = np.abs(1 - a * x**2 + b * np.roll(x, 1, 1) - np.roll(x, -1, 1)).max(1)
    assert ((left < 1e-6) | (left > 0.1)).all()
    return x[left < 1e-6]


def test_the_henon_maps_cycles():
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(200, 2, generator=generator, dtype=torch.float64) * torch.tensor([2.6, 0.8])
    start = start - torch.tensor([1.3, 0.4])
    result = cycles(henon(), range(1, 11), start, rounds=0, limits=Limits(max_iterations=30))
    # As many as by_symbols finds, whose points are compared below; one of the fixed points lies off the attractor.
    assert list(result.counts().values()) == [2, 1, 0, 1, 0, 2, 4, 7, 6, 10]
    for n in range(1, 11):
        expected = by_symbols(n)
        mine = [result.points[result.of == c][:, 0] for c in np.nonzero(result.periods == n)[0]]
        assert len(mine) == len(expected)
        for row in mine:
            turned = np.stack([np.roll(row, d) for d in range(n)])
            assert np.abs(turned[:, None] - expected[None]).max(2).min() < 1e-5
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
