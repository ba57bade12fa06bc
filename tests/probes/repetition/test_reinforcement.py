"""Oracle: the table of O4.4 by hand, a model whose answer is known, and whole passes without a carry between pieces."""

import numpy as np
import pytest
import torch
import transformers as tf

from strobe.core.result import load_result
from strobe.models import HookedLM, ModelConfig
from strobe.models.huggingface import load_huggingface
from strobe.probes.repetition import reinforcement as module
from strobe.probes.repetition import self_reinforcement
from strobe.probes.repetition.reinforcement import reinforcement

OPTIONS = {"mamba2": {"heads": 3, "head_dim": 4, "state": 5}, "gru": {"hidden": 12}, "attention": {"n_heads": 2}}
tf.logging.disable_progress_bar()


def small(*layers: str, memoryless: bool = False) -> HookedLM:
    config = ModelConfig(
        d_model=16,
        d_vocab=23,
        layers=layers,
        mixer_options={name: OPTIONS[name] for name in layers},
        mlp="plain",
        d_mlp=24,
        tie_embeddings=False,
        n_ctx=32,
    )
    model = HookedLM(config, name="small").eval().requires_grad_(False)
    torch.manual_seed(2)
    for name, parameter in model.named_parameters():
        parameter.add_(0.5 * torch.randn_like(parameter))
        if memoryless and name.endswith(("W_O.weight", "out_proj.weight")):
            parameter.zero_()
    return model


def test_the_golden_table():
    p = np.array([[0.2, 0.5], [0.6, 0.4], [0.9, 0.8]])
    tp, ip, wr = reinforcement(p, np.array([[False, True], [True, False], [True, True]]))
    np.testing.assert_allclose(tp, [0.35, 0.5, 0.85])
    np.testing.assert_allclose(ip, [0, 0.5, 1.0])
    np.testing.assert_allclose(wr, [0.5, 0.5, 1.0])


def test_pieces_give_what_one_pass_over_everything_gives(monkeypatch):
    monkeypatch.setattr(module, "_PIECE", 5)
    model = small("mamba2", "gru", "attention")
    said = []
    result = self_reinforcement(
        model,
        [[3, 4, 5], [7, 8]],
        prefix=[1, 2],
        copies=4,
        progress=lambda done, total, what: said.append((done, total)),
    )
    # In every piece someone can stop it.
    assert said == [(0, 28), (5, 28), (10, 28), (10, 20), (15, 20)]
    each = []
    for sentence in ([3, 4, 5], [7, 8]):
        tokens = torch.tensor([1, 2, *sentence * 4])
        log_p = model(tokens[None])[0].double().log_softmax(-1)
        p = log_p[1:-1].gather(-1, tokens[2:, None])[:, 0].exp().view(4, -1)
        wins = (log_p[1:-1].argmax(-1) == tokens[2:]).view(4, -1)
        each.append((p, wins))
    p, wins = (torch.cat(x, 1).numpy() for x in zip(*each, strict=True))
    np.testing.assert_allclose(result.tp[0], p.mean(1), rtol=1e-4)
    np.testing.assert_allclose(result.ip[0], (p > p[:1]).mean(1))
    np.testing.assert_allclose(result.wr[0], wins.mean(1))
    assert result.tp[0].std() > 1e-3 and (result.n_tokens, result.n_sentences) == (5, 2)
    # Other tokens and another order are other probabilities.
    assert np.abs(result.tp[1:] - result.tp[0]).min(1).max() > 1e-4


