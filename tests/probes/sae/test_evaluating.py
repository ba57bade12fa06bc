"""Oracle: replacements of known effect (the identity, nothing, the mean), PCA in closed form, hand-counted tokens."""

from functools import partial

import numpy as np
import pytest
import torch
from cutting import stopped
from torch.nn import functional as F

from strobe.models import StateEdit
from strobe.probes.sae import evaluate_sae, feature_atlas, feature_play, feature_text
from strobe.probes.sae.evaluation import SaeEvaluation

NAME = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def tokens(native):
    """What the model itself writes, 100 rows of 20: an ablation then does harm, as it does in a trained model."""
    start = torch.arange(100)[:, None] % 40
    return native.generate(start, 19, seed=0, temperature=0.5, stop_at_eos=False)


def _identity(make_sae, model, name, width, **fields):
    """Two ReLU features a coordinate, one for each sign: it reconstructs everything exactly."""
    both = torch.cat([torch.eye(width), -torch.eye(width)])
    none = torch.zeros(width)
    return make_sae(
        model, name, width, 2 * width, W_enc=both.T.contiguous(), W_dec=both, b_dec=none, b_enc=torch.zeros(2 * width),
        kind="relu", k=None, **fields,
    )  # fmt: skip


def test_a_perfect_autoencoder_recovers_everything_and_the_ablations_nothing(native, make_sae, tokens):
    found = evaluate_sae(native, _identity(make_sae, native, NAME, 16), tokens, held_out=tokens, n_tokens=2000)
    assert found.explained_variance[0] == pytest.approx(1, abs=1e-6)
    zero, mean = found.recovered("zero ablation"), found.recovered("mean ablation")
    assert zero[0] == pytest.approx(1, abs=1e-4) and mean[0] == pytest.approx(1, abs=1e-4)
    assert zero[4] == 0 and mean[3] == 0
    assert found.explained_variance[3] == pytest.approx(0, abs=1e-5)
    # Of 16 coordinates 16 are active, so as many components reconstruct exactly as well.
    assert found.l0[0] == 16 and found.explained_variance[1] == pytest.approx(1, abs=1e-6)
    rows = tokens
    assert found.clean == pytest.approx(float(native(rows, return_type="loss").detach()), abs=1e-5)

    def erase(x, hook):
        return torch.cat([x[:, :1], torch.zeros_like(x[:, 1:])], 1)

    erased = native.run_with_hooks(rows, fwd_hooks=[(NAME, erase)], return_type="loss")
    assert found.cross_entropy[4] == pytest.approx(float(erased.detach()), abs=1e-5)
    assert found.density[:16] + found.density[16:] == pytest.approx(np.ones(16))


def test_pca_explains_what_its_eigenvalues_say_and_the_result_comes_back(native, make_sae, tokens, tmp_path):
    sae = make_sae(native, NAME, 16, k=3)
    found = evaluate_sae(native, sae, tokens, held_out=tokens, n_tokens=2000, context=20)
    x = sae.site.read(native, tokens)[:, 1:].flatten(0, 1).double()
    values = torch.linalg.eigvalsh(torch.cov(x.T)).flip(0)
    assert found.l0[0] <= 3
    share = float(values[: int(found.l0[1])].sum() / values.sum())
    assert found.explained_variance[1] == pytest.approx(share, abs=5e-3)
    left = (x.float() - sae.reconstruct(x.float())).double().square().sum() / (x - x.mean(0)).square().sum()
    assert found.explained_variance[0] == pytest.approx(1 - float(left), abs=1e-6)
    again = SaeEvaluation.load(found.save(tmp_path / "e.safetensors"))
    assert again == found and len(again.to_frame()) == 5 and "PCA" in again.summary()
    names = [trace.name for trace in again.figure().data]
    assert names == ["autoencoder", "PCA (control)", "random dictionary (control)"]


