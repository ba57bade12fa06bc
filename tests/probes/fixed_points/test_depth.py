"""Oracle: maps that are a contraction, rotations, a drift and a chaotic map by construction; blocks tied by hand.

A model of blocks that ignore one another's tokens has Jacobians that autodiff gives whole, and exponents that sum to
the logarithms of their determinants. Blocks that share their weights can take each other's place at no cost.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import transformers as tf
from cutting import stopped_after

from strobe.models import HookedLM, ModelConfig
from strobe.models.huggingface import load_huggingface
from strobe.probes.fixed_points import (
    DepthOrbit,
    LayerExponents,
    LayerSwaps,
    depth_orbit,
    from_function,
    layer_exponents,
    layer_swaps,
)
from strobe.probes.fixed_points.block_passes import apply_block, streams

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6]
tf.logging.disable_progress_bar()


def turn(angle, factor=1.0):
    c, s = factor * math.cos(angle), factor * math.sin(angle)
    return torch.tensor([[c, -s], [s, c]], dtype=torch.float64)


def build(layers=("attention",) * 4, tie=(), scale=0.4):
    config = ModelConfig(
        d_model=12,
        d_vocab=13,
        layers=layers,
        mixer_options={"attention": {"n_heads": 2}} | ({"gru": {"hidden": 6}} if "gru" in layers else {}),
        mlp="plain",
        d_mlp=16,
        tie_embeddings=False,
        seed=1,
    )
    model = HookedLM(config, name="small").eval().double()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(scale * torch.randn(p.shape, generator=generator, dtype=p.dtype))
        for source, target in tie:
            model.blocks[target].load_state_dict(model.blocks[source].state_dict())
    return model


@pytest.mark.parametrize(
    ("matrix", "kind", "period"),
    [
        (torch.diag(torch.tensor([0.7, 0.5], dtype=torch.float64)), "fixed point: node", 0),
        (torch.diag(torch.tensor([-0.7, 0.5], dtype=torch.float64)), "fixed point: alternating", 0),
        (turn(0.5, 0.8), "fixed point: spiral", 0),
        (turn(2 * math.pi / 7), "orbit", 7),
        (turn(1.0), "quasi-periodic", 0),
    ],
)
def test_linear_maps_do_what_their_eigenvalues_say(matrix, kind, period):
    result = depth_orbit(lambda x: x @ matrix.T, torch.tensor([[1.0, 0.4]]), steps=300)
    assert result.kinds == [kind]
    assert result.periods.tolist() == [period]
    if kind.startswith("fixed"):
        np.testing.assert_allclose(result.rates[0], np.abs(np.linalg.eigvals(matrix.numpy())).max(), rtol=0.02)
        assert result.control == [kind]
    np.testing.assert_allclose(
        result.exponents[0], math.log(np.abs(np.linalg.eigvals(matrix.numpy())).max()), atol=2e-3
    )


def test_a_drift_slides_and_the_logistic_map_is_chaotic():
    drift = depth_orbit(lambda x: x + torch.tensor([0.1, 0.02], dtype=torch.float64), torch.zeros(1, 2))
    assert drift.kinds == ["slider"]
    chaos = depth_orbit(from_function(lambda x: 4 * x * (1 - x), 1), torch.tensor([0.3123]), steps=4000)
    assert chaos.kinds == ["chaotic"]
    np.testing.assert_allclose(chaos.exponents[0], math.log(2), atol=0.02)
    with pytest.raises(ValueError, match="40 or more"):
        depth_orbit(lambda x: x, torch.zeros(1, 2), steps=3)


def test_tokens_are_told_apart_and_a_spiral_to_0_is_no_orbit():
    """A spiral that has nearly stopped has a small path, on which it circles: the scale has to be the first step's."""
    matrices = torch.stack([turn(0.5, 0.8), turn(2 * math.pi / 5)])
    result = depth_orbit(lambda x: torch.einsum("uij,nuj->nui", matrices, x), torch.tensor([[1.0, 0.0], [0.3, 0.3]]))
    assert result.kinds == ["fixed point: spiral", "orbit"]
    assert result.periods.tolist() == [0, 5]


class Reads(torch.nn.Module):
    """A depth-recurrent block, s <- A s + e, for the input e of each token."""

    def __init__(self, A, e, noise=0.0):
        super().__init__()
        self.A, self.e = torch.nn.Parameter(A), torch.nn.Parameter(e)
        self.drop = torch.nn.Dropout(noise)

    def forward(self, s):
        return self.drop(s @ self.A.T + self.e)


