"""Oracle: blocks that are a step of gradient descent, or of ascent, by construction; finite differences; the gradients
of transformers, and its model with a layer taken out.
"""

from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from cutting import stopped_after
from torch import Tensor

from strobe.models.huggingface import load_huggingface
from strobe.probes.lens import IterativeInference, LogitLens, TunedLens, iterative_inference
from strobe.probes.lens.iterating import _compared, _detour
from strobe.probes.lens.iterative_result import UPDATES

TOKENS = torch.randint(0, 20, (3, 9), generator=torch.Generator().manual_seed(5))
COMMON = {"vocab_size": 61, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def descending(unembedding: Tensor, rate: float) -> Any:
    """A block that moves each token by -rate times the gradient of its own loss, which it is told."""

    def block(x: Tensor) -> Tensor:
        if x.shape[:2] != TOKENS.shape:
            # The few tokens that a readout is checked on.
            return x
        wanted = torch.nn.functional.one_hot(TOKENS.roll(-1, 1), 20).to(x)
        step = ((x @ unembedding.T).softmax(-1) - wanted) @ unembedding
        return x - rate * step

    return block


def test_a_step_downhill_has_cosine_one_one_uphill_minus_one_and_none_has_none(toy: Any) -> None:
    embedding, unembedding = torch.randn(20, 8), torch.randn(20, 8)
    blocks = [descending(unembedding, 1e-3), descending(unembedding, -1e-3), lambda x: x]
    found = iterative_inference(toy(embedding, blocks, unembedding), TOKENS)
    own = found.cosine[:, 0]
    assert own.shape == (2, 3, 3 * 7) and found.gradients == ("model", "logit lens")
    # So small a step leaves the gradient through the blocks what it is here.
    assert own[:, 0] == pytest.approx(1, abs=1e-3) and own[:, 1] == pytest.approx(-1, abs=1e-3)
    assert np.isnan(own[:, 2]).all() and (found.downhill[:, 0, :2] == [1, 0]).all()
    assert np.isnan(found.mean[:, 0, 2]).all() and found.deleted[2] == found.replaced[2] == found.loss
    assert found.first_order[0, 0, 0] < 0 < found.first_order[0, 0, 1] and found.first_order[0, 0, 2] == 0
    # The controls know nothing of a token's own loss.
    assert np.abs(found.mean[:, 1:, :2]).max() < 0.5


def mixing(toy: Any) -> Any:
    """Two blocks that look one token back, in double precision."""
    generator = torch.Generator().manual_seed(2)
    weights = [torch.randn(8, 8, generator=generator).double() for _ in range(2)]
    before = lambda x: torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
    blocks = [lambda x, w=w: x + torch.tanh((x + before(x)) @ w) for w in weights]
    return toy(torch.randn(20, 8).double(), blocks, torch.randn(20, 8) / 2).double()


def test_the_first_order_change_is_that_of_the_loss_when_the_update_grows(toy: Any) -> None:
    model = mixing(toy)
    found = iterative_inference(model, TOKENS)
    h = [model.embed(TOKENS)]
    for block in model.blocks:
        h.append(block.f(h[-1]))

    def loss(logits: Tensor) -> float:
        return float(torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), TOKENS[:, 1:].flatten()) * 24)

    with torch.no_grad():
        for layer in range(2):
            moved = torch.zeros_like(h[0])
            moved[:, 1:-1] = (h[layer + 1] - h[layer])[:, 1:-1]
            ends = []
            for e in (1e-5, -1e-5):
                x = h[layer] + e * moved
                stopped = loss(model.unembed(x))
                for block in list(model.blocks)[layer:]:
                    x = block.f(x)
                ends.append((loss(model.unembed(x)), stopped))
            slopes = [(a - b) / 2e-5 / 21 for a, b in zip(*ends, strict=True)]
            assert found.first_order[:, 0, layer] == pytest.approx(slopes, rel=1e-5)


def test_a_block_left_out_is_the_model_built_without_it(toy: Any) -> None:
    model = mixing(toy)
    found = iterative_inference(model, TOKENS, batch=2)
    for block in range(2):
        without = toy(model.embed.weight, [model.blocks[1 - block].f], model.unembed.weight).double()
        log_p = without(TOKENS).log_softmax(-1)[:, 1:-1]
        expected = -log_p.gather(-1, TOKENS[:, 2:, None]).mean().item()
        assert found.deleted[block] == pytest.approx(expected, rel=1e-9)
    whole = model(TOKENS).log_softmax(-1)[:, 1:-1]
    assert found.loss == pytest.approx(-whole.gather(-1, TOKENS[:, 2:, None]).mean().item(), rel=1e-9)


def test_a_random_update_has_the_norm_of_the_blocks_own_and_another_direction(toy: Any) -> None:
    model, seen = mixing(toy), []
    f = model.blocks[1].f
    model.blocks[1].f = lambda x: (seen.append(x), f(x))[1]
    for hooks in ([], _detour(0, torch.Generator().manual_seed(0))):
        model.run_with_hooks(TOKENS, fwd_hooks=hooks)
    own, random = (x - model.embed(TOKENS) for x in seen)
    assert random.norm(dim=-1).detach().numpy() == pytest.approx(own.norm(dim=-1).detach().numpy())
    assert torch.cosine_similarity(own, random, -1).abs().mean() < 0.6


