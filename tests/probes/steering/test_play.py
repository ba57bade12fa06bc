"""Oracle: the pieces by themselves: the model's own generation, `Steering`'s, and log probabilities of whole texts."""

import numpy as np
import pytest
import torch

from strobe.models import HookedLM, ModelConfig
from strobe.probes.steering.apply import Steering, Where
from strobe.probes.steering.play import SteeredText, steered_text
from strobe.probes.steering.vector import SteeringVector

PROMPT = [3, 17, 5, 29]


@pytest.fixture(scope="module")
def model() -> HookedLM:
    torch.manual_seed(4)
    options = {"mamba2": {"heads": 3, "head_dim": 4, "state": 5}, "attention": {"n_heads": 2}}
    config = ModelConfig(
        d_model=16, d_vocab=31, layers=("mamba2", "attention"), mixer_options=options, mlp="plain", d_mlp=24
    )
    model = HookedLM(config, name="small").eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.mul_(3.0)
    return model


@pytest.fixture(scope="module")
def vector(model) -> SteeringVector:
    directions = {f"blocks.{i}.hook_resid_post": torch.randn(16) * 2 for i in range(2)}
    return SteeringVector(directions=directions, point="resid_post", model="m", weights_hash=model.weights_hash())


@pytest.fixture(scope="module")
def played(model, vector) -> SteeredText:
    return steered_text(model, PROMPT, vector, 1.5, layers=0, max_new_tokens=8, seed=2)


def test_runs_are_the_plain_the_steered_and_the_random_generation(model, vector, played):
    tokens, where = torch.tensor([PROMPT]), Where("from", start=-1)
    runs = [model, *(Steering(model, v, 1.5, layers=0, where=where) for v in (vector, vector.random(2001)))]
    for i, run in enumerate(runs):
        new = run.generate(tokens, 8, temperature=0.7, seed=2)[0, 4:]
        assert played.continuations[i] == [f"[{int(t)}]" for t in new]
        whole = torch.cat([tokens[0], new])
        log_p = model(whole[None])[0].double().log_softmax(-1)
        expected = [-float(log_p[3 + t, new[t]]) for t in range(8)]
        np.testing.assert_allclose(played.surprise[i], expected, atol=1e-4)
    assert played.continuations[0] != played.continuations[1]


def test_what_is_written_is_told_token_by_token_side_by_side(model, vector, played):
    told, steps = [], []
    again = steered_text(
        model, PROMPT, vector, 1.5, layers=0, max_new_tokens=8, seed=2, written=told.append,
        progress=lambda done, total, message: steps.append((done, total)),
    )  # fmt: skip
    assert again.continuations == played.continuations
    assert told == [[words[: i + 1] for words in played.continuations] for i in range(8)]
    assert steps == [(i, 8) for i in range(8)]


def test_a_run_that_ends_early_waits_for_the_others(model, vector, played):
    written = played.continuations
    end = next(word for word in written[1] if any(word not in others for others in written))

    class Ends:
        eos_token_id = int(end.strip("[]"))

    model.tokenizer, model.to_string = Ends(), lambda ids: f"[{ids[0]}]"
    try:
        text = steered_text(model, PROMPT, vector, 1.5, layers=0, max_new_tokens=8, seed=2)
    finally:
        model.tokenizer = None
        del model.to_string
    lengths = [words.index(end) + 1 if end in words else 8 for words in written]
    assert text.continuations == [words[:n] for words, n in zip(written, lengths, strict=True)]
    assert lengths[1] < 8 and max(lengths) == 8
    assert (np.isfinite(text.surprise).sum(1) == lengths).all()


def test_it_is_kept_shown_and_told(played, tmp_path):
    assert SteeredText.load(played.save(tmp_path / "t.safetensors")) == played
    assert len(played.to_frame()) == 4 * 8
    fig = played.figure()
    np.testing.assert_allclose(fig.data[1].y[-1], played.surprise[1].mean())
    assert "multiplier 1.5" in played.summary() and "random 2" in played.summary()


def test_bad_input_is_refused(model, vector):
    with pytest.raises(ValueError, match="0 random directions"):
        steered_text(model, PROMPT, vector, 1.0, n_random=0)
    with pytest.raises(ValueError, match="layers \\[3\\]"):
        steered_text(model, PROMPT, vector, 1.0, layers=3)


def test_where_it_is_ended_the_texts_so_far_are_the_beginnings_of_the_whole_ones(model, vector, played):
    class Ended(Exception):
        pass

    def progress(done, total, message):
        if done == 3:
            raise Ended

    kept = []
    with pytest.raises(Ended):
        steered_text(
            model, PROMPT, vector, 1.5, layers=0, max_new_tokens=8, seed=2, progress=progress, partial=kept.append
        )
    (so_far,) = kept
    assert so_far.continuations == [words[:3] for words in played.continuations]
    np.testing.assert_allclose(so_far.surprise, played.surprise[:, :3], atol=1e-4)
    assert so_far.partial == "cut short after 3 of 8 new tokens" and not played.partial
    so_far.figure()