def test_a_users_own_block_runs_in_its_own_precision_and_comes_to_rest_where_it_has_to():
    A, e = turn(0.4, 0.6).float(), torch.tensor([[1.0, 0.0], [0.0, -3.0], [0.5, 0.5]])
    block = Reads(A, e)
    result = depth_orbit(block, torch.zeros(3, 2), steps=80)
    assert result.kinds == ["fixed point: spiral"] * 3
    np.testing.assert_allclose(result.rates, 0.6, rtol=0.02)
    np.testing.assert_allclose(result.exponents, math.log(0.6), atol=2e-3)
    assert result.provenance.weights_hash is not None
    assert result.system == "Reads"
    assert block.A.requires_grad
    # Two components hold all of it, so that distances on the path are those of the streams.
    rest = torch.linalg.solve(torch.eye(2) - A, e.T).T.detach().numpy()
    far = np.linalg.norm(result.paths[-1] - result.paths[0], axis=-1)
    np.testing.assert_allclose(far, np.linalg.norm(rest, axis=1), rtol=1e-5)
    as_function = depth_orbit(lambda s: block(s), torch.zeros(3, 2), steps=80, dtype=torch.float32)
    np.testing.assert_array_equal(as_function.speeds, result.speeds)


def test_blocks_that_cannot_be_followed_are_refused():
    eye = torch.eye(2)
    with pytest.raises(ValueError, match="two different results"):
        depth_orbit(Reads(eye, torch.ones(1, 2), noise=0.5).train(), torch.ones(1, 2))
    with pytest.raises(ValueError, match="return the shape it was given"):
        depth_orbit(lambda s: s[..., :1], torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"give \[tokens, d\]"):
        depth_orbit(lambda s: s, torch.zeros(2))
    with pytest.raises(ValueError, match="its own precision"):
        depth_orbit(build(), TOKENS, layers=1, dtype=torch.float32)


@torch.no_grad()
def test_a_block_of_a_model_is_applied_to_its_own_output():
    model = build(scale=0.1)
    tokens = torch.tensor([TOKENS])
    before = streams(model, tokens)
    torch.testing.assert_close(apply_block(model, tokens, 2, before[2]), before[3])
    seen = depth_orbit(model, TOKENS, layers=(1, 2), steps=40)
    path = [before[1]]
    for _ in range(3):
        path.append(model.blocks[2](model.blocks[1](path[-1])))
    moves = torch.stack([(b - a)[0].norm(dim=-1) for a, b in pairwise(path)])
    np.testing.assert_allclose(seen.speeds[:3], (moves / moves[0]).numpy(), rtol=1e-9)
    assert len(seen.units) == len(TOKENS)
    with pytest.raises(ValueError, match="it has 0 to 3"):
        depth_orbit(model, TOKENS, layers=4)


def test_exponents_sum_to_the_logarithms_of_the_determinants():
    model = build(("attention", "gru", "attention"))
    result = layer_exponents(model, TOKENS, [0, 5])
    before = streams(model, torch.tensor([TOKENS]))
    for row, position in enumerate((0, 5)):
        jacobians = []
        for block in range(3):

            def f(v, block=block, position=position):
                x = torch.cat([before[block][:, :position], v[None, None], before[block][:, position + 1 :]], 1)
                return model.blocks[block](x)[0, position]

            jacobians.append(torch.autograd.functional.jacobian(f, before[block][0, position]))
        total = sum(torch.linalg.slogdet(J)[1] for J in jacobians) / 3
        np.testing.assert_allclose(result.exponents[row].sum(), float(total), rtol=1e-9)
        stretch = [float(torch.linalg.svdvals(J)[0].log()) for J in jacobians]
        np.testing.assert_allclose(result.stretch[:, row], stretch, rtol=1e-9)
        largest = torch.linalg.svdvals(jacobians[2] @ jacobians[1] @ jacobians[0])[0].log() / 3
        assert abs(result.exponents[row][0] - float(largest)) < 0.3
    with pytest.raises(ValueError, match="has 8 tokens"):
        layer_exponents(model, TOKENS, [8])
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_tied_blocks_take_each_others_place_and_others_do_not():
    tied = layer_swaps(build(tie=[(0, 1), (2, 3)]), TOKENS)
    assert tied.groups() == [[0, 1], [2, 3]]
    assert tied.replaced[0, 1] < 1e-12
    assert tied.swapped[2, 3] < 1e-12
    assert np.median(tied.shuffled) > 1e-3
    assert tied.swapped[1, 2] > 1e-4
    loose = layer_swaps(build(), TOKENS)
    assert loose.groups() == [[0], [1], [2], [3]]
    one = layer_swaps(build(tie=[(0, 1), (0, 2), (0, 3)]), TOKENS)
    assert one.groups() == [[0, 1, 2, 3]]
    few = layer_swaps(build(), TOKENS, neighbours_only=True)
    assert np.isnan(few.swapped[0, 2])
    np.testing.assert_allclose(few.swapped[0, 1], loose.swapped[0, 1])


