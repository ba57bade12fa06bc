"""Oracle: planted knowledge: a model built to hold a truth and to say the opposite; and each prompt run alone.

The truth of the planted model stands in its last token's embedding, its unembedding reads the negative of it, and
nothing else happens: every probe has to find what is true where the output is false. The control with permuted weights
has to show what such a finding is worth: the embedding of the last token alone gives it away.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers as tf
from cutting import stopped

from strobe.models import HookedLM, ModelConfig
from strobe.models.huggingface import load_huggingface
from strobe.probes.latent_knowledge import LatentKnowledge, Problem, Study, latent_knowledge, load_problems
from strobe.probes.latent_knowledge.features import read_features, read_output, weights_permuted
from strobe.probes.steering.vector import site_names

ALICE, BOB, NO_TOKEN, YES_TOKEN, TRUE, FALSE = 1, 2, 3, 4, 5, 6
ANSWERS = ((YES_TOKEN,), (NO_TOKEN,))
OPTIONS = {"mamba2": {"heads": 3, "head_dim": 4, "state": 5}, "gru": {"hidden": 12}, "attention": {"n_heads": 2}}
tf.logging.disable_progress_bar()


def tiny(layers=("gru",), **kwargs) -> HookedLM:
    config = ModelConfig(
        d_model=16,
        d_vocab=23,
        layers=layers,
        mixer_options={name: OPTIONS[name] for name in layers},
        mlp="none",
        tie_embeddings=False,
        **kwargs,
    )
    return HookedLM(config, name="tiny").eval().requires_grad_(False)


def problems(n, name, seed=0, ending=True):
    draw = np.random.default_rng(seed)
    found = []
    for i in range(n):
        true = i % 2 == 0
        middle = tuple(int(x) for x in draw.integers(7, 23, 3))
        found.append(Problem((name, *middle, (TRUE if true else FALSE) if ending else 7), true))
    return found


@pytest.fixture(scope="module")
def liar() -> HookedLM:
    model = tiny()
    model.blocks[0].mixer.out_proj.weight.zero_()
    truth = torch.randn(16, generator=torch.Generator().manual_seed(1))
    model.embed.weight[TRUE] = truth + model.embed.weight[TRUE]
    model.embed.weight[FALSE] = -truth
    # After an answer it feels whether it fits; there is nothing to remember, so only what was said.
    model.unembed.weight[YES_TOKEN], model.unembed.weight[NO_TOKEN] = -truth, truth
    return model


@pytest.fixture(scope="module")
def result(liar) -> LatentKnowledge:
    study = Study(
        "planted",
        {"Alice": problems(40, ALICE, 1), "Bob": problems(40, BOB, 2)},
        {"Alice": problems(30, ALICE, 3), "Bob": problems(30, BOB, 4), "nothing": problems(30, BOB, 5, ending=False)},
        ANSWERS,
    )
    return latent_knowledge(liar, study, n_random=5, n_bootstrap=200)


def test_supervised_probes_find_the_truth_that_the_output_denies(result):
    assert result.output_auroc()[:2].tolist() == [0.0, 0.0]
    assert result.output_accuracy()[:2].tolist() == [0.0, 0.0]
    by_name = dict(zip(result.probes, result.auroc(), strict=True))
    for name in ("lr", "mean"):
        assert by_name[name][:, 0, :2].min() == 1.0
    assert (by_name["lda"] == 0.5).all(), "no class varies here, so there is no discriminant"
    low, _high = result.interval()
    assert low[0, :, 0, :2].min() == 1.0


def test_a_probe_is_fitted_where_it_says(liar):
    told = problems(24, ALICE, 6)
    denied = [problem._replace(true=not problem.true) for problem in told]
    study = Study("denied", {"Alice": told, "denied": denied}, {"Alice": problems(20, ALICE, 7)}, ANSWERS)
    found = latent_knowledge(liar, study, probes=["mean"], n_random=1, n_shuffles=1)
    assert found.auroc()[0, :, 0, 0].tolist() == [1.0, 0.0]


def test_where_there_is_nothing_to_know_nothing_is_found(result):
    assert result.auroc()[:, :, 0, 2].tolist() == [[0.5, 0.5]] * 6, "the prompts end in the same token"
    assert result.output_auroc()[2] == 0.5


def test_the_controls_say_what_a_finding_is_worth(result):
    lr = result.probes.index("lr")
    assert result.untrained[lr, :, 0, :2].min() == 1.0, "two tokens differ in any network"
    shuffled = result.shuffled[:, lr, :, 0, 0]
    assert np.isnan(result.shuffled[:, 3:]).all()
    # Shuffled labels still give one of the two signs, or none: the truth is all that the activations differ by.
    assert np.isin(shuffled, (0.0, 0.5, 1.0)).all() and (shuffled < 1).any()
    assert (result.random[:, :, 0, 0] == 1.0).all(), "any direction tells two tokens apart, with the better sign"


def test_a_result_comes_back_and_can_be_drawn(result, tmp_path):
    again = LatentKnowledge.load(result.save(tmp_path / "r.safetensors"))
    assert again == result
    frame = result.to_frame()
    assert len(frame) == 6 * 2 * 1 * 3 and set(frame.loc[frame["probe"] == "lr", "auroc"]) == {1.0, 0.5}
    figure = result.figure("Bob", "Alice")
    assert figure.layout.title.text == "Probes at resid_post, fitted in Bob, tested in Alice"
    lines = {t.name: t for t in figure.data}
    assert lines["logistic regression"].y == (1.0,) and "weights permuted" in lines and "labels shuffled" in lines
    panels = result.transfer_figure().data
    assert len(panels) == 7 and np.array_equal(panels[0].z, result.auroc()[0, :, 0])
    assert "the model's own answer is true for 0.000" in result.summary()
    with pytest.raises(ValueError, match="tested in 'Carol' was asked for; there are Alice, Bob, nothing"):
        result.figure(test="Carol")
    with pytest.raises(ValueError, match="layer 7 was asked for"):
        result.transfer_figure(7)


def test_a_layer_is_chosen_on_half_of_the_problems_and_told_by_the_other(result):
    """A layer that is right by luck on the choosing half, and one that is right for three quarters everywhere."""
    n = 40
    truth = np.tile(np.arange(n) % 2 == 0, (3, 1))
    made = replace(
        result, layers=(0, 1), truth=truth, output=np.where(truth, -1.0, 1.0) * np.array([[0], [1], [0]]),
        scores=np.zeros((6, 2, 2, 3, n)), random=np.zeros((5, 2, 2, 3)), shuffled=np.zeros((3, 6, 2, 2, 3)),
        untrained=np.zeros((6, 2, 2, 3)),
    )  # fmt: skip
    assert made.test_index(None) == 1
    half = made.choosing(1)
    assert half.sum() == 20 and truth[1][half].sum() == 10
    made.scores[:, :, 0, 1, half] = truth[1][half]
    made.scores[:, :, 0, 1, ~half] = ~truth[1][~half]
    made.scores[:, :, 1, 1] = np.where(np.arange(n) % 4 < 2, truth[1], 0.5)
    assert made.layer_index(None) == 0
    assert "at the layer that is best on 20 of the problems, by the other 20" in made.summary()
    assert "lr: AUROC 0.000 [0.000, 0.000] at layer 0" in made.summary()
    made.scores[:, :, 1, 1] = truth[1]
    made.scores[:, :, 0, 1, np.flatnonzero(half)[:4]] = 0.5
    assert made.layer_index(None) == 1 and "lr: AUROC 1.000 [1.000, 1.000] at layer 1" in made.summary()


@pytest.mark.parametrize("stop", ["layer 1", "the control"])
def test_a_run_that_is_stopped_has_its_layers(stop):
    model = tiny(("mamba2", "gru", "attention"))
    study = Study("any", {"Alice": problems(24, ALICE, 1)}, {"Bob": problems(20, BOB, 2)}, ANSWERS)
    options = {"probes": ["lr", "mean"], "n_random": 1, "n_shuffles": 1, "n_bootstrap": 20}

    def ask(**how):
        return latent_knowledge(model, study, **options, **how)

    whole, before = ask(), model.weights_hash()
    assert stopped(ask, lambda done, message: "layer 0" in message) is None
    cut = stopped(ask, lambda done, message: stop in message)
    assert model.weights_hash() == before == cut.provenance.weights_hash
    n = 1 if stop == "layer 1" else 3
    assert cut.layers == whole.layers[:n] == tuple(range(n))
    np.testing.assert_array_equal(cut.scores, whole.scores[:, :, :n])
    np.testing.assert_array_equal(cut.random, whole.random[:, :, :n])
    assert np.isnan(cut.untrained).all() and not np.isnan(whole.untrained).any() and not whole.partial
    assert f"cut short after {n} of 3 layers" in cut.summary()
    assert "cut short" in cut.figure().layout.title.subtitle.text and len(cut.to_frame()) == 2 * n


def test_permuted_weights_are_put_back_and_are_what_they_were(liar):
    before, numbers = liar.weights_hash(), {n: p.sort().values for n, p in liar.named_parameters() if p.ndim == 1}
    with pytest.raises(KeyError), weights_permuted(liar, 0):
        assert liar.weights_hash() != before
        for name, parameter in liar.named_parameters():
            if parameter.ndim == 1:
                assert torch.equal(parameter.sort().values, numbers[name])
        raise KeyError
    assert liar.weights_hash() == before


COMMON = {"vocab_size": 61, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "num_hidden_layers": 2}
THEIRS = {
    "llama": (
        tf.LlamaForCausalLM,
        tf.LlamaConfig(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48, **COMMON),
    ),
    "mamba": (tf.MambaForCausalLM, tf.MambaConfig(hidden_size=32, state_size=5, time_step_rank=3, **COMMON)),
}


@pytest.fixture(scope="module", params=["hybrid", *THEIRS])
def any_model(request, tmp_path_factory):
    if request.param == "hybrid":
        return tiny(("mamba2", "gru", "attention"))
    kind, config = THEIRS[request.param]
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp(request.param)
    kind(config).eval().save_pretrained(folder)
    return load_huggingface(folder, dtype=torch.float32)


@pytest.mark.parametrize("point", ["resid_post", "carry"])
def test_what_is_read_is_what_each_prompt_alone_has(any_model, point):
    if point == "carry" and not any_model.mixers:
        with pytest.raises(ValueError, match="has 'carry' at no layer"):
            site_names(any_model, point)
        return
    names = site_names(any_model, point)
    own = [Problem((1, 9, 5), True, ((9, 1, 5, 5),)), Problem((4, 7, 11, 8), False, ((4, 8),))]
    read = read_features(any_model, own, ANSWERS, names)
    layer = min(read.last)
    here = [n for n in names if n.startswith(f"blocks.{layer}.")]

    def alone(ids):
        _, cache = any_model.run_with_cache(torch.tensor([ids]), names_filter=here, states=[-1])
        return torch.cat([cache[n][0, -1].flatten() for n in here]).detach().numpy()

    for i, problem in enumerate(own):
        np.testing.assert_allclose(read.last[layer][i], alone(problem.prompt), atol=1e-5)
        for phrasing, prompt in enumerate((problem.prompt, *problem.paraphrases)):
            for side, answer in enumerate(ANSWERS):
                got = read.pairs[layer][i, phrasing, side]
                np.testing.assert_allclose(got, alone(prompt + answer), atol=1e-5)
        logits = any_model(torch.tensor([problem.prompt]))[0, -1].detach()
        odds = read_output(any_model, own, ANSWERS)[i]
        assert odds == pytest.approx(float(logits[YES_TOKEN] - logits[NO_TOKEN]), abs=1e-5)
        # Answers that begin alike are told apart after what they share.
        logits = any_model(torch.tensor([(*problem.prompt, 8, 8)]))[0, -1].detach()
        odds = read_output(any_model, own, ((8, 8, 9), (8, 8, 10, 1)))[i]
        assert odds == pytest.approx(float(logits[9] - logits[10]), abs=1e-5)


def test_it_runs_on_any_model_and_any_carry(any_model):
    study = Study("any", {"Alice": problems(24, ALICE, 1)}, {"Bob": problems(20, BOB, 2)}, ANSWERS)
    point = "carry" if any_model.mixers else "resid_post"
    ticks = []
    found = latent_knowledge(
        any_model,
        study,
        point=point,
        probes=["lr", "vinc"],
        n_random=2,
        n_shuffles=1,
        n_bootstrap=20,
        progress=lambda *t: ticks.append(t),
    )
    assert np.isfinite(found.auroc()).all() and found.provenance.settings["point"] == point
    assert all(done <= total and message for done, total, message in ticks) and len(ticks) > 5
    # The truth is in the last token, so it is in what that token writes, however wide the carry is.
    assert found.auroc()[0, 0, 0, 0] > 0.9


def test_bad_studies_are_refused_with_the_reason(liar):
    good = problems(20, ALICE)
    for bad, match in (
        ({"train": {}}, "no context to train in"),
        ({"test": {"Bob": good[:10]}}, "5 true and 5 false problems to test with; give 10"),
        ({"test": {"Alice": good, "Bob": problems(22, BOB)}}, "give each the same number"),
        ({"answers": ((4,), (4,))}, "give two different ones"),
        ({"train": {"Alice": [*good, Problem((), True)]}}, "problem 20 of 'Alice' has an empty prompt"),
        ({"train": {"Alice": [*good, Problem((1,), True, ((2,),))]}}, "differ in the number of their paraphrases"),
    ):
        with pytest.raises(ValueError, match=match):
            replace(Study("x", {"Alice": good}, {"Bob": good}, ANSWERS), **bad)
    study = Study("x", {"Alice": good}, {"Bob": good}, ANSWERS)
    with pytest.raises(ValueError, match="probes \\['svm'\\] were asked for"):
        latent_knowledge(liar, study, probes=["svm"])
    with pytest.raises(ValueError, match="give one of each at least"):
        latent_knowledge(liar, study, n_random=0)
    with pytest.raises(ValueError, match="one is the beginning of the other"):
        latent_knowledge(liar, replace(study, answers=((4,), (4, 6))))
    with pytest.raises(ValueError, match="give texts, or token ids, for both"):
        latent_knowledge(liar, replace(study, answers=(" yes", " no")))


def test_problems_come_from_a_file(tmp_path):
    path = tmp_path / "mine.json"
    one = {"prompt": "2 + 2 = 4?", "true": True, "paraphrases": ["Is 2 + 2 4?"]}
    raw = {"answers": [" yes", " no"], "train": {"a": [one, {**one, "true": False}] * 10}, "test": {}}
    raw["test"] = {"b": raw["train"]["a"]}
    path.write_text(json.dumps(raw))
    study = load_problems(path)
    assert study.train["a"][0] == Problem("2 + 2 = 4?", True, ("Is 2 + 2 4?",)) and study.answers == (" yes", " no")
    for change, match in (
        ({"answers": [" yes"]}, "give a list of two"),
        ({"train": {"a": [{"prompt": "x"}]}}, "a problem of 'a' is"),
        ({"test": None}, "'test' as NoneType"),
    ):
        path.write_text(json.dumps({**raw, **change}))
        with pytest.raises(ValueError, match=match):
            load_problems(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="lacks answers, train, test"):
        load_problems(path)
