"""Oracle: the arithmetic of x = decode(f) + error by hand in whole passes, against hooks at work token by token."""

import pytest
import torch

from strobe.probes.sae import Site, ablate_features, feature_hooks
from strobe.probes.steering import Where

NAME = "blocks.1.hook_resid_post"
TOKENS = torch.tensor([[5, 9, 33, 3, 17, 8, 21]])


def test_ablating_everything_leaves_the_error_and_the_bias_and_an_inactive_feature_changes_no_bit(native, make_sae):
    sae = make_sae(native, NAME, 16)
    x = Site(NAME).read(native, TOKENS)
    f = sae.encode(x)
    error = x - sae.decode(f)
    torch.testing.assert_close(ablate_features(sae, x, range(40)), sae.b_dec + error, rtol=1e-5, atol=1e-5)
    silent = [i for i in range(40) if not f[..., i].any()]
    assert silent and torch.equal(ablate_features(sae, x, silent), x)
    one = int(f.flatten(0, 1).sum(0).argmax())
    torch.testing.assert_close(ablate_features(sae, x, [one]), x - f[..., one, None] * sae.W_dec[one])


@pytest.mark.parametrize("normalize", ["none", "layer_norm", "constant_norm_rescale"])
def test_a_set_feature_moves_the_activation_as_its_reconstruction_moves(native, make_sae, normalize):
    sae = make_sae(native, NAME, 16, normalize=normalize, W_dec=torch.randn(40, 16), scale_by_decoder_norm=True)
    x = Site(NAME).read(native, TOKENS)
    f = sae.encode(x)
    wanted = f.clone()
    wanted[..., [3, 8]] = torch.tensor([2.0, 0.5])
    expected = x + sae.decode(wanted, x) - sae.decode(f, x)
    seen = []
    watch = (NAME, lambda t, hook: seen.append(t))
    native.run_with_hooks(TOKENS, fwd_hooks=[*feature_hooks(sae, {3: 2.0, 8: 0.5}), watch])
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-5)
    seen.clear()
    native.run_with_hooks(TOKENS, fwd_hooks=[*feature_hooks(sae, {3: 2}, "add"), watch])
    raised = f.clone()
    raised[..., 3] += 2
    torch.testing.assert_close(seen[0], x + sae.decode(raised, x) - sae.decode(f, x), rtol=1e-4, atol=1e-5)


def _decoded(model, hooks, **options):
    """(text with 5 drawn tokens, what block 1 left at each of its tokens but the last)."""
    seen = []
    watch = [(NAME if len(model.blocks) > 2 else LAST, lambda x, hook: seen.append(x[0].clone()))]
    text = model.generate(TOKENS, 5, temperature=0.0, fwd_hooks=[*hooks, *watch], stop_at_eos=False, **options)
    return text, torch.cat(seen)


LAST = "blocks.1.hook_resid_post"


@pytest.mark.parametrize(
    ("where", "first"), [("all", 0), ("generated", 7), (Where("from", start=-2), 5), (Where("from", start=3), 3)]
)
def test_while_decoding_the_same_positions_are_stimulated_as_in_one_pass(huggingface, make_sae, where, first):
    model = huggingface
    sae = make_sae(model, "blocks.0.hook_resid_post", 32)
    hooks = feature_hooks(sae, {2: 6.0, 11: 3.0}, where=where, model=model, prompt_end=7)
    text, stepwise = _decoded(model, hooks)
    by_hand = []

    def stimulate(x, hook):
        f = sae.encode(x)
        wanted = f.clone()
        wanted[..., 2], wanted[..., 11] = 6.0, 3.0
        return torch.cat([x[:, :first], (x + (wanted - f) @ sae.W_dec)[:, first:]], 1)

    watch = (LAST, lambda x, hook: by_hand.append(x[0].clone()))
    with torch.no_grad():
        model.run_with_hooks(text[:, :-1], fwd_hooks=[("blocks.0.hook_resid_post", stimulate), watch])
        plain = model.run_with_cache(text[:, :-1], names_filter=LAST)[1][LAST][0]
    torch.testing.assert_close(stepwise, by_hand[0], atol=3e-4, rtol=3e-4)
    assert (by_hand[0][first:] - plain[first:]).abs().max() > 0.05


def test_a_feature_of_one_head_of_a_carry_is_set_while_decoding_and_propagates(native, make_sae):
    name = "blocks.0.mixer.hook_state_S"
    sae = make_sae(native, name, 20, head=1, state_shape=(5, 4))
    hooks = feature_hooks(sae, {4: 3.0})
    text, stepwise = _decoded(native, hooks, states=list(range(7)))
    by_hand = []

    def write(carry, hook):
        S = carry.S[:, 1].flatten(1)
        f = sae.encode(S)
        new = carry.S.clone()
        new[:, 1] = (S + (3.0 - f[:, 4:5]) * sae.W_dec[4]).unflatten(1, (5, 4))
        return carry._replace(S=new)

    watch = (NAME, lambda x, hook: by_hand.append(x[0].clone()))
    with torch.no_grad():
        native.run_with_hooks(
            text[:, :-1], fwd_hooks=[("blocks.0.mixer.hook_carry", write), watch], states=list(range(11))
        )
        plain = native.run_with_cache(text[:, :-1], names_filter=NAME)[1][NAME][0]
    torch.testing.assert_close(stepwise, by_hand[0], atol=1e-4, rtol=1e-4)
    # The first token reads before the edit; later ones read what was written.
    torch.testing.assert_close(by_hand[0][0], plain[0])
    assert (by_hand[0][1:] - plain[1:]).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("features", "mode", "options", "said"),
    [
        ({40: 1.0}, "set", {}, "feature 40 was asked for"),
        ({3: 1.0}, "ablate", {}, "ablating makes them 0"),
        ([3], "set", {}, "needs a value"),
        ({3: float("nan")}, "add", {}, "not all finite"),
        ({}, "ablate", {}, "no feature was given"),
        ({3: 1.0}, "set", {"where": "generated"}, "give model="),
        ({3: 1.0}, "set", {"where": "generated", "model": 1}, "give prompt_end"),
    ],
)
def test_what_cannot_be_done_is_refused_before_the_run(native, make_sae, features, mode, options, said):
    sae = make_sae(native, NAME, 16)
    with pytest.raises((ValueError, IndexError), match=said):
        feature_hooks(sae, features, mode, **options)
