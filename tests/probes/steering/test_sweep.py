"""Oracle: the experiment itself by another route: whole passes with `Steering`, one setting at a time, no batch.

Further: the percentile bootstrap done by a loop, a model whose answer is known, and a model that is only broken.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from strobe.models import HookedLM, ModelConfig
from strobe.probes.steering import sweep as sweep_module
from strobe.probes.steering.apply import Steering, Where
from strobe.probes.steering.questions import Question, ask
from strobe.probes.steering.sweep import steering_sweep
from strobe.probes.steering.sweep_result import SteeringSweep
from strobe.probes.steering.vector import SteeringVector

OPTIONS = {"mamba2": {"heads": 3, "head_dim": 4, "state": 5}, "gru": {"hidden": 12}, "attention": {"n_heads": 2}}


class Letters:
    """A tokenizer: a is 0, b is 1, ..."""

    eos_token_id = None

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [ord(c) - ord("a") for c in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(i + ord("a")) for i in ids)


@pytest.fixture(scope="module")
def hybrid() -> HookedLM:
    torch.manual_seed(4)
    config = ModelConfig(
        d_model=16,
        d_vocab=26,
        layers=("mamba2", "gru", "attention"),
        mixer_options=OPTIONS,
        mlp="plain",
        d_mlp=24,
        tie_embeddings=False,
    )
    model = HookedLM(config, name="small", tokenizer=Letters()).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.mul_(3.0)
    return model


@pytest.fixture(scope="module")
def vectors(hybrid) -> dict[str, SteeringVector]:
    generator = torch.Generator().manual_seed(2)
    shapes = {
        "residual": ("resid_post", {f"blocks.{i}.hook_resid_post": (16,) for i in range(3)}),
        "state": (
            "carry",
            {
                "blocks.0.mixer.hook_state_S": (3, 5, 4),
                "blocks.0.mixer.hook_state_conv": (3, 22),
                "blocks.1.mixer.hook_state_h": (12,),
            },
        ),
    }
    return {
        name: SteeringVector(
            directions={n: torch.randn(s, generator=generator) for n, s in directions.items()},
            point=point,
            model="small",
            weights_hash=hybrid.weights_hash(),
        )
        for name, (point, directions) in shapes.items()
    }


QUESTIONS = [Question("abcde", "fg", "hg"), Question("zyx", "a", "b"), Question("qqrst", "uv", "uw")]
MULTIPLIERS = (-1.5, 0.0, 1.0)


@pytest.fixture(scope="module")
def swept(hybrid, vectors) -> SteeringSweep:
    return steering_sweep(
        hybrid, vectors, QUESTIONS, multipliers=MULTIPLIERS, n_random=2, n_continued=2, continuation=4, seed=3,
        n_bootstrap=400,
    )  # fmt: skip


def test_a_question_is_asked_where_its_answers_part(hybrid):
    asked = ask(hybrid, QUESTIONS)
    assert [a.ids.tolist() for a in asked] == [[0, 1, 2, 3, 4], [25, 24, 23], [16, 16, 17, 18, 19, 20]]
    assert [(a.matching, a.other) for a in asked] == [(5, 7), (0, 1), (21, 22)]
    with pytest.raises(ValueError, match="never part"):
        ask(hybrid, [Question("abc", "de", "de")])
    with pytest.raises(ValueError, match="part after 1 tokens"):
        ask(hybrid, [Question("a", "b", "c")])
    with pytest.raises(ValueError, match="no questions"):
        ask(hybrid, [])


@pytest.mark.parametrize("draw", [0, 2])
def test_every_cell_is_what_steering_one_whole_text_gives(hybrid, vectors, swept, draw):
    for v, (name, vector) in enumerate(vectors.items()):
        used = vector if draw == 0 else vector.random(3 * 1000 + draw)
        at = -1 if name == "residual" else -2
        for i, asked in enumerate(ask(hybrid, QUESTIONS)):
            plain = hybrid(asked.ids[None])[0, -1].double().log_softmax(-1)
            for layer in vector.layers:
                for m, multiplier in enumerate(MULTIPLIERS):
                    steering = Steering(hybrid, used, multiplier, layers=layer, where=Where("at", positions=(at,)))
                    log_p = steering.forward(asked.ids[None])[0, -1].double().log_softmax(-1)
                    p, cell = log_p.exp(), (v, draw, layer, m, i)
                    a, b = float(p[asked.matching]), float(p[asked.other])
                    assert swept.behaviour[cell] == pytest.approx(a / (a + b), abs=2e-4)
                    assert swept.outside[cell] == pytest.approx(1 - a - b, abs=2e-4)
                    kl = float((plain.exp() * (plain - log_p)).sum())
                    assert swept.kl[cell] == pytest.approx(kl, abs=5e-4)
    assert np.isnan(swept.behaviour[1, :, 2]).all() and np.isfinite(swept.behaviour[0]).all()


def test_multiplier_zero_is_the_unsteered_model(swept):
    for name in ("behaviour", "outside", "log_perplexity"):
        values, base = getattr(swept, name)[:, :, :2, 1], getattr(swept, f"base_{name}")
        np.testing.assert_allclose(values, np.broadcast_to(base, values.shape), atol=1e-6)
    assert np.abs(swept.kl[:, :, :2, 1]).max() < 1e-6
    assert np.abs(swept.mean("effect")[:, 0, :2, [0, 2]]).min() > 1e-5


def test_a_continuation_is_steered_at_every_token_or_by_its_carry_and_scored_by_the_unsteered_model(
    hybrid, vectors, swept
):
    asked = ask(hybrid, QUESTIONS)[1]
    for v, (where, name) in enumerate(((Where("from", start=-1), "residual"), (Where("at", positions=(1,)), "state"))):
        steering = Steering(hybrid, vectors[name], 1.0, layers=1, where=where)
        ids = asked.ids[None]
        for i in range(4):
            noise = torch.Generator().manual_seed((3 + 1) * 7919 + i)
            # Positions are those of the question: what is drawn is not prompt.
            hooks = steering.hooks(3)
            looks = [t for t in range(ids.shape[1]) if where.selects(t, 3)]
            logits = hybrid.run_with_hooks(ids, fwd_hooks=hooks, states=looks)
            uniform = torch.rand(26, generator=noise).clamp_min(torch.finfo(torch.float32).tiny)
            new = (logits[0, -1] / 0.7 - torch.log(-torch.log(uniform))).argmax()
            ids = torch.cat([ids, new.view(1, 1)], 1)
        log_p = hybrid(ids[:, :-1])[0].double().log_softmax(-1)
        score = -log_p[-4:].gather(-1, ids[0, -4:, None]).mean()
        assert swept.log_perplexity[v, 0, 1, 2, 1] == pytest.approx(float(score), abs=1e-3)


def test_rows_in_pieces_are_rows_at_once(hybrid, vectors, swept, monkeypatch):
    monkeypatch.setattr(sweep_module, "_ROWS", 7)
    again = steering_sweep(
        hybrid, vectors, QUESTIONS, multipliers=MULTIPLIERS, n_random=2, n_continued=0, seed=3, n_bootstrap=400
    )
    np.testing.assert_allclose(again.behaviour, swept.behaviour, atol=1e-5)
    assert again.log_perplexity.shape[-1] == 0 and np.isnan(again.mean("log_perplexity")).all()


class _Stop(Exception):
    pass


@pytest.mark.parametrize("after", [0, 2])
def test_a_sweep_that_is_stopped_keeps_the_questions_that_were_finished(hybrid, vectors, swept, after):
    def progress(done, total, message):
        if done == after:
            raise _Stop

    kept = []
    with pytest.raises(_Stop):
        steering_sweep(
            hybrid, vectors, QUESTIONS, multipliers=MULTIPLIERS, n_random=2, n_continued=1, continuation=4, seed=3,
            n_bootstrap=400, progress=progress, partial=kept.append,
        )  # fmt: skip
    if not after:
        assert not kept, "nothing was finished"
        return
    (partial,) = kept
    np.testing.assert_array_equal(partial.behaviour, swept.behaviour[..., :2])
    np.testing.assert_array_equal(partial.base_outside, swept.base_outside[:2])
    np.testing.assert_array_equal(partial.log_perplexity, swept.log_perplexity[..., :1])
    # Three layers for the first vector and two for the second, three draws, three multipliers, a question each.
    assert partial.progress == (2 * 45, 3 * 45) and swept.progress == (135, 135)
    assert "cancelled: 90 of 135 cells" in partial.summary() and "cancelled" not in swept.summary()
    assert np.isfinite(partial.interval("effect")[:, 0]).all() and partial.figure(1).to_json()


def test_intervals_are_those_of_resampled_questions(swept):
    draws = np.random.default_rng(3).multinomial(3, [1 / 3] * 3, 400)
    values = swept.kl[0, 0, 1, 2]
    means = [np.repeat(values, counts).mean() for counts in draws]
    np.testing.assert_allclose(swept.interval("kl")[:, 0, 0, 1, 2], np.quantile(means, [0.025, 0.975]), rtol=1e-9)


def test_a_planted_answer_is_found_and_a_broken_model_looks_broken(hybrid):
    # The two likeliest tokens after a prompt, so that the answers have most of the probability.
    second, first = hybrid(torch.tensor([[0, 1, 2]]))[0, -1].topk(2).indices.tolist()
    questions = [Question("abc", chr(97 + first), chr(97 + second))]
    towards = hybrid.W_U[:, first] - hybrid.W_U[:, second]
    away = 40 * hybrid.W_U[:, next(i for i in range(26) if i not in (first, second))]
    made = {
        name: SteeringVector(
            directions={"blocks.2.hook_resid_post": d},
            point="resid_post",
            model="m",
            weights_hash=hybrid.weights_hash(),
        )
        for name, d in {"towards": towards, "away": away}.items()
    }
    result = steering_sweep(hybrid, made, questions, multipliers=(0.0, 3.0), n_random=1, n_continued=0)
    assert result.mean("effect")[0, 0, 0, 1] > 0.05
    assert result.broken[1, 0, 0, 1] and result.outside[1, 0, 0, 1, 0] > 0.9
    assert not result.broken[:, 0, 0, 0].any()
    assert result.best(0) == (0, 1) and result.best(1) == (0, 0)


def test_the_best_setting_is_told_of_questions_that_it_was_not_chosen_on(swept):
    """Of two settings that differ by luck, the one that was lucky on the even questions is told by the odd ones."""
    n, shape = 8, (2, 3, 3, 3)
    behaviour = np.full((*shape, n), 0.5)
    behaviour[0, 0, 0, 2, 0::2], behaviour[0, 0, 0, 2, 1::2] = 0.9, 0.2
    behaviour[0, 0, 1, 0] = 0.6
    zeros = np.zeros((*shape, n))
    made = replace(
        swept, behaviour=behaviour, outside=zeros, kl=zeros, log_perplexity=zeros[..., :0],
        base_behaviour=np.full(n, 0.5), base_outside=np.zeros(n), base_log_perplexity=np.zeros(0),
    )  # fmt: skip
    assert made.best(0) == (0, 2)
    said = next(line for line in made.summary().splitlines() if line.strip().startswith("residual"))
    assert "-0.300 [-0.300, -0.300] at layer 0, multiplier 1" in said
    # What it breaks where it is told is said, and what it breaks where it is chosen is not chosen.
    outside = zeros.copy()
    outside[0, 0, 0, 2, 1::2] = 0.9
    assert replace(made, outside=outside).best(0) == (0, 2)
    assert "broken there" in replace(made, outside=outside).summary() and "broken" not in made.summary()
    outside[0, 0, 0, 2] = 0.9
    assert replace(made, outside=outside).best(0) == (1, 0)


def test_it_is_kept_shown_and_told(swept, tmp_path):
    assert SteeringSweep.load(swept.save(tmp_path / "s.safetensors")) == swept
    frame = swept.to_frame()
    assert len(frame) == 2 * 3 * 3 * 3
    row = frame[(frame.vector == "state") & (frame.draw == "random 2") & (frame.layer == 1) & (frame.multiplier == 1)]
    assert float(row.kl.iloc[0]) == pytest.approx(swept.kl[1, 2, 1, 2].mean())
    assert "random directions" in swept.summary() and "residual" in swept.summary()
    curves, heat, trade = swept.figure(1), swept.heatmap_figure("kl", "state"), swept.trade_figure()
    for fig in (curves, heat, trade):
        fig.to_json()
    assert [t.name for t in trade.data] == ["random, as residual", "residual", "random, as state", "state"]
    np.testing.assert_allclose(heat.data[0].z, swept.mean("kl")[1, 0])
    assert curves.layout.yaxis3.title.text.endswith("(nats)") and "layer 1" in curves.layout.title.text
    with pytest.raises(ValueError, match="layer 7"):
        swept.figure(7)
    with pytest.raises(ValueError, match="this sweep has residual, state"):
        swept.vector_index("lda")


def test_bad_input_is_refused(hybrid, vectors):
    with pytest.raises(ValueError, match="0 random directions"):
        steering_sweep(hybrid, vectors, QUESTIONS, n_random=0)
    with pytest.raises(ValueError, match="layers \\[5\\]"):
        steering_sweep(hybrid, vectors, QUESTIONS, layers=[5])
