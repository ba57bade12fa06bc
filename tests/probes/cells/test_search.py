"""Oracle: an LSTM whose one cell counts brackets by construction: the search has to return it, with r 1 and AUROC 1.

The other units are random, the labels of another file have nothing to do with it, and permuted weights undo it.
"""

import numpy as np
import pytest
import torch
from cutting import stopped

from strobe.models import HookedLM, ModelConfig
from strobe.models.corpus import load_tokenizer, train_tokenizer
from strobe.probes.cells import CellSearch, cell_text, search_cells
from strobe.probes.cells.correlating import Correlations
from strobe.probes.cells.labels import LABELS, source_labels
from strobe.probes.cells.search_result import VARIANTS
from strobe.probes.cells.texts import labelled_rows, token_ends
from strobe.probes.cells.units import sites_of, stream_units

CELL, HIDDEN, D = 5, 9, 16
PLANTED = [name for name in LABELS if name in ("in_brackets", "bracket_depth")]


def program(seed, lines=30):
    """Python whose brackets open and close at random places, none of them in a string or comment."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(lines):
        word = "".join(rng.choice(list("abcdefg"), rng.integers(1, 6)))
        made.append(
            str(rng.choice([f"{word} = ({word}, [{word}, 2], 3)", f"x = {word}", f"{word}({{1: (2)}})", "y = 'a'"]))
        )
    return "\n".join(made) + "\n"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer(["ab " * 50], 258).save(str(file))
    return load_tokenizer(file)


def model_of(tokenizer, mixer="lstm", **options):
    config = ModelConfig(d_model=D, d_vocab=258, layers=[mixer], mixer_options={mixer: options}, mlp="none", norm="rms")
    return HookedLM(config, tokenizer=tokenizer, name="tiny")


def planted(tokenizer):
    """c[CELL] += 0.1 at an opening bracket, -= 0.1 at a closing one: gates held open, and read from one channel."""
    model = model_of(tokenizer, hidden=HIDDEN)
    change = torch.tensor([sum((c in "([{") - (c in ")]}") for c in w) for w in model.to_str_tokens(torch.arange(258))])
    mixer = model.blocks[0].mixer
    with torch.no_grad():
        model.embed.weight[:, 0] = 0
        # The norm divides by the size of the whole vector, so it is made the same for every token.
        model.embed.weight /= model.embed.weight.norm(dim=1, keepdim=True)
        model.embed.weight[:, 1:] *= torch.where(change != 0, 0.6, 1.0)[:, None]
        model.embed.weight[:, 0] = 0.8 * change
        for gate in range(4):
            row = gate * HIDDEN + CELL
            mixer.W[row], mixer.R[row], mixer.b[row] = 0, 0, 0 if gate == 2 else 20
        mixer.W[2 * HIDDEN + CELL, 0] = 0.03
    return model


@pytest.fixture(scope="module")
def found(tokenizer):
    texts = [program(i) for i in range(6)], [program(i) for i in range(6, 12)]
    return search_cells(planted(tokenizer), texts, length=120, top=3)


@pytest.mark.parametrize("label", PLANTED)
def test_the_planted_cell_is_found_and_nothing_else(found, label):
    i = found.label_index(label)
    assert found.place(int(found.best[0, i, 0]))[2] == CELL
    if label == "bracket_depth":
        assert found.unit_name(int(found.best[0, i, 0])) == f"block 0 c[{CELL}]"
        assert found.held_out[0, i, 0] > 0.999
    else:
        assert found.auroc[0, i, 0] == 1
    # Its h follows it, as h = o tanh(c) with o open; every other unit is far away.
    pair = [u for u in range(found.n_units) if found.place(u)[2] == CELL]
    assert sorted(found.best[0, i, :2]) == pair
    assert np.abs(np.delete(found.correlation[1, i], pair)).max() < 0.8


@pytest.mark.parametrize("label", PLANTED)
@pytest.mark.parametrize("variant", [1, 2])
def test_controls_find_nothing(found, label, variant):
    i = found.label_index(label)
    assert abs(found.held_out[variant, i, 0]) < (0.25 if variant == 1 else 0.8)


def test_correlations_are_those_of_numpy_even_far_from_zero():
    rng = np.random.default_rng(0)
    units = rng.normal(size=(101, 4)).astype(np.float32) * [1, 1e-3, 1, 0] + [0, 100, 0, 7]
    labels = np.stack([rng.normal(size=101), units[:, 2] + rng.normal(size=101), np.ones(101)], 1)
    sums = Correlations(4, 3)
    for rows in (slice(0, 40), slice(40, 101)):
        sums.add(torch.from_numpy(units[rows]).float(), torch.from_numpy(labels[rows]).float())
    r = sums.found()
    expected = np.corrcoef(units[:, :3].astype(np.float32).T, labels[:, :2].astype(np.float32).T)[3:, :3]
    np.testing.assert_allclose(r[:2, :3], expected, atol=2e-4)
    assert np.isnan(r[:, 3]).all() and np.isnan(r[2]).all()


@pytest.mark.parametrize("mixer", ["lstm", "gru", "mamba2", "attention"])
def test_units_along_a_text_are_the_carries_that_the_model_returns(tokenizer, mixer, monkeypatch):
    options = {"lstm": {"hidden": 9}, "gru": {"hidden": 9}, "mamba2": {"heads": 3, "head_dim": 4, "state": 5}}
    model = model_of(tokenizer, mixer, **options.get(mixer, {"n_heads": 2}))
    tokens = np.random.default_rng(0).integers(0, 258, (2, 11))
    sites = sites_of(model)
    # Pieces of a token or a few: the state has to go on from one to the next.
    monkeypatch.setattr("strobe.probes.cells.units._PIECE_BYTES", 3 * 2 * 4 * sum(s.size for s in sites))
    units = torch.cat([u for _, _, u in stream_units(model, tokens, sites)], 1)
    for t in (0, 4, 10):
        ids = torch.from_numpy(tokens[:, : t + 1])
        if mixer == "attention":
            expected = model.run_with_cache(ids)[1]["blocks.0.hook_resid_post"][:, -1]
            assert sites[0].kind == "residual"
        else:
            carry = model.state_after(ids).layers[0].carry
            expected = torch.cat([x.flatten(1) for x in carry], 1)
        torch.testing.assert_close(units[:, t], expected.detach().float(), atol=1e-5, rtol=1e-4)


def test_labels_stand_at_the_end_of_each_token(tokenizer):
    model = model_of(tokenizer, "gru", hidden=4)
    text = "f('é', ab)\n"
    ids, ends = token_ends(model, text)
    assert model.tokenizer.decode(ids) == text and ends[-1] == len(text)
    rows, out = labelled_rows(model, [text * 3, text * 3, "x = (", "y\n"], 20)
    assert out == 2
    names = list(LABELS)
    for name in ("in_string", "bracket_depth", "line_position"):
        expected = source_labels(text * 3)[name][token_ends(model, text * 3)[1][:20]]
        np.testing.assert_array_equal(rows.labels[0, :, names.index(name)], expected)


def test_library_rows_begin_where_nothing_was_read(tokenizer):
    model = model_of(tokenizer, "gru", hidden=4)
    text = '"""doc\nstring\n"""\nx = [\n1,\n]\n' + "".join(f"def f{i}(a):\n    return a\n" for i in range(30))
    rows, _ = labelled_rows(model, [text] * 20, 16, np.random.default_rng(0))
    starts = {model.tokenizer.decode(row)[:3] for row in rows.tokens}
    assert starts <= {"def", "x ="} and len({tuple(row) for row in rows.tokens}) > 5
    # Every row is a statement of its own, so its labels are those of its text alone.
    for row, labels in zip(rows.tokens, rows.labels, strict=True):
        begun = model.tokenizer.decode(row)
        at = text.index(begun)
        alone = source_labels(text[at:])
        ends = token_ends(model, text[at:])[1][:16]
        np.testing.assert_array_equal(labels, np.stack([alone[name][ends] for name in LABELS], -1))


def test_the_model_is_left_as_it_was_and_the_result_is_kept(found, tokenizer, tmp_path):
    model = planted(tokenizer)
    before = model.weights_hash()
    texts = [program(i) for i in range(2)], [program(i) for i in range(2, 4)]

    def ask(**how):
        return search_cells(model, texts, length=40, top=2, **how)

    def permuted(done, message):
        return "weights permuted" in message

    result, cut = ask(), stopped(ask, permuted)
    assert stopped(ask, lambda done, message: message == "judging") is None
    # Of the model as it is, though it is stopped while another's weights are in it.
    assert model.weights_hash() == before == result.provenance.weights_hash == cut.provenance.weights_hash
    assert (cut.best[2] == -1).all() and (result.best[2] >= 0).all()
    np.testing.assert_array_equal(cut.held_out[:2], result.held_out[:2])
    np.testing.assert_array_equal(cut.correlation, result.correlation)
    assert CellSearch.load(found.save(tmp_path / "cells.safetensors")) == found
    frame = found.to_frame()
    assert len(frame) == len(VARIANTS) * len(LABELS) * 3 and "units tried on each label" in found.summary()
    figure = found.figure()
    assert len(figure.data) == 3 and figure.data[0].x[found.label_index("bracket_depth")] > 0.999
    points = found.label_figure("bracket_depth").data[0]
    assert points.text[0] == f"block 0 c[{CELL}]"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_files": 1}, "2 files"),
        ({"texts": (["x"], ["y"])}, "found 0 of 1"),
    ],
)
def test_bad_input_is_said(tokenizer, options, said):
    model = model_of(tokenizer, "gru", hidden=4)
    with pytest.raises(ValueError, match=said):
        search_cells(model, **options)
    model.tokenizer = None
    with pytest.raises(ValueError, match="without a tokenizer"):
        search_cells(model)
    with pytest.raises(ValueError, match="give one of these"):
        cell_text(model, [1, 2], 0, "c", 0)


def test_one_unit_along_a_text_and_its_tokens_escaped(tokenizer):
    model = planted(tokenizer)
    shown = cell_text(model, "f(<b>(a))", 0, "c", CELL)
    np.testing.assert_allclose(shown.values / shown.values[1], [0, 1, 1, 1, 1, 2, 2, 1, 0], atol=1e-3)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    ids = model.tokenize("f(<b>(a))")[0]
    for k in range(9):
        shuffled = model.state_after(ids[:, order[: k + 1]]).layers[0].carry.c[0, CELL]
        assert shown.control[order[k]] == pytest.approx(float(shuffled), abs=1e-6)
    assert "&lt;" in shown.html() and "<b>" not in shown.html()
    assert len(shown.figure().data) == 2 and list(shown.to_frame()["token"]) == shown.tokens
    assert f"block 0 c[{CELL}]" in shown.summary()
