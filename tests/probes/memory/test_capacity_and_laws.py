"""Oracle: a dictionary that answers each prompt, greedy decoding, a shift register, the published laws' own figures."""

import numpy as np
import pytest
import torch

from strobe.probes.memory import (
    Asked,
    Capacity,
    MemoryCurve,
    MemoryLaw,
    capacity,
    dense_recall,
    fit_law,
    memory_curve,
    text_passkey,
)
from strobe.probes.memory.capacity import _answers
from strobe.probes.memory.laws import PAPER, law
from strobe.probes.memory.memory_curve import _readout


def test_a_dictionary_answers_dense_recall():
    rng = np.random.default_rng(0)
    for depth, at in ((0.0, 0), (0.5, 3), (0.99, 5), (1.0, 5)):
        prompts, answers = dense_recall()(14, depth, 50, rng)
        assert prompts.shape == (50, 14)
        for row, answer in zip(prompts.tolist(), answers.tolist(), strict=True):
            known = dict(zip(row[1:13:2], row[2:13:2], strict=True))
            assert len(known) == 6 and row[0] == 0 and row[13] == row[1 + 2 * at]
            assert [known[row[13]]] == answer
    with pytest.raises(ValueError, match="there are 16 keys: give 4 to 34"):
        dense_recall()(36, 0.5, 2, rng)


class Words:
    """A tokenizer of words and digits: one id a word, one a digit."""

    def __init__(self):
        self.words = {}

    def encode(self, text, add_special_tokens=False):
        import re

        return [self.words.setdefault(w, len(self.words)) for w in re.findall(r"\d|\n|[^\s\d]+", text)]


def test_a_passkey_stands_where_it_was_put_and_fills_the_length():
    tokenizer = Words()
    make = text_passkey(tokenizer)
    for depth in (0.0, 0.5, 0.9):
        prompts, answers = make(400, depth, 6, np.random.default_rng(1))
        assert prompts.shape == (6, 400) and answers.shape == (6, 5)
        assert len({tuple(a) for a in answers.tolist()}) == 6
        digits = [tokenizer.words[d] for d in "0123456789" if d in tokenizer.words]
        for row, answer in zip(prompts.tolist(), answers.tolist(), strict=True):
            places = [i for i, t in enumerate(row) if t in digits]
            assert [row[i] for i in places] == answer * 2
            assert abs(places[0] / 400 - (0.08 + 0.84 * depth)) < 0.12
    with pytest.raises(ValueError, match="give a longer one"):
        make(20, 0.5, 2, np.random.default_rng(0))


def test_answers_are_what_greedy_decoding_writes(native, tokens):
    model = native("mamba2")
    prompts = tokens(6, 11)
    written = model.generate(prompts, 3, temperature=0.0, stop_at_eos=False)[:, 11:].numpy()
    assert (_answers(model, Asked(prompts.numpy(), written)) == written).all()

    def make(length, depth, n, rng):
        # What the model writes by itself is recalled, what another prompt leads to is not.
        return Asked(prompts.numpy(), written)

    result = capacity(model, make, [11], task="its own words", depths=[0.5], n=6)
    others = (written == np.roll(written, 1, 0)).all(1).mean()
    assert result.accuracy.tolist() == [[1.0]] and result.control.tolist() == [[others]] and others < 1


def test_the_longest_recalled_length_stops_at_the_first_failure(native, tmp_path):
    from strobe.probes.provenance import provenance_of

    accuracy = np.array([[1.0, 1.0], [1.0, 0.92], [0.7, 1.0], [1.0, 1.0]])
    result = Capacity(
        "recall", (8, 16, 32, 64), (0.1, 0.9), accuracy, 0 * accuracy, 10, provenance=provenance_of(native("gru"))
    )
    assert result.recalled == 16
    assert Capacity.load(result.save(tmp_path / "c.safetensors")) == result
    assert result.figure().data[0].z.shape == (2, 4) and len(result.to_frame()) == 8
    with pytest.raises(ValueError, match="give one, one and two at least"):
        capacity(native("gru"), dense_recall(), [8], task="recall", n=1)


