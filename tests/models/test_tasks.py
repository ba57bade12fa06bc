"""Oracles: a solver of each rule, sequences worked out by hand, chance by counting, and small networks that learn."""

import numpy as np
import pytest
import torch
from torch import nn

from strobe.models.tasks import IGNORED, task, task_batches, task_score, tasks
from strobe.models.tasks.symmetric_group import ELEMENTS, PRODUCT
from strobe.models.training import TrainingConfig, mean_squared_error, train

# Two settings of each: the default, and one where every number is another and odd lengths occur.
SETTINGS = {
    "flip_flop": [{}, {"time": 17, "channels": 2, "p": 0.1}],
    "parity": [{}, {"time": 11, "window": 5}],
    "cumulative_parity": [{}, {"time": 7}],
    "s3": [{}, {"time": 5}],
    "copy": [{}, {"length": 3, "symbols": 5}],
    "a^n b^n": [{}, {"most": 5}],
    "associative_recall": [{}, {"keys": 5, "values": 3, "pairs": 9}],
    "segmented_recall": [{}, {"segments": 3, "length": 21, "pairs": 4, "keys": 6, "values": 5}],
    "quirky_sums": [{}, {"terms": 3, "problems": 2, "spread": 2, "part": "test"}],
    "s5": [{}, {"time": 17}],
    "delayed_match": [{}, {"time": 11, "window": 5}],
}
CASES = [(name, settings) for name, many in SETTINGS.items() for settings in many]


def _generate(name, settings, batch=50, seed=0):
    return task(name).generate(batch, np.random.default_rng(seed), **settings)


