"""Oracle: planted waves of known number, speed and direction, cos(k x - w t), against standing cos(k x) cos(w t)."""

import numpy as np
import pytest

from strobe.core.result import load_result
from strobe.probes.dynamics.waves import travelling_waves

X = np.arange(32.0)
T = np.arange(400.0)[:, None]
K, W = 2 * np.pi / 16, 2 * np.pi / 25


def noise(seed=0):
    return 0.1 * np.random.default_rng(seed).normal(size=(400, 32))


def test_a_travelling_wave_is_found_with_its_number_speed_and_direction():
    found = travelling_waves(np.cos(K * X - W * T) + noise())
    assert found.travelling_index[0] > 0.9
    assert found.is_wave[0]
    assert found.frequencies[0] == pytest.approx(1 / 25, rel=0.02)
    assert found.wave_numbers[0] == pytest.approx(1 / 16, rel=0.1)
    assert found.speeds[0] == pytest.approx(16 / 25, rel=0.1)
    back = travelling_waves(np.cos(K * X + W * T) + noise())
    assert back.wave_numbers[0] == pytest.approx(-1 / 16, rel=0.1)


def test_a_standing_wave_does_not_travel():
    found = travelling_waves(np.cos(K * X) * np.cos(W * T) + noise())
    assert found.travelling_index[0] < 0.1
    assert not found.is_wave[0]


def test_phases_without_a_place_are_no_wave():
    phase = np.random.default_rng(1).uniform(0, 2 * np.pi, 32)
    found = travelling_waves(np.cos(phase - W * T) + noise())
    # It turns in phase, so the index alone would call it travelling.
    assert found.travelling_index[0] > 0.5
    assert not found.is_wave[0]
    assert found.fits[0] < 0.5


def test_places_are_used():
    order = np.random.default_rng(2).permutation(32)
    mixed = (np.cos(K * X - W * T) + noise())[:, order]
    assert not travelling_waves(mixed).is_wave[0]
    assert travelling_waves(mixed, positions=X[order]).is_wave[0]


def test_bad_activity_is_refused_and_a_result_comes_back(tmp_path):
    with pytest.raises(ValueError, match="at least 16 steps"):
        travelling_waves(np.zeros((400, 32)))
    found = travelling_waves(np.cos(K * X - W * T) + noise(), n_modes=2)
    assert load_result(found.save(tmp_path / "waves.safetensors")) == found
    assert "travels" in found.figure().layout.title.subtitle.text
    assert len(found.to_frame()) == 2