def test_a_shift_register_remembers_as_many_tokens_as_it_holds():
    # Jaeger 2001: the sum of R^2 over all lags is the size of a linear shift register under white input.
    rng, held = np.random.default_rng(0), 6
    white = rng.standard_normal((40, 120))
    register = np.stack([np.roll(white, k, 1) for k in range(held)], 2)[:, 20:]
    r2 = [_readout(register, np.roll(white, k, 1)[:, 20:, None], 20, 1e-9)[0] for k in range(12)]
    np.testing.assert_allclose(r2[:held], 1, atol=1e-6)
    assert max(r2[held:]) < 0.02
    # Scale is not seen: the same register with every slot a tenth of the one before.
    faded = register * 0.1 ** np.arange(held)
    assert _readout(faded, np.roll(white, 5, 1)[:, 20:, None], 20, 1e-14)[0] > 0.99
    noisy = faded + 1e-3 * rng.standard_normal(faded.shape)
    assert _readout(noisy, np.roll(white, 5, 1)[:, 20:, None], 20, 1e-14)[0] < 0.1


def test_a_carry_that_is_overwritten_holds_the_last_token_and_nothing_else(native, tokens):
    model = native("mingru")
    mixer = model.mixers["blocks.0.mixer"]
    from strobe.probes.memory.scan_signals import changing

    mix = torch.randn(29, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = tokens(40, 30) % 4

    def written(layer, family, s):
        return s._replace(a=torch.zeros_like(s.a), b=mix[x])

    with changing(model, written):
        result = memory_curve(model, x, 0, lags=range(4))
    assert result.r2[0] > 0.999 and result.accuracy[0] == 1.0
    assert np.abs(result.r2[1:]).max() < 0.05 and abs(result.accuracy[1:] - 0.25).max() < 0.1
    assert np.abs(result.control).max() < 0.05
    assert abs(result.capacity - 1) < 0.1 and mixer.memory == "h"


def test_the_memory_curve_is_saved_drawn_and_refused(native, tokens, tmp_path):
    model = native("mamba2")
    result = memory_curve(model, tokens(12, 40), 0, lags=(0, 2))
    assert MemoryCurve.load(result.save(tmp_path / "m.safetensors")) == result
    assert "(control)" in result.figure().data[0].name and result.full_size == 24 == result.size
    with pytest.raises(ValueError, match="layers with a recurrence: 0;"):
        memory_curve(native("gru", "attention"), tokens(8, 20), 1)
    with pytest.raises(ValueError, match="learn by heart; give more or longer rows"):
        memory_curve(model, tokens(4, 10), 0, lags=(0,))


def test_published_coefficients_are_found_again_from_their_own_lengths():
    sizes = np.array([0.6, 1.5, 3.0, 6.0, 9.0, 12.58])
    for kind in ("linear", "exponential"):
        result = fit_law(kind, sizes.tolist(), law(kind)(sizes, *PAPER[kind]).tolist())
        np.testing.assert_allclose(result.coefficients, PAPER[kind], rtol=1e-4)
        assert result.r2 > 0.999999 > np.median(result.control)
    # Mamba-2 370M, 12.58 million numbers: 60.6 and 233 thousand tokens by the paper's own formulas.
    assert fit_law("linear", [0, 1, 2], [-4.469, 0.703, 5.875]).predict(12.58) == pytest.approx(60.6, abs=0.05)
    assert law("exponential")(12.58, *PAPER["exponential"]) == pytest.approx(233, abs=2)


def test_laws_are_saved_drawn_and_refused(tmp_path):
    result = fit_law("linear", [1, 2, 3, 4], [2.0, 4.1, 5.9, 8.0])
    assert MemoryLaw.load(result.save(tmp_path / "l.safetensors")) == result
    assert "R² 0.99" in result.figure().layout.title.subtitle.text and "shuffled (control)" in result.summary()
    with pytest.raises(ValueError, match="4 different sizes at least"):
        fit_law("exponential", [1, 2, 2, 3], [1, 2, 3, 4])
    with pytest.raises(ValueError, match="there are 'linear' and 'exponential'"):
        law("cubic")
