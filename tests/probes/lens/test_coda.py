"""Oracle: O2.7, a tied identity core; a model of fewer steps, which the coda lens must be; the lens of every block.

What the coda lens reads after step i of a core of shared weights is, by definition, the model run for i steps.
"""

from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from depth_models import TOKENS, build, tied
from torch import Tensor

from strobe.models.huggingface import load_huggingface
from strobe.probes.lens import CodaLens, LogitLens, Looped, LoopedBlocks, coda_lens

IDS = torch.from_numpy(TOKENS[0])


def toy(core: Any, steps: int = 4, coda: Any = None) -> Looped:
    """Width 8, 20 tokens, in double precision; an adapter adds what the prelude made."""
    generator = torch.Generator().manual_seed(0)
    embedding, unembedding, after = (torch.randn(n, 8, generator=generator, dtype=torch.float64) for n in (20, 20, 8))
    norm = lambda x: x / x.pow(2).mean(-1, keepdim=True).sqrt()
    return Looped(
        prelude=lambda ids: embedding[ids],
        initial=torch.clone,
        core=core,
        coda=coda or (lambda x: x + torch.tanh(norm(x) @ after)),
        readout=lambda x: norm(x) @ unembedding.T,
        steps=steps,
        name="toy",
    )


def rotate(seed: int) -> Any:
    w = torch.randn(8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return lambda x, e: torch.tanh(x @ w) + 0.5 * e


def test_an_identity_core_has_constant_ranks_and_ends_in_the_model() -> None:
    found = coda_lens(toy([lambda x, e: x] * 3, steps=5), torch.arange(9), follow={"seven": 7})
    core = np.array(found.sections) == "core"
    assert core.sum() == 15 and found.steps[:4] == [0, 1, 1, 1] and found.steps[-1] == 6
    assert (found.rank[:, :, core] == found.rank[:, :, core][:, :, :1]).all()
    # Through the coda it is the model itself: its answer is first, exactly.
    assert (found.rank[1, 0, core] == 1).all() and (found.rank[0, 0, -1] == 1).all()
    # Read at once it is not, as the coda moves the stream.
    assert found.rank[0, 0, core].max() > 1 and np.isnan(found.rank[1, :, -1]).all()
    assert found.control[1, 0, core].mean() > 3


def test_the_coda_lens_after_a_step_is_the_model_of_so_many_steps() -> None:
    blocks = [rotate(1), rotate(2)]
    found = coda_lens(toy(blocks), torch.arange(9), follow={"three": 3})
    answer = toy(blocks).states(torch.arange(9)[None]).logits[0].argmax(-1)
    for steps in range(1, 5):
        logits = toy(blocks, steps).states(torch.arange(9)[None]).logits[0]
        state = next(
            i
            for i in range(len(found.steps))
            if (found.sections[i], found.blocks[i], found.steps[i]) == ("core", 2, steps)
        )
        for row, ids in enumerate((answer, torch.full_like(answer, 3))):
            expected = [1 + int((logits[t] > logits[t, ids[t]]).sum()) for t in range(9)]
            assert found.rank[1, row, state].tolist() == expected
    assert len(set(found.rank[1, 1, :, 0].tolist())) > 2


def test_blocks_of_a_loaded_model_that_share_weights() -> None:
    whole, short = tied([0, 1, 2, 1, 2, 1, 2, 7]), build(*["attention"] * 4)
    for i, group in enumerate((0, 1, 2, 7)):
        short.blocks[i].load_state_dict(whole.blocks[group].state_dict())
    for name in ("embed", "ln_final", "unembed"):
        getattr(short, name).load_state_dict(getattr(whole, name).state_dict())
    found = coda_lens(LoopedBlocks(whole, 1, 2, 1), IDS)
    assert found.sections == ["prelude", *["core"] * 6, "coda"] and found.steps == [0, 1, 1, 2, 2, 3, 3, 4]
    answer = whole(IDS[None])[0].argmax(-1)
    logits = short(IDS[None])[0]
    expected = [1 + int((logits[t] > logits[t, answer[t]]).sum()) for t in range(len(IDS))]
    assert found.rank[1, 0, 2].tolist() == expected and max(expected) > 1
    assert (found.rank[1, 0, 6] == 1).all()
    # Read at once, every state is what the logit lens says of that layer.
    lens = LogitLens().trajectory(whole, IDS)
    assert (found.rank[0, 0] == lens.final_rank[0, 1:]).all()


def test_a_transformer_behind_the_seam(tmp_path: Any) -> None:
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "num_hidden_layers": 4}
    config = tf.LlamaConfig(vocab_size=61, pad_token_id=0, bos_token_id=1, eos_token_id=2, **sizes)
    theirs = tf.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter *= 3
    theirs.save_pretrained(tmp_path)
    model = load_huggingface(tmp_path, dtype=torch.float32)
    found = coda_lens(LoopedBlocks(model, 1, 1, 1), IDS)
    answer = theirs(IDS[None]).logits[0].argmax(-1)
    # Without the second block of the core, that is the model without its third.
    del theirs.model.layers[2]
    logits = theirs(IDS[None], use_cache=False).logits[0]
    expected = [1 + int((logits[t] > logits[t, answer[t]]).sum()) for t in range(len(IDS))]
    assert found.rank[1, 0, 1].tolist() == expected and (found.rank[1, 0, 2] == 1).all()