def test_another_token_is_never_the_token_itself(toy: Any) -> None:
    h = [torch.zeros(2, 6, 64), torch.randn(2, 6, 64)]
    # Where the gradient is the update itself, each token's own cosine is -1.
    cosine, _ = _compared(h, ([h[1]], [h[1]]), torch.Generator().manual_seed(0))
    assert cosine[:, 0] == pytest.approx(-1) and np.abs(cosine[:, 1:]).max() < 0.6


@pytest.mark.parametrize("kind", ["llama", "mamba"])
def test_gradients_are_those_of_transformers(kind: str, tmp_path: Any) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, **COMMON}
    torch.manual_seed(1)
    if kind == "llama":
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48}
        theirs: Any = tf.LlamaForCausalLM(tf.LlamaConfig(**sizes, **heads)).eval()
    else:
        theirs = tf.MambaForCausalLM(tf.MambaConfig(**sizes, state_size=5, time_step_rank=3)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter *= 2.0
    theirs.save_pretrained(tmp_path)
    model = load_huggingface(tmp_path, dtype=torch.float32)
    tokens = TOKENS + 3
    found = iterative_inference(model, tokens)
    layers = theirs.model.layers if kind == "llama" else theirs.backbone.layers
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []

    def keep(_module: Any, args: Any, out: Any) -> None:
        inputs.append(args[0])
        outputs.append(out[0] if isinstance(out, tuple) else out)

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    logits = theirs(tokens).logits
    for hook in hooks:
        hook.remove()
    nats = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")
    grads = torch.autograd.grad(nats.sum(), inputs)
    for layer in range(3):
        u, g = (outputs[layer] - inputs[layer])[:, 1:-1], grads[layer][:, 1:-1]
        cosine = torch.cosine_similarity(u, -g, dim=-1).flatten().detach().numpy()
        assert found.cosine[0, 0, layer] == pytest.approx(cosine, abs=2e-4)
    assert found.loss == pytest.approx(nats[:, 1:].mean().item(), rel=1e-5)
    del layers[1]
    with torch.no_grad():
        shorter = theirs(tokens, use_cache=False).logits[:, 1:-1]
    expected = torch.nn.functional.cross_entropy(shorter.flatten(0, 1), tokens[:, 2:].flatten())
    assert found.deleted[1] == pytest.approx(float(expected), rel=1e-5)


def test_a_lens_is_the_second_gradient_and_the_model_is_left_as_it_was(native: Any, tmp_path: Any) -> None:
    native.train()
    for parameter in native.parameters():
        parameter.requires_grad_(False)
    lens = TunedLens.untrained(native)
    seen: list[tuple[int, int]] = []
    found = iterative_inference(native, TOKENS, lens=lens, batch=2, on_progress=lambda a, b, _: seen.append((a, b)))
    assert seen == [(i, 10) for i in range(10)]
    # Untrained, it is the logit lens.
    plain = iterative_inference(native, TOKENS, lens=LogitLens(), batch=2)
    assert found.gradients == ("model", "tuned lens")
    assert found.cosine[1, 0] == pytest.approx(plain.cosine[1, 0], abs=1e-5)
    assert found.cosine[0, 0] == pytest.approx(plain.cosine[0, 0])
    assert native.training and all(p.grad is None for p in native.parameters())
    found.save(tmp_path / "i.safetensors")
    assert IterativeInference.load(tmp_path / "i.safetensors") == found
    frame = found.to_frame()
    assert len(frame) == 2 * len(UPDATES) * 2 and frame.cosine[0] == found.mean[0, 0, 0]
    assert "block 1: model: cosine" in found.summary() and "left out" in found.summary()


def test_the_figures_hold_the_numbers_beside_their_controls(native: Any) -> None:
    found = iterative_inference(native, TOKENS)
    lines = found.figure().data
    assert [line.name for line in lines[:2]] == ["model: own", "model: own"]
    assert np.allclose(lines[0].y, found.mean[0, 0]) and np.allclose(lines[1].y, found.downhill[0, 0])
    assert sum(line.name.startswith("control") for line in lines) == 8
    deleted, control = found.deletion_figure().data
    assert np.allclose(deleted.y, found.deleted) and np.allclose(control.y, found.replaced)
    assert "nats" in found.deletion_figure().layout.yaxis.title.text


def test_where_it_is_stopped_what_the_rows_read_by_then_say_is_given(native: Any) -> None:
    def ask(rows: Tensor, **how: Any) -> IterativeInference:
        watched = {"on_progress": how["progress"], "partial": how["partial"]} if how else {}
        return iterative_inference(native, rows, batch=1, **watched)

    # Two blocks: a row is five passes. In the middle of the third, two were read; in that of the first, none.
    nothing, cut = (stopped_after(lambda **how: ask(TOKENS, **how), n) for n in (4, 13))
    fresh, whole = ask(TOKENS[:2]), ask(TOKENS)
    assert nothing is None
    for name in ("cosine", "first_order", "loss", "deleted", "replaced"):
        np.testing.assert_array_equal(getattr(cut, name), getattr(fresh, name))
    assert cut.partial == "cut short after 2 of 3 rows" and cut.partial in cut.summary()
    assert not whole.partial and not fresh.partial and whole.loss != cut.loss
    for figure in (cut.figure(), cut.deletion_figure()):
        assert figure.layout.title.subtitle.text.startswith(cut.partial)


def test_rows_too_short_are_refused(native: Any) -> None:
    with pytest.raises(ValueError, match="rows of 3 tokens were given"):
        iterative_inference(native, TOKENS[:, :3])