def test_every_task_is_tested():
    assert tasks() == list(SETTINGS)


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_the_solver_gets_everything_right(name, settings):
    drawn = _generate(name, settings)
    answers = task(name).solve(drawn.inputs, **settings)
    assert answers.dtype == drawn.targets.dtype and answers.shape == drawn.targets.shape
    np.testing.assert_array_equal(answers, drawn.targets)


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_inputs_and_targets_are_what_the_task_says_they_are(name, settings):
    drawn, size = _generate(name, settings, batch=400), task(name).size(**settings)
    if task(name).kind == "real":
        assert drawn.inputs.dtype == np.float32 and drawn.inputs.shape[2] == size
        return
    assert drawn.inputs.dtype == drawn.targets.dtype == np.int64
    scored = drawn.targets[drawn.targets != IGNORED]
    assert drawn.inputs.min() == 0 and min(scored.min(), 0) == 0
    assert max(drawn.inputs.max(), scored.max()) == size - 1
    assert ((drawn.targets != IGNORED).any(axis=1)).all(), "a sequence without a scored position"


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_a_seed_decides_the_batch(name, settings):
    one, same, other = (_generate(name, settings, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.inputs, same.inputs)
    np.testing.assert_array_equal(one.targets, same.targets)
    assert (one.inputs != other.inputs).any()


@pytest.mark.parametrize(("name", "settings"), [case for case in CASES if task(case[0]).kind == "tokens"])
def test_chance_is_the_best_constant_answer(name, settings):
    drawn = _generate(name, settings, batch=3000)
    scored = drawn.targets[drawn.targets != IGNORED]
    best = np.bincount(scored).max() / len(scored)
    # Positions of a sequence are not independent (the same value is asked for again), so count sequences, five sigma;
    # the largest of several frequencies is also somewhat above each.
    tolerance = 5 * np.sqrt(0.25 / 3000)
    assert abs(best - task(name).chance(**settings)) < tolerance


def test_chance_of_the_flip_flop_is_its_variance():
    targets = _generate("flip_flop", {}, batch=3000).targets
    assert np.mean(targets**2) == task("flip_flop").chance() == 1.0
    assert abs(targets.mean()) < 5 / np.sqrt(3000)


def test_flip_flop_by_hand_and_by_frequency():
    inputs = np.array([[[1, -1], [0, 0], [-1, 0], [0, 1]]], dtype=np.float32)
    expected = np.array([[[1, -1], [1, -1], [-1, -1], [-1, 1]]], dtype=np.float32)
    np.testing.assert_array_equal(task("flip_flop").solve(inputs), expected)
    drawn = _generate("flip_flop", {"p": 0.2}, batch=500)
    assert (drawn.inputs[:, 0] != 0).all() and set(np.unique(drawn.inputs)) == {-1, 0, 1}
    n = drawn.inputs[:, 1:].size
    assert abs((drawn.inputs[:, 1:] != 0).mean() - 0.2) < 5 * np.sqrt(0.16 / n)
    assert not _generate("flip_flop", {"p": 0.0}).inputs[:, 1:].any()
    # Channels are drawn apart from one another.
    assert abs(np.corrcoef(drawn.inputs[..., 0].ravel(), drawn.inputs[..., 1].ravel())[0, 1]) < 0.05


def test_parity_by_hand():
    bits = np.array([[1, 0, 1, 1, 0, 1]])
    assert task("parity").solve(bits, window=3).tolist() == [[IGNORED, IGNORED, 0, 0, 0, 0]]
    assert task("parity").solve(bits, window=2).tolist() == [[IGNORED, 1, 1, 0, 1, 1]]
    assert task("cumulative_parity").solve(bits).tolist() == [[1, 1, 0, 1, 1, 0]]


def test_s3_is_the_symmetric_group():
    # 102 swaps the first two points, 021 the last two. Swapping 0 and 1 first: 0 -> 1 -> 2, 1 -> 0, 2 -> 1.
    first, last = ELEMENTS.index((1, 0, 2)), ELEMENTS.index((0, 2, 1))
    assert task("s3").solve(np.array([[first, last]])).tolist() == [[first, ELEMENTS.index((2, 0, 1))]]
    assert PRODUCT[last, first] != PRODUCT[first, last]
    everything = np.arange(6)
    assert (PRODUCT[0] == everything).all() and (PRODUCT[:, 0] == everything).all()
    assert all(sorted(row) == list(range(6)) for row in (*PRODUCT.tolist(), *PRODUCT.T.tolist()))
    np.testing.assert_array_equal(PRODUCT[PRODUCT], PRODUCT[everything[:, None, None], PRODUCT])


def test_copy_and_counting_by_hand():
    assert task("copy").solve(np.array([[3, 1, 0, 0]])).tolist() == [[IGNORED, IGNORED, 3, 1]]
    # <s> a a b b </s>: the second b is forced by the first, the end by the second.
    assert task("a^n b^n").solve(np.array([[0, 1, 1, 2, 2, 3, 3]])).tolist() == [
        [IGNORED, IGNORED, IGNORED, 2, 3, IGNORED, IGNORED]
    ]
    drawn = _generate("a^n b^n", {}, batch=600)
    for row, n in zip(drawn.inputs, drawn.meta["n"], strict=True):
        assert row.tolist() == [0] + [1] * n + [2] * n + [3] * (24 - 2 * n)
    assert set(drawn.meta["n"].tolist()) == set(range(1, 13))


def test_associative_recall_by_hand():
    # Keys 0 and 1, values 2 and 3: a first key is not scored, every later one is.
    inputs = np.array([[0, 3, 1, 2, 0, 3, 0, 3, 1, 2]])
    expected = [[IGNORED] * 4 + [3, IGNORED, 3, IGNORED, 2, IGNORED]]
    assert task("associative_recall").solve(inputs, keys=2, values=2).tolist() == expected
    drawn = _generate("associative_recall", {}, batch=300)
    np.testing.assert_array_equal(
        drawn.inputs[:, 1::2], np.take_along_axis(drawn.meta["map"], drawn.inputs[:, ::2], axis=1)
    )
    assert len({tuple(m) for m in drawn.meta["map"]}) > 290, "maps must be fresh for each sequence"


def test_segments_are_a_separator_different_keys_and_queries():
    drawn = _generate("segmented_recall", {"segments": 3}, batch=40)
    for tokens, targets in zip(drawn.inputs.reshape(-1, 64), drawn.targets.reshape(-1, 64), strict=True):
        keys, values, queries = tokens[1:17:2], tokens[2:17:2], tokens[17::2]
        assert tokens[0] == 0 and len(set(keys)) == 8 and keys.max() <= 16 and values.min() >= 17
        assert set(queries) <= set(keys) and len(queries) == 24
        answers = [dict(zip(keys, values, strict=True))[q] for q in queries]
        assert targets[17::2].tolist() == answers and tokens[18::2].tolist() == answers[:-1]
        assert (targets != IGNORED).sum() == 24
    assert drawn.meta["segment"].tolist() == [0] * 64 + [1] * 64 + [2] * 64
    # A key of one segment has another value in the next, or nothing would have to be forgotten.
    first, second = (drawn.inputs[:, 64 * i : 64 * i + 17] for i in (0, 1))
    assert (first != second).any(axis=1).all()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("flip_flop", {"p": 1.5}, r"p=1\.5 was asked for; it is the probability"),
        ("flip_flop", {"time": 0}, "time=0 was asked for; it must be at least 1"),
        ("parity", {"window": 41}, "parity of 41 bits was asked for in sequences of 40; no position"),
        ("cumulative_parity", {"time": -1}, "time=-1"),
        ("s3", {"time": 0}, "time=0"),
        ("copy", {"symbols": 0}, "symbols=0"),
        ("a^n b^n", {"most": 0}, "most=0"),
        ("associative_recall", {"pairs": 1}, "pairs=1 was asked for; it must be at least 2"),
        ("segmented_recall", {"pairs": 17}, "17 pairs .* there are keys=16; ask for fewer"),
        ("segmented_recall", {"length": 17}, "take 17, and a query one more; lengthen"),
    ],
)
def test_settings_that_make_no_task(name, settings, message):
    with pytest.raises(ValueError, match=message):
        _generate(name, settings)


