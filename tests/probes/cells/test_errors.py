"""Oracle: text that only a count can know, the model's own loss, and the n-gram's, each token by itself."""

import numpy as np
import pytest
import torch
from cutting import stopped_after

from strobe.models import HookedLM, ModelConfig
from strobe.models.corpus import WittenBell, load_tokenizer, train_tokenizer
from strobe.probes.cells.errors import KINDS, ErrorTypes, error_types, history_seen
from strobe.probes.cells.labels import source_labels

TRAIN = ["x = 'qw'  # c\n" * 30]
JUDGE = ["x = 'qw'  # c\n" * 4 + "y = [q]\n", "x = 'zz'\n" * 9]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer(["ab " * 50], 258).save(str(file))
    config = ModelConfig(d_model=8, d_vocab=258, layers=["gru"], mixer_options={"gru": {"hidden": 6}}, mlp="none")
    return HookedLM(config, tokenizer=load_tokenizer(file), name="tiny")


def test_every_class_has_the_losses_of_its_tokens(model, tmp_path):
    found = error_types(model, (TRAIN, JUDGE), length=60, order=3)
    rows = np.array([model.tokenizer.encode(t)[:60] for t in JUDGE])
    nats = torch.stack([model(torch.from_numpy(r)[None])[0, :-1].log_softmax(-1)[range(59), r[1:]] for r in rows])
    nats = -nats.detach().numpy()
    ngram = WittenBell(np.array(model.tokenizer.encode(TRAIN[0])), order=3, vocab=258)
    counted = np.stack([-np.log(ngram.probabilities(row))[1:] for row in rows])
    # One token is one character here.
    inside = np.stack([source_labels(t)["in_string"][1:60] > 0 for t in JUDGE])
    for name, where in (("all", np.ones_like(inside)), ("in_string", inside)):
        i = found.classes.index(name)
        assert found.count[i] == where.sum()
        assert found.loss[i] == pytest.approx(nats[where].mean(), rel=1e-5)
        assert found.ngram_loss[i] == pytest.approx(counted[where].mean(), rel=1e-9)
    assert (found.outcomes.sum(1) == found.count).all()
    # Who is right: the n-gram by the two tokens before, the model by all of them.
    by_ngram = [ngram.distribution(r[max(0, t - 2) : t]).argmax() == r[t] for r in rows for t in range(1, 60)]
    by_model = torch.stack([model(torch.from_numpy(r)[None])[0, :-1].argmax(-1) for r in rows]).numpy() == rows[:, 1:]
    both, only_model, only_ngram, _ = found.outcomes[found.classes.index("all")]
    assert (both + only_ngram, both + only_model) == (sum(by_ngram), by_model.sum())
    assert ErrorTypes.load(found.save(tmp_path / "errors.safetensors")) == found
    assert len(found.figure().data) == 2 and "in_string" in found.summary()
    assert list(found.to_frame().columns[-4:]) == list(KINDS)


def test_who_is_right_is_told_by_the_most_likely_token(model):
    # The text that was counted is all the same line: an untrained model knows nothing, a long enough history all.
    found = error_types(model, (TRAIN, [TRAIN[0]] * 2), length=60, order=5)
    outcomes = dict(zip(KINDS, found.outcomes[found.classes.index("seen 4")], strict=True))
    total = sum(outcomes.values())
    assert outcomes["only the n-gram"] + outcomes["both right"] == total == 2 * 56
    assert outcomes["only the n-gram"] > 0.8 * total


def test_what_is_found_before_the_end_is_that_of_the_files_judged(model, tmp_path):
    judge = [*JUDGE, "f(1, 2)  # 'no'\n" * 6]

    def ask(**how):
        return error_types(model, (TRAIN, judge), length=60, order=3, **how)

    # Told once of the n-grams, then before each file: the fourth time, two were judged.
    nothing, so_far, whole = stopped_after(ask, 2), stopped_after(ask, 4), ask()
    assert nothing is None and so_far.cut_short == (2, 3) and whole.cut_short is None
    alone = error_types(model, (TRAIN, judge[:2]), length=60, order=3)
    for name in ("count", "loss", "ngram_loss", "outcomes"):
        np.testing.assert_allclose(getattr(so_far, name), getattr(alone, name), err_msg=name)
    assert whole.count[0] == 3 * 59 and so_far.examples == alone.examples
    assert "cut short after 2 of 3 files" in so_far.summary() and "cut short" not in whole.summary()
    assert "cut short after 2 of 3 files" in so_far.figure().layout.title.subtitle.text
    assert ErrorTypes.load(so_far.save(tmp_path / "e.safetensors")) == so_far


def test_history_seen_by_hand():
    counted = np.array([1, 2, 3, 4])
    assert history_seen(np.array([[2, 3, 9, 4, 1, 2, 3, 4]]), counted, 3).tolist() == [[0, 1, 2, 0, 1, 1, 2, 3]]


def test_what_does_not_fit_is_said(model):
    with pytest.raises(ValueError, match="orders 2 to 7 fit"):
        error_types(model, (TRAIN, JUDGE), order=8)