def test_a_run_that_is_stopped_has_its_sentences():
    model, kept = small("mamba2"), []
    options = {"prefix": [1, 2], "copies": 4}

    def progress(done, total, what):
        if what.startswith("repeating sentence 3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        self_reinforcement(model, [[3, 4, 5], [7, 8], [6, 9]], **options, progress=progress, partial=kept.append)
    two = self_reinforcement(model, [[3, 4, 5], [7, 8]], **options)
    (so_far,) = kept
    assert so_far.n_sentences == 2 and not two.partial
    np.testing.assert_array_equal(so_far.tp, two.tp)
    np.testing.assert_array_equal(so_far.wr, two.wr)
    assert so_far.partial == "cut short after 2 of 3 sentences" and so_far.partial in so_far.summary()
    assert so_far.partial in so_far.figure().layout.title.subtitle.text


def test_one_sentence_that_is_stopped_has_the_copies_that_were_said(monkeypatch):
    monkeypatch.setattr(module, "_PIECE", 5)
    model, kept = small("mamba2"), []

    def progress(done, total, what):
        if done >= 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        self_reinforcement(model, [[3, 4, 5]], copies=9, progress=progress, partial=kept.append)
    (so_far,) = kept
    # Five tokens were read, which say what comes up to the sixth: two whole copies.
    whole = self_reinforcement(model, [[3, 4, 5]], copies=9)
    assert so_far.tp.shape == (3, 2)
    np.testing.assert_array_equal(so_far.tp, whole.tp[:, :2])
    np.testing.assert_array_equal(so_far.wr, whole.wr[:, :2])
    assert so_far.partial == "cut short after 2 of 9 copies of the first of 1 sentences" and not whole.partial


def test_a_model_without_memory_is_not_reinforced(tmp_path):
    model = small("gru", memoryless=True)
    result = self_reinforcement(model, [[3, 4, 5, 6]], copies=6)
    # Of bigrams alone; without a prefix the first token is left out.
    np.testing.assert_allclose(result.tp[:2], np.repeat(result.tp[:2, :1], 6, 1), rtol=1e-6)
    assert result.ip[0].max() <= 1 and result.n_tokens == 3
    bigram = model(torch.tensor([[3, 4, 5]]))[0].double().softmax(-1)[range(3), [4, 5, 6]].mean()
    assert result.tp[0, 0] == pytest.approx(float(bigram), rel=1e-5)
    assert load_result(result.save(tmp_path / "r.safetensors")) == result


def test_an_ideal_copier_wins_from_the_second_copy_on():
    class Copier(torch.nn.Module):
        """Predicts what followed the last time; nothing else is asked of it."""

        class cfg:
            d_vocab, n_ctx = 23, 0

        model_name, tokenizer, ran = "copier", None, {}

        def __init__(self):
            super().__init__()
            self.zero = torch.nn.Parameter(torch.zeros(1))

        def weights_hash(self):
            return "none"

        def forward(self, tokens, state, return_type):
            past = tokens if state is None else torch.cat([state, tokens], 1)
            first = past.shape[1] - tokens.shape[1]
            logits = torch.zeros(*tokens.shape, 23)
            for b, row in enumerate(past.tolist()):
                for t in range(tokens.shape[1]):
                    earlier = [i for i in range(first + t) if row[i] == row[first + t]]
                    if earlier:
                        logits[b, t, row[earlier[-1] + 1]] = 40.0
            return logits, past

    result = self_reinforcement(Copier(), [[3, 4, 5, 6]], prefix=[9], copies=5)
    # The first token of the second copy follows the last of the first, which it has not done before.
    np.testing.assert_allclose(result.tp[0], [1 / 23, 0.75 + 0.25 / 23, 1, 1, 1], atol=1e-9)
    np.testing.assert_allclose(result.wr[0][1:], [0.75, 1, 1, 1])
    np.testing.assert_allclose(result.ip[0], [0, 0.75, 1, 1, 1])
    assert result.tp[2].max() < 1


def test_a_hugging_face_model_and_the_length_it_was_trained_on(tmp_path):
    torch.manual_seed(1)
    config = tf.GPT2Config(
        n_embd=32, n_head=4, n_layer=2, vocab_size=61, n_positions=24, bos_token_id=1, eos_token_id=2
    )
    tf.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    model = load_huggingface(tmp_path, dtype=torch.float32)
    result = self_reinforcement(model, [[3, 4, 5, 6]], prefix=[9], copies=5)
    assert result.tp.shape == (3, 5) and result.trained_copies == 5
    with pytest.raises(ValueError, match="learned 24 positions"):
        self_reinforcement(model, [[3, 4, 5, 6]], prefix=[9], copies=7)


def test_the_figure_says_where_training_ended():
    result = self_reinforcement(small("attention"), [[3, 4, 5, 6]], copies=10)
    assert result.trained_copies == 8 and "length of 8 copies" in result.summary()
    figure = result.figure()
    assert [s.x0 for s in figure.layout.shapes] == [8.5] * 3
    assert list(figure.data[0].y) == pytest.approx(list(result.tp[0]))
    assert len(result.to_frame()) == 30
    # A prefix takes its share of the 32 tokens.
    assert self_reinforcement(small("attention"), [[3, 4, 5, 6]], prefix=[1] * 5, copies=10).trained_copies == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[3]], [], 5), "none that is predicted"),
        (([[3, 4]], [], 1), "give 2 or more"),
        (([], [], 5), "no sentence"),
        (([[]], [1], 5), "is empty"),
        (("text", [], 5), "without a tokenizer"),
    ],
)
def test_what_cannot_be_repeated_is_refused(arguments, message):
    sentences, prefix, copies = arguments
    with pytest.raises(ValueError, match=message):
        self_reinforcement(small("gru"), sentences, prefix=prefix, copies=copies)