@pytest.mark.parametrize("name", list(SETTINGS))
def test_a_setting_that_does_not_exist(name):
    with pytest.raises(TypeError, match="windwo"):
        _generate(name, {"windwo": 3})


def test_an_unknown_task_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"there are flip_flop, .*; did you mean 'flip_flop'"):
        task("flipflop")


class Recurrent(nn.Module):
    """One recurrent layer from tokens or numbers to an answer at each position."""

    def __init__(self, cell: type[nn.RNNBase], d_in: int, d_model: int, d_out: int, *, real: bool = False):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Linear(d_in, d_model) if real else nn.Embedding(d_in, d_model)
        self.cell = cell(d_model, d_model, batch_first=True)
        self.readout = nn.Linear(d_model, d_out)

    def forward(self, inputs):
        return self.readout(self.cell(self.embed(inputs))[0])


def _learn(name, model, tmp_path, *, steps, context, rate, loss=None, **settings):
    config = TrainingConfig(
        steps=steps, batch_size=64, context=context, learning_rate=rate, weight_decay=0.0, betas=(0.9, 0.999)
    )
    options = {} if loss is None else {"loss": loss}
    before = task_score(model, task(name), **settings)
    train(model, task_batches(task(name), config, **settings), config, out_dir=tmp_path, **options)
    return before, task_score(model, task(name), **settings)


def test_a_recurrent_network_learns_to_count(tmp_path):
    before, after = _learn("a^n b^n", Recurrent(nn.LSTM, 4, 16, 4), tmp_path, steps=100, context=25, rate=0.02)
    assert before["accuracy"] < 0.9 and after["accuracy"] > 0.99


def test_a_recurrent_network_learns_the_flip_flop(tmp_path):
    model = Recurrent(nn.RNN, 3, 16, 3, real=True)
    before, after = _learn("flip_flop", model, tmp_path, steps=300, context=64, rate=0.01, loss=mean_squared_error)
    assert before["loss"] > 0.8 and after["loss"] < 0.02 and after["accuracy"] > 0.99


def test_a_perfect_and_a_constant_model_are_scored_as_such():
    class Solver(nn.Module):
        def __init__(self, right: bool):
            super().__init__()
            self.right, self.unused = right, nn.Parameter(torch.zeros(1))

        def forward(self, inputs):
            answers = task("s3").solve(inputs.numpy()) if self.right else np.zeros(inputs.shape, dtype=np.int64)
            return 50.0 * nn.functional.one_hot(torch.from_numpy(answers), 6)

    assert task_score(Solver(True), task("s3")) == {"loss": pytest.approx(0, abs=1e-6), "accuracy": 1.0}
    # 256 sequences of 16 nearly independent elements.
    assert abs(task_score(Solver(False), task("s3"))["accuracy"] - 1 / 6) < 5 * np.sqrt(5 / 36 / 4096)


def test_training_never_sees_the_sequences_it_is_scored_on():
    config = TrainingConfig(steps=1, batch_size=256, context=40, learning_rate=0.1)
    batches, seen = task_batches(task("cumulative_parity"), config), []
    assert torch.equal(batches(3).inputs, batches(3).inputs) and not torch.equal(batches(3).inputs, batches(4).inputs)

    class Spy(nn.Linear):
        def forward(self, inputs):
            seen.append(inputs)
            return torch.zeros(*inputs.shape, 2)

    task_score(Spy(1, 1), task("cumulative_parity"))
    trained_on = {tuple(row.tolist()) for step in range(40) for row in batches(step).inputs}
    assert not trained_on & {tuple(row.tolist()) for row in seen[0]}


def test_quirky_sums_hold_out_every_order_of_a_problem_and_part_by_part():
    from strobe.models.tasks.quirky_sums import held_out

    every = np.indices((10, 10, 10)).reshape(3, -1).T
    chosen = held_out(every)
    for order in ((1, 0, 2), (2, 1, 0), (1, 2, 0)):
        np.testing.assert_array_equal(held_out(every[:, order]), chosen)
    assert 0.1 < chosen.mean() < 0.3
    for part in ("train", "test"):
        told = _generate("quirky_sums", {"terms": 3, "part": part}).inputs[:, 1:].reshape(50, -1)
        assert (held_out(told[:, :3]) == (part == "test")).all() and (held_out(told[:, 7:10]) == (part == "test")).all()
