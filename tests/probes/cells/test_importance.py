"""Oracle: the recurrence run by hand in float64 without the write in question; a shut gate, which writes nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from cutting import stopped_after

from strobe.models import HookedLM, ModelConfig
from strobe.probes.cells.importance import TokenImportance, token_importance

TOKENS = np.random.default_rng(0).integers(0, 31, 9).tolist()


def model_of(mixer, **options):
    config = ModelConfig(d_model=16, d_vocab=31, layers=[mixer], mixer_options={mixer: options}, mlp="none")
    return HookedLM(config).double()


@pytest.fixture(scope="module")
def mamba():
    return model_of("mamba2", heads=3, head_dim=4, state=5)


def test_a_write_taken_out_is_the_recurrence_without_it(mamba):
    found = token_importance(mamba, TOKENS, 0)
    assert found.what == "write taken out" and len(found.kl) == 8
    ids, mixer = torch.tensor([TOKENS]), mamba.blocks[0].mixer
    with torch.no_grad():
        kept = []
        handle = mixer.register_forward_pre_hook(lambda _m, args: kept.append(args[0]))
        logits = mamba(ids)[0, -1]
        handle.remove()
        signals = mixer.project(kept[0], mixer.init_carry(1, torch.float64, kept[0].device), None)[0]
        t = mixer.transition(signals)
        without = 3
        memory = gone = torch.zeros_like(t.write()[:, 0])
        for s in range(9):
            memory = t.decay[:, s] * memory + t.write()[:, s]
            gone = t.decay[:, s] * gone + (0 if s == without else t.write()[:, s])
        carry = mamba.state_after(ids).layers[0].carry
        torch.testing.assert_close(getattr(carry, mixer.memory), memory)
        edit = mamba.state_after(ids[:, :-1]).clone()
        # The carry before the last token, from the one after it without the write.
        before = (gone - t.write()[:, 8]) / t.decay[:, 8]
        edit.layers[0].carry = edit.layers[0].carry._replace(**{mixer.memory: before})
        other = mamba(ids[:, -1:], state=edit)[0, -1]
        p, q = logits.log_softmax(-1), other.log_softmax(-1)
    assert found.kl[without] == pytest.approx(float((p.exp() * (p - q)).sum()), rel=1e-6)
    assert found.norm[without] == pytest.approx(float(t.write()[0, without].norm()))
    assert found.kl[without] > 0 and found.control.min() > 0


def test_a_shut_update_gate_writes_nothing():
    model = model_of("gru", hidden=6)
    assert token_importance(model, TOKENS, 0).kl.min() > 1e-9
    with torch.no_grad():
        mixer = model.blocks[0].mixer
        # Every unit is kept as it is: z is 1 whatever the text.
        mixer.W[6:12], mixer.R[6:12] = 0, 0
        for bias in (p for name, p in mixer.named_parameters() if name.startswith("b")):
            bias[6:12] = 60
    found = token_importance(model, TOKENS, 0)
    assert found.what == "memory put back"
    np.testing.assert_allclose(found.kl, 0, atol=1e-12)


def test_intervals_are_distances_between_the_most_important(mamba, tmp_path):
    found = token_importance(mamba, TOKENS, 0)
    made = TokenImportance(
        found.tokens, 0, found.what, np.array([0, 9, 1, 0, 8, 0, 0, 7.0]), found.control, found.norm,
        provenance=found.provenance,
    )  # fmt: skip
    first, second = made.intervals(3 / 8)
    assert first.tolist() == [3, 3] and len(second) == 2 and second.sum() <= 7
    with pytest.raises(ValueError, match="larger share"):
        made.intervals(0.1)
    assert TokenImportance.load(found.save(tmp_path / "importance.safetensors")) == found
    assert len(found.figure().data) == 2 and "random change" in found.summary() and len(found.to_frame()) == 8


def with_importances(found, values):
    return replace(found, kl=np.array(values, dtype=float), control=np.ones(len(values)), norm=np.ones(len(values)))


def test_where_a_token_stands_decides_nothing_among_equals(mamba):
    found = token_importance(mamba, TOKENS, 0)
    # The second most important is one of three that are equal: all three are taken in.
    values = [0, 1, 0, 1, 9, 1, 0, 0]
    first, second = with_importances(found, values).intervals(2 / 8)
    assert first.tolist() == [2, 1, 1] and len(second) == 3
    assert with_importances(found, values[::-1]).intervals(2 / 8)[0].tolist() == [1, 1, 2]
    for even in ([2.0] * 8, [5, *[0] * 7]):
        with pytest.raises(ValueError, match="every token; give a smaller share"):
            with_importances(found, even).intervals(2 / 8)


def test_what_is_found_before_the_end_says_so(mamba, tmp_path):
    def ask(**how):
        return token_importance(mamba, TOKENS, 0, **how)

    # Told before each token: the sixth time, five were taken out.
    whole, last = token_importance(mamba, TOKENS, 0), stopped_after(ask, 6)
    assert stopped_after(ask, 1) is None
    assert not whole.partial and last.partial == "cut short after 5 of 8 tokens"
    for name in ("kl", "control", "norm"):
        found = getattr(last, name)
        np.testing.assert_array_equal(found[:5], getattr(whole, name)[:5])
        assert np.isnan(found[5:]).all()
    assert last.partial in last.summary() and last.figure().layout.title.subtitle.text == last.partial
    assert TokenImportance.load(last.save(tmp_path / "i.safetensors")) == last
    with pytest.raises(ValueError, match="may be among the rest; run it again"):
        last.intervals(0.5)


def test_what_has_no_carry_is_refused(mamba):
    with pytest.raises(ValueError, match="no recurrent carry"):
        token_importance(model_of("attention", n_heads=2), TOKENS, 0)
    with pytest.raises(ValueError, match="give two"):
        token_importance(mamba, [3], 0)
