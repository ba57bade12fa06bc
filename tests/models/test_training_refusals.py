"""Oracle: the fault itself, put in by the test: where it is, and that nothing was changed after it."""

from dataclasses import replace

import pytest
import torch
from tiny_training import CONFIG, TOKENS, TinyModel

from strobe.models.training import Batch, NonFiniteError, random_windows, train


class Poisoned(TinyModel):
    """Not finite from a given call on: in the output of a layer, or only in the gradient of one."""

    def __init__(self, how: str, calls: int):
        super().__init__()
        self.how, self.calls = how, calls

    def forward(self, tokens):
        self.calls -= 1
        x = self.embed(tokens)
        h = self.mlp(x / 0 if self.calls < 0 and self.how == "loss" else x)
        if self.calls < 0 and self.how == "gradient":
            # The square root's slope at zero is infinite, its value is not.
            h = h + (self.norm.bias - self.norm.bias.detach()).abs().sqrt()
        return self.unembed(self.norm(h))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("loss", r"at step 3, before its update: the loss is nan; every weight is finite; .* whose output .* 'mlp\.0'"),
        (
            "gradient",
            r"at step 3, .*: the loss is finite .*first gradient that is not finite is that of 'norm\.bias'; every",
        ),
    ],
)
def test_what_is_not_finite_is_named(tmp_path, how, message):
    # The first batch is asked for once more than the model is called.
    model, weights = Poisoned(how, calls=3), []

    def remember(done, *_):
        weights.append({n: p.detach().clone() for n, p in model.named_parameters()})

    with pytest.raises(NonFiniteError, match=message):
        train(model, random_windows(TOKENS, CONFIG), CONFIG, out_dir=tmp_path, on_progress=remember)
    assert len(weights) == 3
    assert all(torch.equal(p, weights[-1][n]) for n, p in model.named_parameters()), "the bad step was applied"


def test_a_batch_without_a_target_is_named(tmp_path):
    batches = random_windows(TOKENS, CONFIG)
    with pytest.raises(NonFiniteError, match="are all targets of the batch ignored"):
        train(
            TinyModel(),
            lambda step: Batch(batches(step).inputs, torch.full((4, 10), -100)),
            CONFIG,
            out_dir=tmp_path,
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps=0 was asked for; it must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 was asked for; it must be above 0"),
        ({"clip": -1.0}, "clip=-1.0"),
        ({"warmup": 12}, "warm-up of 12 updates was asked for in a run of 12"),
        ({"betas": (0.9, 1.0)}, r"each must be in \[0, 1\)"),
        ({"eval_every": 0}, "eval_every=0"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **settings)


def test_batches_must_have_the_shape_in_the_settings(tmp_path):
    with pytest.raises(ValueError, match=r"batches of \(4, 9\) .* step 0 have shape \(4, 10\); make the two agree"):
        train(TinyModel(), random_windows(TOKENS, CONFIG), replace(CONFIG, context=9), out_dir=tmp_path)
