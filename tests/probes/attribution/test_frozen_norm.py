"""Oracle: torch's own norms, whose weight, bias and centring are known, at an odd width."""

import pytest
import torch

from strobe.probes.attribution.frozen_norm import freeze_norm


class Holder:
    model_name = "holder"

    def __init__(self, norm):
        self.ln_final = norm


def randomised(norm):
    torch.manual_seed(0)
    for parameter in norm.parameters():
        parameter.data.copy_(1 + torch.randn_like(parameter))
    return norm


@pytest.mark.parametrize("kind", [torch.nn.LayerNorm, torch.nn.RMSNorm])
def test_a_norm_is_taken_apart_as_it_was_made(kind):
    norm, h = randomised(kind(7, eps=1e-2)), torch.randn(4, 7)
    frozen = freeze_norm(Holder(norm), h)
    assert frozen.centered == (kind is torch.nn.LayerNorm)
    torch.testing.assert_close(frozen.weight, norm.weight.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(frozen.bias, getattr(norm, "bias", torch.zeros(7)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(frozen(h) + frozen.bias, norm(h).detach(), rtol=1e-4, atol=1e-5)
    parts = torch.randn(3, 4, 7)
    parts[2] = h - parts[:2].sum(0)
    torch.testing.assert_close(frozen(parts).sum(0), frozen(h), rtol=1e-4, atol=1e-4)


def test_no_norm_has_no_scale():
    h = torch.randn(4, 7)
    frozen = freeze_norm(Holder(torch.nn.Identity()), h)
    torch.testing.assert_close(frozen(h), h, rtol=1e-4, atol=1e-5)


def test_what_is_neither_is_refused():
    with pytest.raises(ValueError, match="neither an RMS norm"):
        freeze_norm(Holder(torch.nn.Tanh()), torch.randn(4, 7))
    with pytest.raises(ValueError, match="has no 'ln_final'"):
        freeze_norm(Holder(None), torch.randn(4, 7))
