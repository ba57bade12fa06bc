"""Oracle: a planted model (O4.1) in which one feature makes it repeat, another only comes with repetition.

The residual stream is [one-hot of the token, what is written, flag]; the mlp writes flag * one-hot of the token, the
logits read what is written. Token 0 raises the flag, so it is followed by itself for ever: both the flag's feature and
token 0's own are active in that loop and silent before it, and only the flag's makes any other token repeat.
"""

import numpy as np
import pytest
import torch
from cutting import stopped_after

from strobe.core.result import load_result
from strobe.models import HookedLM, ModelConfig
from strobe.probes.repetition import repetition_features
from strobe.probes.repetition.features import repetition_of
from strobe.probes.repetition.looping import LoopText, looping_texts, planted_loops
from strobe.probes.repetition.ranking import candidates, ordinary_features, rank_features
from strobe.probes.sae import SparseAutoencoder, ablate_features

V = 101
FLAG, CONSTANT = 2 * V, 2 * V + 1


@pytest.fixture(scope="module")
def model() -> HookedLM:
    config = ModelConfig(
        d_model=2 * V + 2,
        d_vocab=V,
        layers=("attention",),
        mixer_options={"attention": {"n_heads": 1}},
        mlp="gated",
        d_mlp=V,
        norm="none",
        tie_embeddings=False,
    )
    model = HookedLM(config, name="planted").eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.zero_()
    token, written = slice(0, V), slice(V, 2 * V)
    eye = torch.eye(V)
    model.embed.weight[:, token] = eye
    model.embed.weight[0, FLAG] = 1
    mlp = model.blocks[0].mlp
    mlp.W_gate.weight[:, FLAG] = 20
    mlp.W_in.weight[:, token] = eye
    mlp.W_out.weight[written] = eye
    model.unembed.weight[:, written] = eye
    # At rest token i is followed by i + 1 more often than by others, and no token by 0.
    model.unembed.weight[2:, 1 : V - 1] = torch.eye(V - 2)
    model.embed.weight[:, CONSTANT] = 1
    model.unembed.weight[0, CONSTANT] = -10
    return model


@pytest.fixture(scope="module")
def sae(model) -> SparseAutoencoder:
    eye, nothing = torch.eye(2 * V + 2), torch.zeros(2 * V + 2)
    return SparseAutoencoder(
        W_enc=eye, b_enc=nothing, W_dec=eye, b_dec=nothing, kind="relu", hook_name="blocks.0.hook_resid_pre",
        model="planted", model_hash=model.weights_hash(),
    )  # fmt: skip