def test_a_carry_is_replaced_and_what_follows_reads_the_replacement(native, make_sae, tokens):
    name = "blocks.0.mixer.hook_state_S"
    sae = _identity(make_sae, native, name, 20, head=1, state_shape=(5, 4))
    found = evaluate_sae(native, sae, tokens, n_tokens=200, state_every=4)
    rows = tokens[-10:]
    edits = [StateEdit(layer=0, position=p, kind="scale", value=0.0, heads=(1,)) for p in range(1, 20, 4)]
    with torch.no_grad():
        zeroed = float(native.run_with_edits(rows, edits, return_type="loss"))
        plain = float(native(rows, return_type="loss"))
    assert found.cross_entropy[0] == pytest.approx(plain, abs=1e-5) == found.clean
    assert found.cross_entropy[4] == pytest.approx(zeroed, abs=1e-5) and abs(zeroed - plain) > 1e-4


def test_the_atlas_counts_what_fires_where(native, make_sae, tokens, tmp_path):
    """Features that are the embedding's own directions fire where their token is, which can be counted."""
    name = "blocks.0.hook_resid_pre"
    units = F.normalize(native.embed.weight.detach(), dim=1)
    sae = make_sae(
        native, name, 16, 40, W_enc=units.T.contiguous(), W_dec=units, b_enc=torch.zeros(40), b_dec=torch.zeros(16), k=1
    )
    atlas = feature_atlas(native, sae, tokens, n_tokens=1000, context=20)
    rows = tokens[:50].numpy()
    x = native.embed.weight.detach()
    fires = (x @ units.T).argmax(1).numpy()
    strength = (x @ units.T).max(1).values.numpy()
    seen = rows[:, 1:]
    assert atlas.density == pytest.approx(np.array([(fires[seen] == f).mean() for f in range(40)]))
    assert atlas.histogram.sum() == seen.size == atlas.n_tokens
    token = int(np.bincount(seen.ravel()).argmax())
    feature = int(fires[token])
    assert (feature, f"[{token}]", pytest.approx(strength[token], abs=1e-4)) in atlas.search(f"[{token}]")
    passages = atlas.passages(feature)
    assert passages and passages[0].values[passages[0].at] == pytest.approx(atlas.maximum[feature], abs=1e-4)
    for passage in passages:
        assert passage.tokens[passage.at] == f"[{rows[passage.row, passage.position]}]"
        here = [int(t[1:-1]) for t in passage.tokens]
        first = passage.position - passage.at
        assert here == list(rows[passage.row, first : first + len(here)])
        ours = np.where(fires[here] == feature, strength[here], 0.0)
        ours[: max(0, 1 - first)] = 0.0
        assert passage.values == pytest.approx(ours, abs=1e-4)
    assert atlas.twin(feature) != feature
    assert type(atlas).load(atlas.save(tmp_path / "a.safetensors")) == atlas
    assert len(atlas.figure(feature).data) == 1 and len(atlas.figure().data) == 2 and len(atlas.to_frame()) == 40
    with pytest.raises(IndexError, match="feature 40"):
        atlas.passages(40)


def test_the_logits_of_a_feature_are_what_adding_it_does(native, make_sae, tokens):
    """A small step along the feature at the mean last residual moves the readout by the effects that are listed."""
    sae = make_sae(native, "blocks.2.hook_resid_post", 16)
    atlas = feature_atlas(native, sae, tokens, n_tokens=200, context=20)
    last = native.run_with_cache(tokens[:4], names_filter=sae.hook_name)[1][sae.hook_name].flatten(0, 1)
    mean = last.mean(0)
    at = mean * last.norm(dim=-1).mean() / mean.norm()

    def read(h):
        return native.unembed(native.ln_final(h)).double()

    with torch.no_grad():
        moved = (read(at + 1e-2 * sae.decoder[3]) - read(at - 1e-2 * sae.decoder[3])) / 2e-2
    moved = (moved - moved.mean()).numpy()
    raised, lowered = atlas.logits(3)
    assert [word for word, _ in raised[:3]] == [f"[{i}]" for i in np.argsort(-moved)[:3]]
    assert [word for word, _ in lowered[:3]] == [f"[{i}]" for i in np.argsort(moved)[:3]]
    assert raised[0][1] == pytest.approx(moved.max(), rel=1e-2)


