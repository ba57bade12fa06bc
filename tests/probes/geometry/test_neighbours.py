"""Oracle: scikit-learn's exact neighbours, of the tokens of other sequences only."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from strobe.probes.geometry.neighbours import neighbours


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_neighbours_are_the_nearest_of_other_sequences(metric):
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(90, 7, generator=generator, dtype=torch.float64)
    sequence = torch.arange(90) % 9
    # Close to a vector of the bank and of its sequence: the nearest of all, and not to be found.
    query = bank[:11] + 0.01 * torch.randn(11, 7, generator=generator, dtype=torch.float64)
    found = neighbours(query, bank, sequence[:11], sequence, 5, metric)
    assert not (sequence[found] == sequence[:11, None]).any()
    for i in range(11):
        others = np.flatnonzero(sequence.numpy() != int(sequence[i]))
        search = NearestNeighbors(n_neighbors=5, metric=metric, algorithm="brute").fit(bank[others].numpy())
        expected = others[search.kneighbors(query[i : i + 1].numpy())[1][0]]
        assert found[i].tolist() == expected.tolist()


def test_too_few_sequences_are_refused():
    x = torch.randn(10, 3)
    sequence = torch.tensor([0] * 6 + [1] * 4)
    assert neighbours(x, x, sequence, sequence, 4).shape == (10, 4)
    with pytest.raises(ValueError, match=r"5 neighbours .* there are 4; give more sequences"):
        neighbours(x, x, sequence, sequence, 5)
