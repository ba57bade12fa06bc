"""Oracle: each mixer stepped by itself in float64: its Jacobian, its carries, and its memory with one write undone.

Every recurrent mixer of the registry is here, so that a new one is seen by the cells probes when it is registered.
"""

import numpy as np
import pytest
import torch
from mixer_cases import NAMES, OPTIONS

from strobe.models import HookedLM, ModelConfig, mixers
from strobe.models.mixer import Mixer
from strobe.probes.cells import cell_text, gate_saturation, token_importance, transition_view
from strobe.probes.cells.units import sites_of

TOKENS = np.random.default_rng(0).integers(0, 31, 5).tolist()
# A channel mix carries, but is no token mixer of a block.
RECURRENT = [n for n in NAMES if issubclass(mixers.get(n), Mixer) and n != "rwkv4_channel_mix"]
LINEAR = [n for n in RECURRENT if mixers.get(n).family.transition is not None]


def model_of(name):
    options = {name: dict(OPTIONS[name][0])}
    model = HookedLM(ModelConfig(d_model=6, d_vocab=31, layers=[name], mixer_options=options, mlp="none")).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model.eval()


def carries(model):
    """The carry after each token, by running each prefix."""
    with torch.no_grad():
        return [model.state_after(torch.tensor([TOKENS[: t + 1]])).layers[0].carry for t in range(5)]


@pytest.mark.parametrize("name", RECURRENT)
def test_every_field_of_the_carry_is_a_unit_along_the_text(name):
    model = model_of(name)
    after = carries(model)
    assert [site.field for site in sites_of(model)] == list(type(after[0])._fields)
    for site in sites_of(model):
        number = site.size - 1
        expected = [float(getattr(carry, site.field).flatten()[number]) for carry in after]
        np.testing.assert_allclose(cell_text(model, TOKENS, 0, site.field, number).values, expected, atol=1e-6)


def stepped(model):
    """(signals of each token, the mixer, the memory's field, the carry before the first)."""
    mixer, kept = model.blocks[0].mixer, []
    handle = mixer.register_forward_pre_hook(lambda _m, args: kept.append(args[0]))
    with torch.no_grad():
        model(torch.tensor([TOKENS]))
        handle.remove()
        carry = mixer.init_carry(1, torch.float64, kept[0].device)
        signals = mixer.project(kept[0], carry, None)[0]
    at = lambda t: type(signals)(*(x[:, t] if torch.is_tensor(x) and x.ndim > 1 else x for x in signals))
    return [at(t) for t in range(5)], mixer, mixer.memory, carry


@pytest.mark.parametrize("name", LINEAR)
def test_moduli_and_writes_are_those_of_the_step(name):
    model = model_of(name)
    found = transition_view([(model, 0)], TOKENS)
    signals, mixer, field, carry = stepped(model)
    shape = getattr(carry, field).shape
    for t in range(5):

        def step(flat, here=signals[t]):
            after, _ = mixer.step(here, carry._replace(**{field: flat.view(shape)}))
            return getattr(after, field).flatten()

        zero = torch.zeros(shape.numel(), dtype=torch.float64)
        moduli = torch.linalg.eigvals(torch.func.jacrev(step)(zero).detach()).abs().numpy()
        assert found.moduli[0, t, [0, 2, 4]] == pytest.approx([moduli.min(), np.median(moduli), moduli.max()], abs=1e-7)
        assert found.write[0, t] == pytest.approx(float(step(zero).detach().norm()), abs=1e-9)


@pytest.mark.parametrize("name", RECURRENT)
def test_a_token_taken_out_is_the_memory_without_what_it_wrote(name):
    model = model_of(name)
    found = token_importance(model, TOKENS, 0)
    signals, mixer, field, start = stepped(model)
    before, after = [start, *carries(model)][3], carries(model)[3]
    # Linear: what an empty memory holds after the token; otherwise all that the token changed.
    if name in LINEAR:
        assert found.what == "write taken out"
        empty = start._replace(**{field: torch.zeros_like(getattr(start, field))})
        change = {field: -getattr(mixer.step(signals[3], empty)[0], field)}
    else:
        assert found.what == "memory put back"
        change = {f: getattr(before, f) - getattr(after, f) for f in mixer.Memory._fields}
    ids = torch.tensor([TOKENS])
    with torch.no_grad():
        state = model.state_after(ids[:, :4])
        state.layers[0].carry = after._replace(**{f: getattr(after, f) + x for f, x in change.items()})
        p, q = (x[0, -1].log_softmax(-1) for x in (model(ids), model(ids[:, 4:], state=state)))
        norm = sum(x.square().sum().item() for x in change.values()) ** 0.5
    assert found.norm[3] == pytest.approx(norm, rel=1e-6)
    assert found.kl[3] == pytest.approx(float((p.exp() * (p - q)).sum()), rel=1e-5, abs=1e-12)
    assert np.isfinite(found.control).all()


@pytest.mark.parametrize("name", RECURRENT)
def test_gates_are_watched_or_their_absence_is_said(name):
    # An activation between -1 and 1 is no gate; RWKV-4's decay is the same at every token.
    without = {"elman": "has no gate between 0 and 1", "rwkv4": "has no gates"}
    if name in without:
        with pytest.raises(ValueError, match=without[name]):
            gate_saturation(model_of(name), TOKENS)
        return
    found = gate_saturation(model_of(name), TOKENS)
    assert found.names and ((found.left + found.right) <= 1).all() and np.isfinite(found.right).all()


@pytest.mark.parametrize("name", [n for n in RECURRENT if n not in LINEAR])
def test_a_layer_that_is_not_linear_is_linearised_or_that_is_refused(name):
    model = model_of(name)
    if mixers.get(name).family.attention is not None:
        with pytest.raises(ValueError, match="relative to a running maximum"):
            transition_view([(model, 0)], TOKENS)
        return
    found = transition_view([(model, 0)], TOKENS)
    signals, mixer, _, start = stepped(model)
    names = mixer.Memory._fields
    before = [start, *carries(model)]
    for t in range(5):
        here = torch.cat([getattr(before[t], f).flatten() for f in names])

        def step(flat, t=t):
            parts = flat.split([getattr(start, f).numel() for f in names])
            fields = {f: part.view(getattr(start, f).shape) for f, part in zip(names, parts, strict=True)}
            return torch.cat([x.flatten() for x in mixer.step(signals[t], before[t]._replace(**fields))[0]])

        with torch.no_grad():
            eye = 1e-6 * torch.eye(len(here), dtype=torch.float64)
            jacobian = torch.stack([(step(here + e) - step(here - e)) / 2e-6 for e in eye], 1)
            after = torch.cat([getattr(before[t + 1], f).flatten() for f in names])
            write = float((after - jacobian @ here).norm())
        assert found.moduli[0, t, 4] == pytest.approx(float(torch.linalg.eigvals(jacobian).abs().max()), abs=1e-6)
        assert found.write[0, t] == pytest.approx(write, abs=1e-6)