def test_play_and_text_say_what_was_done(native, make_sae, tokens):
    sae = make_sae(native, NAME, 16)
    play = feature_play(native, sae, [3, 5, 8], 4, 25.0, (9, 25.0), max_new_tokens=6)
    assert play.continuations[0] != play.continuations[1] != play.continuations[3]
    assert play.surprise.shape == (4, 6) and "control 9" in play.summary() and len(play.figure().data) == 4
    text = feature_text(native, sae, [3, 5, 8, 13], [7], most=4)
    expected = sae.encode(sae.site.read(native, torch.tensor([[3, 5, 8, 13]])))[0].T
    assert text.features[0] == 7 and len(text.features) == 5
    assert text.activations == pytest.approx(expected[list(text.features)].numpy(), abs=1e-6)
    assert len(text.to_frame()) == 20 and text.figure().data
    silent = make_sae(native, NAME, 16, kind="jumprelu", k=None, threshold=torch.full((40,), 1e9))
    with pytest.raises(ValueError, match=r"no feature of the autoencoder .* fires"):
        feature_atlas(native, silent, tokens, n_tokens=100, context=20)


def test_an_atlas_that_is_stopped_is_that_of_the_rows_that_were_read(native, make_sae, tokens):
    sae = make_sae(native, NAME, 16)
    rows = tokens.flatten()[: 48 * 20].reshape(48, 20)
    ask = partial(feature_atlas, native, sae, rows, n_tokens=48 * 20, context=20)
    assert stopped(ask, lambda done, _: done == 0, watched="on_progress") is None
    so_far = stopped(ask, lambda done, _: done == 32, watched="on_progress")
    whole, fresh = ask(), feature_atlas(native, sae, rows[:32], n_tokens=32 * 20, context=20)
    for name in ("density", "maximum", "mean_active", "histogram", "passage_at", "token_ids", "token_means"):
        np.testing.assert_array_equal(getattr(so_far, name), getattr(fresh, name))
    np.testing.assert_array_equal(so_far.logit_effects, whole.logit_effects)
    # Of the shuffled text, half as long, the first 16 rows had been read.
    order = np.random.default_rng(0).permutation(rows.numel())
    shuffled = rows.flatten()[torch.from_numpy(order)].reshape(rows.shape)[:16]
    active = sae.encode(sae.site.read(native, shuffled))[:, 1:] > 0
    np.testing.assert_allclose(so_far.control_density, active.flatten(0, 1).double().mean(0).numpy())
    assert so_far.partial == "cut short after 608 of 912 tokens" and not whole.partial and not fresh.partial
    assert so_far.partial in so_far.summary()
    assert all(so_far.partial in f.layout.title.subtitle.text for f in (so_far.figure(), so_far.figure(3)))


def test_play_that_is_stopped_has_the_beginnings_of_all_four_texts(native, make_sae):
    sae = make_sae(native, NAME, 16)
    ask = partial(feature_play, native, sae, [3, 5, 8], 4, 25.0, (9, 25.0), max_new_tokens=6)
    assert stopped(ask, lambda done, _: done == 0) is None
    whole, so_far = ask(), stopped(ask, lambda done, _: done == 2)
    assert so_far.continuations == [words[:2] for words in whole.continuations]
    np.testing.assert_allclose(so_far.surprise, whole.surprise[:, :2], atol=1e-4)
    assert so_far.partial == "cut short after 2 of 6 new tokens" and not whole.partial
    assert so_far.partial in so_far.summary() and so_far.partial in so_far.figure().layout.title.subtitle.text