def random_rows(rows: int, time: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, V, (rows, time), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def loops() -> list[LoopText]:
    return planted_loops([torch.tensor([0])] * 3, random_rows(3, 25))


@pytest.fixture(scope="module")
def result(model, sae, loops):
    return ask(model, sae, loops)


def ask(model, sae, loops, **how):
    rows = random_rows(6, 8, 1), random_rows(5, 40, 2)
    return repetition_features(model, sae, loops, *rows, n_candidates=2, strength=1, **how)


def test_the_planted_model_does_what_it_says(model):
    greedy = model.generate(torch.tensor([[4], [0]]), 5, temperature=0.0).tolist()
    assert greedy == [[4, 5, 6, 7, 8, 9], [0] * 6]
    found = looping_texts(model, torch.tensor([[9, 4, 7, 0], [9, 4, 7, 5]]), max_new_tokens=50, min_before=4)
    assert [(f.tokens.tolist(), f.onset, f.period, f.repeats) for f in found] == [([9, 4, 7, *[0] * 51], 3, 1, 4)]
    # 50 tokens after it sets in, not 60.
    assert looping_texts(model, torch.tensor([[9, 4, 7, 0]]), max_new_tokens=50, window=60, min_before=4) == []


def test_only_the_feature_that_makes_it_repeat_is_confirmed(result):
    found = result
    assert sorted(found.features) == [0, FLAG]
    at = found.features.tolist().index(FLAG)
    assert found.confirmed.tolist() == [i == FLAG for i in found.features]
    assert found.scores[:, at].min() >= 0.9
    assert found.scores[:, 1 - at].mean(1).max() < 0.6 and found.base_scores.mean(1).max() < 0.6
    assert found.ordinary_scores.mean() < 0.6 and not set(found.ordinary) & {0, FLAG}
    assert found.confirmed_by[:, at].all()
    assert found.deactivated == [FLAG]


def test_ablating_it_ends_loops_and_costs_nothing_elsewhere(result):
    found = result
    before, without, ordinary = found.loop_scores.transpose(1, 0, 2)
    assert before.min() >= 0.9 and without.max() < 0.7
    # An ordinary feature is not active in the loop, so ablating it changes nothing to the bit.
    assert np.array_equal(ordinary, before)
    # No held-out token raises the flag.
    assert np.array_equal(found.held_out_loss[1], found.held_out_loss[0])
    assert found.held_out_loss[2].mean() != found.held_out_loss[0].mean()


def test_a_stopped_run_has_a_partial_result(model, sae, loops, result, tmp_path):
    found = result
    # Told of the prompts, then twice of each candidate: at the fifth the second has no control; then of the ablation.
    nothing, so_far, unablated = (stopped_after(lambda **how: ask(model, sae, loops, **how), n) for n in (3, 5, 6))
    assert nothing is None and len(so_far.features) == 1 and len(so_far.texts) == 2
    for cut in (so_far, unablated):
        n = len(cut.features)
        for name in ("scores", "ordinary_scores"):
            np.testing.assert_array_equal(getattr(cut, name), getattr(found, name)[:, :n])
        assert np.isnan(cut.loop_scores).all() and "partial result" in cut.summary()
    assert len(unablated.features) == len(found.features) == 2
    assert load_result(so_far.save(tmp_path / "p.safetensors")) == so_far
    assert load_result(found.save(tmp_path / "f.safetensors")) == found
    frame = found.to_frame().set_index("feature")
    assert frame.loc[FLAG, "rep_score"] == pytest.approx(found.scores[0].mean(1).max())
    shown = found.figure()
    assert (
        list(shown.data[1].y) == pytest.approx(found.scores[0].mean(1)) and shown.data[0].name == "its ordinary feature"
    )
    assert [t for t in shown.layout.xaxis.ticktext if "✓" in t] == [f"{FLAG} ✓"]
    assert list(found.ablation_figure().data[0].y) == pytest.approx(found.loop_scores[0].mean(1))


def test_rankings_are_what_they_say(model, sae, loops):
    ordinary = random_rows(5, 40, 2)
    ranking = rank_features(model, sae, loops, ordinary, window=20)
    expected = torch.zeros(2 * V + 2)
    for loop in loops:
        before, after = loop.tokens[6:26], loop.tokens[26:46]
        for token in range(V):
            expected[token] += ((after == token).float().mean() - (before == token).float().mean()) / 3
    expected[FLAG] = expected[0]
    torch.testing.assert_close(ranking.delta, expected, atol=1e-6, rtol=0)
    counts = torch.bincount(ordinary[:, 1:].flatten(), minlength=V) / ordinary[:, 1:].numel()
    torch.testing.assert_close(ranking.density[:V], counts)
    assert int(ranking.projection.argmax()) == V
    assert float(ranking.projection[V]) == pytest.approx(1)
    assert candidates(ranking, 1) == [(0, "delta")]
    # Nothing writes to the stream at V here, so its feature is never active and no candidate.
    assert [i for i, _ in candidates(ranking, 9) if i == V] == []


def test_ordinary_features_are_as_often_active(model, sae, loops):
    ranking = rank_features(model, sae, loops, random_rows(9, 60, 2))
    chosen = ranking.density.argsort(descending=True)[:5].tolist()
    others = ordinary_features(ranking, chosen, seed=0)
    assert len(set(others)) == 5 and not set(others) & set(chosen)
    left = [i for i in range(2 * V + 2) if i not in chosen and float(ranking.density[i]) > 0]
    nearest = min(left, key=lambda i: abs(float(ranking.density[i].log() - ranking.density[chosen[0]].log())))
    assert float(ranking.density[others[0]]) == float(ranking.density[nearest])
    with pytest.raises(ValueError, match="ask for fewer candidates"):
        ordinary_features(ranking, list(range(FLAG)), seed=0)


def test_a_score_is_of_words_where_there_are_some(model):
    class Words:
        tokenizer = object()

        @staticmethod
        def to_string(tokens):
            return {1: "a b a", 2: "  ", 3: "X" * 7}[int(tokens[0])]

    assert repetition_of(Words, torch.tensor([1, 3])) == (pytest.approx(1 / 3), 0)
    assert repetition_of(Words, torch.tensor([2, 2])) == (0.5, 0)
    assert repetition_of(model, torch.tensor([2, 2, 2, 5])) == (0.5, 0)
    # One word of equal tokens: words do not see it, tokens do.
    assert repetition_of(Words, torch.tensor([3] * 7)) == (0, 0.75)


def test_features_of_a_carry_are_ablated_in_the_carry():
    options = {"mamba2": {"heads": 2, "head_dim": 3, "state": 2}}
    config = ModelConfig(
        d_model=8, d_vocab=19, layers=("mamba2",), mixer_options=options, mlp="none", tie_embeddings=False
    )
    model = HookedLM(config, name="small").eval().requires_grad_(False)
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.add_(0.4 * torch.randn_like(parameter))
    sae = SparseAutoencoder(
        W_enc=torch.randn(12, 16),
        b_enc=torch.zeros(16),
        W_dec=torch.nn.functional.normalize(torch.randn(16, 12)),
        b_dec=torch.zeros(12),
        kind="relu",
        hook_name="blocks.0.mixer.hook_state_S",
        model="small",
        state_shape=(2, 2, 3),
    )
    loops = planted_loops([torch.tensor([3, 4])] * 2, torch.randint(19, (2, 12)), window=20)
    held_out = torch.randint(19, (2, 15))
    found = repetition_features(
        model, sae, loops, torch.randint(19, (2, 5)), held_out, n_candidates=3, new_tokens=6, window=20
    )
    assert set(found.ranked_by) == {"delta"} and np.isnan(found.projection).all()

    def ablate(carry, hook):
        flat = carry.S.flatten(1)
        return carry._replace(S=ablate_features(sae, flat, found.deactivated).view_as(carry.S))

    log_p = model.run_with_hooks(held_out, fwd_hooks=[("blocks.0.mixer.hook_carry", ablate)], states="all")
    log_p = log_p[:, :-1].double().log_softmax(-1).gather(-1, held_out[:, 1:, None])
    assert found.held_out_loss[1] == pytest.approx((-log_p.mean((1, 2))).tolist(), rel=1e-5)
    assert abs(found.held_out_loss[1] - found.held_out_loss[0]).min() > 1e-4


def test_what_cannot_be_found_is_refused(model, sae, loops):
    rows = random_rows(2, 20)
    with pytest.raises(ValueError, match="no text with a loop"):
        repetition_features(model, sae, [], rows, rows)
    with pytest.raises(ValueError, match="strength 0"):
        repetition_features(model, sae, loops, rows, rows, strength=0)
    with pytest.raises(ValueError, match="give 16 at least"):
        short = [LoopText(torch.tensor([1, 2, 3, *[0] * 9]), 3, 1)]
        repetition_features(model, sae, short, rows, rows, n_candidates=1)


def test_what_chance_would_confirm_and_a_paired_test_stand_beside(result):
    from scipy.stats import wilcoxon

    found = result
    assert found.expected_by_chance == pytest.approx(2 * 2 / 3)
    expected = [
        wilcoxon(a.mean(1), b.mean(1), alternative="greater").pvalue
        for a, b in zip(found.scores, found.ordinary_scores, strict=True)
    ]
    assert found.p_values == pytest.approx(expected) and max(expected) <= 0.5
    assert "1.3 at most would clear that bar by chance" in found.summary()