def test_exchanges_cut_short_are_those_of_the_pairs_that_were_tried_beside_the_whole_control():
    model = build()
    whole = layer_swaps(model, TOKENS)

    def ask(**how):
        return layer_swaps(model, TOKENS, **how)

    # Six random orders, then three passes a pair: neighbours first.
    nothing, two, four = (stopped_after(ask, n) for n in (9, 14, 20))
    assert nothing is None and not whole.partial and "cut short" not in whole.figure().layout.title.subtitle.text
    for cut, pairs in ((two, [(0, 1), (1, 2)]), (four, [(0, 1), (1, 2), (2, 3), (0, 2)])):
        np.testing.assert_array_equal(cut.shuffled, whole.shuffled)
        tried = np.eye(4, dtype=bool)
        for i, j in pairs:
            tried[i, j] = tried[j, i] = True
        for name in ("swapped", "replaced"):
            np.testing.assert_array_equal(getattr(cut, name), np.where(tried, getattr(whole, name), np.nan))
        assert cut.partial == f"cut short after {len(pairs)} of 6 pairs of blocks" and cut.partial in cut.summary()
        assert cut.figure().layout.title.subtitle.text.startswith(cut.partial)
    assert four.groups() == whole.groups() and "runs that do" not in two.summary()
    with pytest.raises(ValueError, match="before all neighbours were tried; run it again"):
        two.groups()


def test_a_path_cut_short_is_that_of_the_steps_that_were_made_and_so_is_its_control():
    matrix, start = turn(0.5, 0.98), torch.tensor([[1.0, 0.4], [0.2, 0.9]])

    def ask(steps, **how):
        return depth_orbit(lambda x: x @ matrix.T, start, steps=steps, **how)

    # In 39 steps nothing can be said of the long run.
    nothing, cut = (stopped_after(lambda **how: ask(300, **how), n) for n in (39, 50))
    fresh, whole = ask(50), ask(300)
    assert nothing is None and len(cut.speeds) == 50 and cut.kinds != whole.kinds
    for name in ("kinds", "control", "periods", "speeds", "rates", "exponents", "paths", "shares"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(fresh, name))
    assert cut.partial == "cut short after 50 of 300 steps" and cut.partial in cut.summary()
    assert not whole.partial and not fresh.partial
    for figure in (cut.figure(), cut.speed_figure()):
        assert figure.layout.title.subtitle.text.startswith(cut.partial)


@torch.no_grad()
def test_swapping_is_running_the_blocks_in_that_order():
    model = build()
    result = layer_swaps(model, TOKENS)
    x = model.embed(torch.tensor([TOKENS]))
    for block in (0, 2, 1, 3):
        x = model.blocks[block](x)
    other = model.unembed(model.ln_final(x)).log_softmax(-1)
    usual = model(torch.tensor([TOKENS])).log_softmax(-1)
    np.testing.assert_allclose(result.swapped[1, 2], float((usual.exp() * (usual - other)).sum(-1).mean()), rtol=1e-9)


def test_a_hugging_face_transformer_has_all_three(tmp_path):
    torch.manual_seed(1)
    config = tf.LlamaConfig(
        vocab_size=61, hidden_size=32, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48,
        num_hidden_layers=3, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    tf.LlamaForCausalLM(config).eval().save_pretrained(tmp_path)
    model = load_huggingface(tmp_path, dtype=torch.float32)
    assert len(layer_exponents(model, TOKENS).exponents[0]) == 32
    assert np.isfinite(layer_swaps(model, TOKENS).shuffled).all()
    assert len(depth_orbit(model, TOKENS, layers=1, steps=40).kinds) == len(TOKENS)


def test_results_survive_their_files_and_draw(tmp_path):
    model = build()
    matrix = turn(0.5, 0.8)
    for kind, result in (
        (DepthOrbit, depth_orbit(lambda x: x @ matrix.T, torch.tensor([[1.0, 0.4]]), steps=60)),
        (LayerExponents, layer_exponents(model, TOKENS, [1])),
        (LayerSwaps, layer_swaps(model, TOKENS)),
    ):
        assert kind.load(result.save(tmp_path / "r.safetensors")) == result
        figure = result.figure()
        assert figure.data
        assert "control" in str(figure.to_dict())
        assert "control" in result.summary()
        assert len(result.to_frame())
        if isinstance(result, DepthOrbit):
            assert result.figure(dimensions=3).data
            assert result.speed_figure().layout.yaxis.type == "log"
