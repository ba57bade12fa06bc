"""Oracle: onions that were planted: their carries, words and swaps in closed form; subspaces that were planted."""

import numpy as np
import torch

from strobe.probes.dynamics.case_studies.onion import Copier
from strobe.probes.dynamics.case_studies.onion_probe import (
    OnionProbe,
    drawn_swaps,
    fit_probe,
    fit_swap,
    interchange_subspaces,
)

SYMBOLS, LENGTH, HIDDEN = 5, 4, 12


def planted(gamma, n=600, seed=0):
    """An onion that reads with its own embeddings, words, and their carries b + sum of scales * E."""
    probe, rng = OnionProbe(SYMBOLS, LENGTH, HIDDEN, seed), np.random.default_rng(seed)
    with torch.no_grad():
        directions = torch.linalg.qr(torch.from_numpy(rng.normal(size=(HIDDEN, SYMBOLS))).float())[0].T
        probe.E.copy_(directions)
        probe.U.copy_(directions)
        probe.b.copy_(torch.arange(HIDDEN) / 10)
        probe.log_g.fill_(float(np.log(2.0)))
        probe.log_gamma.fill_(float(np.log(gamma)))
    words = rng.integers(SYMBOLS, size=(n, LENGTH))
    return probe, words, carries(probe, words)


def carries(probe, words):
    with torch.no_grad():
        h = probe.b + sum(probe.scales[i] * probe.E[torch.from_numpy(words[:, i])] for i in range(LENGTH))
    return h.double().numpy()


def test_a_planted_onion_is_peeled_exactly_layer_by_layer():
    probe, words, h = planted(0.1)
    np.testing.assert_array_equal(probe.peeled(h), words)
    # The last layer is a thousandth of the first: with those above it left on, it is not read.
    left = torch.from_numpy(h).float() - probe.b
    assert ((left @ probe.U.T).argmax(1).numpy() == words[:, 3]).mean() < 0.5
    np.testing.assert_allclose(probe.scales[:, 0].detach().numpy(), [2, 0.2, 0.02, 0.002], rtol=1e-5)


def test_a_move_is_the_difference_of_two_carries():
    probe, words, h = planted(0.4)
    goes, comes, at = drawn_swaps(words, SYMBOLS, np.random.default_rng(1))
    swapped = words.copy()
    swapped[np.arange(len(words)), at.numpy()] = comes.numpy()
    assert (goes.numpy() == words[np.arange(len(words)), at.numpy()]).all()
    assert (goes != comes).all() and set(at.tolist()) == set(range(LENGTH))
    moved = h + probe.moved(goes, comes, at).detach().double().numpy()
    np.testing.assert_allclose(moved, carries(probe, swapped), atol=1e-5)


def test_a_probe_learns_a_planted_onion_and_nothing_of_shuffled_words():
    _, words, h = planted(0.3)
    found = fit_probe(h[:400], words[:400], SYMBOLS, updates=1500)
    assert (found.peeled(h[400:]) == words[400:]).mean() > 0.9
    other = fit_probe(h[:400], np.random.default_rng(2).permutation(words[:400]), SYMBOLS, updates=200)
    assert (other.peeled(h[400:]) == words[400:]).mean() < 0.4


def test_swaps_are_learned_from_what_a_frozen_decoder_says():
    decoder, words, h = planted(0.3)
    decoder.requires_grad_(False)
    start = OnionProbe(SYMBOLS, LENGTH, HIDDEN, seed=5)
    learned = fit_swap(decoder.logits, h, words, SYMBOLS, start=start, updates=400)
    goes, comes, at = drawn_swaps(words, SYMBOLS, np.random.default_rng(3))
    swapped = words.copy()
    swapped[np.arange(len(words)), at.numpy()] = comes.numpy()

    def said(probe):
        move = probe.moved(goes, comes, at).detach().double().numpy()
        return (decoder.peeled(h + move) == swapped).all(1).mean()

    assert said(start) < 0.2
    assert said(learned) > 0.9


def test_subspaces_that_were_planted_are_found_and_what_is_interchanged_there_moves_one_symbol():
    rng = np.random.default_rng(0)
    words, tables = rng.integers(SYMBOLS, size=(20_000, LENGTH)), rng.normal(size=(LENGTH, SYMBOLS, 3))
    h = np.concatenate([tables[i][words[:, i]] for i in range(LENGTH)], 1)
    for i, basis in enumerate(interchange_subspaces(h, words, SYMBOLS)):
        np.testing.assert_allclose(basis @ basis.T, np.eye(3), atol=1e-9)
        block = np.eye(HIDDEN)[3 * i : 3 * i + 3]
        # The other positions differ a little between the classes by chance, so the axes are the block's only nearly.
        assert np.linalg.svd(basis @ block.T)[1].min() > 0.9


def test_what_a_copier_says_it_is_fed():
    copier, words = Copier(SYMBOLS, HIDDEN, seed=1), torch.randint(SYMBOLS, (7, LENGTH))
    with torch.no_grad():
        h = copier.read(words)
        said = copier.copied(h.double().numpy(), LENGTH)
        again = copier.say(h, torch.from_numpy(said)).argmax(-1).numpy()
    np.testing.assert_array_equal(said, again)
