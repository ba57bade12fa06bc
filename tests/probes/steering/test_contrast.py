"""Oracle: planted directions (h = x + b y gives 2 b; LDA gives the inverse covariance times it), and reading by hand.

Further: each selector against activations and captured carries of one text at a time, without padding.
"""

import numpy as np
import pytest
import torch

from strobe.models import HookedLM, ModelConfig
from strobe.probes.steering.contrast import Selector, activations, contrast_vector
from strobe.probes.steering.vector import site_names

PLACE = "blocks.0.hook_resid_pre"
SIGMA = 0.5


def build(d_vocab: int = 31) -> HookedLM:
    options = {"mamba2": {"heads": 2, "head_dim": 4, "state": 5}, "attention": {"n_heads": 2}}
    config = ModelConfig(
        d_model=8, d_vocab=d_vocab, layers=("mamba2", "attention"), mixer_options=options, mlp="plain", d_mlp=12
    )
    return HookedLM(config, name="small").eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model() -> HookedLM:
    return build()


@pytest.fixture(scope="module")
def planted() -> tuple[HookedLM, list, torch.Tensor]:
    """A model whose embedding of token 2 i is x + b and of token 2 i + 1 is x' - b, with unequal variances."""
    n, generator = 400, torch.Generator().manual_seed(3)
    model, b = build(2 * n + 1), torch.linspace(-1, 1, 8)
    scale = SIGMA * torch.tensor([1.0, 1, 1, 1, 1, 1, 1, 3])
    x = torch.randn(2 * n, 8, generator=generator) * scale
    sign = torch.tensor([1.0, -1.0]).repeat(n)
    model.embed.weight[: 2 * n] = x + sign[:, None] * b
    return model, [((2 * n, 2 * i), (2 * n, 2 * i + 1)) for i in range(n)], b


def test_the_difference_of_means_is_twice_the_planted_direction(planted):
    model, pairs, b = planted
    u = contrast_vector(model, pairs, point="resid_pre", layers=[0]).directions[PLACE]
    # The standard error of each coordinate is sqrt(2 / n) sigma.
    error = (u - 2 * b).abs() / (SIGMA * torch.tensor([1.0, 1, 1, 1, 1, 1, 1, 3]) * (2 / 400) ** 0.5)
    assert error.max() < 4
    few = contrast_vector(model, pairs[:25], point="resid_pre", layers=[0]).directions[PLACE]
    assert (few - 2 * b).norm() > (u - 2 * b).norm()


def test_pca_finds_the_planted_axis_with_its_sign_and_unit_norm(planted):
    model, pairs, b = planted
    u = contrast_vector(model, pairs, point="resid_pre", layers=[0], method="pca").directions[PLACE]
    assert u.norm() == pytest.approx(1, abs=1e-6)
    assert float(u @ b / b.norm()) > 0.95
    other = [(negative, positive) for positive, negative in pairs]
    flipped = contrast_vector(model, other, point="resid_pre", layers=[0], method="pca").directions[PLACE]
    torch.testing.assert_close(flipped, -u, atol=1e-5, rtol=0)


def test_lda_divides_by_the_variance_within_the_classes(planted):
    model, pairs, b = planted
    u = contrast_vector(model, pairs, point="resid_pre", layers=[0], method="lda").directions[PLACE]
    expected = 2 * b / (SIGMA * torch.tensor([1.0, 1, 1, 1, 1, 1, 1, 3])) ** 2
    assert float(u @ expected / u.norm() / expected.norm()) > 0.98
    assert float(u.norm()) == pytest.approx(float(expected.norm()), rel=0.15)
    mean = contrast_vector(model, pairs, point="resid_pre", layers=[0]).directions[PLACE]
    assert float(mean @ expected / mean.norm() / expected.norm()) < 0.92


@pytest.mark.parametrize("method", ["mean", "pca", "lda"])
def test_norms_are_what_they_say(planted, method):
    model, pairs, _ = planted
    made = {
        norm: contrast_vector(model, pairs[:50], point="resid_pre", layers=[0], method=method, norm=norm)
        for norm in ("raw", "equal", "unit")
    }
    mean = contrast_vector(model, pairs[:50], point="resid_pre", layers=[0]).norms[PLACE]
    assert made["unit"].norms[PLACE] == pytest.approx(1, abs=1e-6)
    assert made["equal"].norms[PLACE] == pytest.approx(mean, rel=1e-5)
    raw, unit = made["raw"].directions[PLACE], made["unit"].directions[PLACE]
    torch.testing.assert_close(raw / raw.norm(), unit, atol=1e-5, rtol=0)


ROWS = [[3, 17, 5, 29, 11, 2], [8, 1, 4], [9, 9, 2, 7]]


SELECTORS = {
    "last": (Selector("last"), ([5], [2], [3])),
    "mean": (Selector("mean"), ([1, 2, 3, 4, 5], [1, 2], [1, 2, 3])),
    "span": (Selector("span", -3, -1), ([3, 4], [0, 1], [1, 2])),
    "mask": (Selector("mask", mask=lambda ids: ids < 9), ([0, 2, 5], [0, 1, 2], [2, 3])),
}


@pytest.mark.parametrize("name", SELECTORS)
@pytest.mark.parametrize("point", ["resid_post", "mixer_out", "carry"])
def test_a_selector_reads_what_each_text_alone_has_there(model, name, point):
    selector, expected = SELECTORS[name]
    names = site_names(model, point, [0])
    read = activations(model, [torch.tensor(r) for r in ROWS], names, selector)
    for row, positions, i in zip(ROWS, expected, range(3), strict=True):
        _, cache = model.run_with_cache(torch.tensor([row]), names_filter=names, states="all")
        for place in names:
            alone = cache[place][0, positions].mean(0)
            torch.testing.assert_close(read[place][i], alone, atol=1e-5, rtol=1e-4)


def test_a_carry_has_a_direction_for_each_field_of_each_recurrent_layer(model):
    pairs = [((3, 5, 7), (3, 5, 8)), ((2, 5, 7), (2, 6, 8))]
    vector = contrast_vector(model, pairs, point="carry")
    shapes = {n: tuple(d.shape) for n, d in vector.directions.items()}
    assert shapes == {"blocks.0.mixer.hook_state_S": (2, 5, 4), "blocks.0.mixer.hook_state_conv": (3, 18)}
    states = [[model.state_after(torch.tensor([list(t)])).layers[0].carry for t in pair] for pair in pairs]
    for field in ("S", "conv"):
        by_hand = np.mean([(getattr(p, field) - getattr(n, field)).numpy()[0] for p, n in states], 0)
        np.testing.assert_allclose(vector.directions[f"blocks.0.mixer.hook_state_{field}"], by_hand, atol=1e-6)


def test_bad_input_is_refused_with_the_reason(model):
    pair = ((3, 5), (3, 6))
    with pytest.raises(ValueError, match="no contrast pairs"):
        contrast_vector(model, [])
    with pytest.raises(ValueError, match="pair 1 has an empty side"):
        contrast_vector(model, [pair, ((3, 5), ())])
    with pytest.raises(ValueError, match="nothing to steer by"):
        contrast_vector(model, [((3, 5), (3, 5))], point="carry")
    with pytest.raises(ValueError, match="at layer 1, where small has none"):
        contrast_vector(model, [pair], point="carry", layers=[1])
    with pytest.raises(ValueError, match="chose no token"):
        contrast_vector(model, [pair], selector=Selector("span", 4, 6))
    with pytest.raises(ValueError, match="needs a function"):
        Selector("mask")