def test_the_control_keeps_every_norm() -> None:
    norms: list[Tensor] = []

    def coda(x: Tensor) -> Tensor:
        norms.append(x.norm(dim=-1))
        return x

    coda_lens(toy([rotate(1)], coda=coda), torch.arange(9))
    # After the model's own pass, each stream is followed by its scrambled one.
    for own, scrambled in zip(norms[1::2], norms[2::2], strict=True):
        assert scrambled.numpy() == pytest.approx(own.numpy())


def test_the_result_is_kept_drawn_and_tabulated(tmp_path: Any) -> None:
    found = coda_lens(toy([rotate(1), rotate(2)]), torch.arange(9), follow={"three": 3})
    assert CodaLens.load(found.save(tmp_path / "c.safetensors")) == found
    assert len(found.to_frame()) == 2 * 2 * 10 * 9 and "step 4, R2: logit lens" in found.summary()
    figure = found.figure("three", 2)
    line = next(t for t in figure.data if t.name == "R2" and t.xaxis == "x2")
    at = [i for i, (s, b) in enumerate(zip(found.sections, found.blocks, strict=True)) if (s, b) == ("core", 2)]
    assert list(line.x) == [1, 2, 3, 4] and np.array_equal(line.y, found.rank[1, 1, at, 2])
    assert figure.layout.yaxis.type == "log" and any(t.name.startswith("control") for t in figure.data)
    mean = next(t for t in found.figure().data if t.name == "R1")
    assert np.allclose(mean.y, found.rank[0, 0, [1, 3, 5, 7]].mean(-1))


def test_what_there_is_not_is_refused() -> None:
    model = build(*["attention"] * 4)
    with pytest.raises(ValueError, match="has 4 blocks, and the 3 between must be a multiple of the core"):
        LoopedBlocks(model, 1, 2, 0)
    for bad in ((1, 0, 1), (-1, 2, 1), (2, 1, 2)):
        with pytest.raises(ValueError, match="must be a multiple of the core"):
            LoopedBlocks(model, *bad)
    with pytest.raises(ValueError, match="tokens are 0 to 19"):
        coda_lens(toy([rotate(1)]), [1, 2], follow={"x": 20})
    with pytest.raises(ValueError, match="give ids"):
        coda_lens(toy([rotate(1)]), "a text")
    with pytest.raises(ValueError, match="applied 0 times"):
        toy([rotate(1)], steps=0)
    found = coda_lens(toy([rotate(1)]), [1, 2])
    with pytest.raises(ValueError, match="followed were"):
        found.figure("x")
    with pytest.raises(ValueError, match="the text has 2 tokens"):
        found.figure(position=2)
