"""Models small enough to know everything about: an embedding, blocks that are any map, a norm, an unembedding."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from strobe.models import HookedLM, ModelConfig, StateContract
from strobe.models.run import Run


class _Block(nn.Module):
    def __init__(self, f: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.f = f
        self.hook_resid_pre, self.hook_resid_post = HookPoint(), HookPoint()

    def forward(self, x: Tensor) -> Tensor:
        return self.hook_resid_post(self.f(self.hook_resid_pre(x)))


class Toy(StateContract, HookedRootModule):
    """The state contract over ``unembed(norm(f_L(... f_1(embed))))``; `after` is done to the logits behind the lens's
    back.
    """

    def __init__(
        self,
        embedding: Tensor,
        blocks: Sequence[Callable[[Tensor], Tensor]],
        unembedding: Tensor,
        norm: nn.Module | None = None,
        after: Callable[[Tensor], Tensor] = lambda logits: logits,
        name: str = "toy",
    ) -> None:
        super().__init__()
        d_vocab, d_model = embedding.shape
        self.embed = nn.Embedding.from_pretrained(embedding.clone())
        self.blocks = nn.ModuleList(_Block(f) for f in blocks)
        self.ln_final = nn.Identity() if norm is None else norm
        self.unembed = nn.Linear(d_model, d_vocab, bias=False)
        with torch.no_grad():
            self.unembed.weight.copy_(unembedding)
        self.after, self.tokenizer, self.model_name = after, None, name
        self.cfg: Any = SimpleNamespace(
            n_layers=len(self.blocks), d_model=d_model, d_vocab=d_vocab, n_ctx=512, device="cpu", attn_only=False
        )
        self.setup()
        self._adopt({})

    def _forward(self, inputs: Tensor, run: Run) -> Tensor:
        x = self.embed(inputs)
        for block in self.blocks:
            x = block(x)
        return self.after(self.unembed(self.ln_final(x)))


@pytest.fixture
def toy() -> type[Toy]:
    """The class itself: tests say what their model is made of."""
    return Toy


def random_weights(d_vocab: int, d_model: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(d_vocab, d_model, generator=generator), torch.randn(d_vocab, d_model, generator=generator)


@pytest.fixture
def rotating(toy: type[Toy]) -> Toy:
    """Four blocks, each an orthogonal rotation; width 24, 50 tokens, RMS norm. A translator can undo them exactly."""
    embedding, unembedding = random_weights(50, 24)
    generator = torch.Generator().manual_seed(1)
    rotations = [torch.linalg.qr(torch.randn(24, 24, generator=generator))[0] for _ in range(4)]
    blocks = [lambda x, r=r: x @ r for r in rotations]
    return toy(embedding, blocks, 1.4 * unembedding / 24**0.5, nn.RMSNorm(24, eps=1e-6))


@pytest.fixture
def small(toy: type[Toy]) -> Toy:
    """Two nonlinear blocks that look back one token; width 8, 20 tokens, RMS norm."""
    embedding, unembedding = random_weights(20, 8)
    generator = torch.Generator().manual_seed(2)
    weights = [torch.randn(8, 8, generator=generator) for _ in range(2)]
    blocks = [lambda x, w=w: x + torch.tanh((x + torch.roll(x, 1, 1)) @ w) for w in weights]
    return toy(embedding, blocks, unembedding / 2, nn.RMSNorm(8, eps=1e-6), name="small")


@pytest.fixture
def native() -> HookedLM:
    """A GRU and an attention layer, untrained, with weights large enough for predictions to differ."""
    options = {"attention": {"n_heads": 2}, "gru": {"hidden": 16}}
    model = HookedLM(
        ModelConfig(
            d_model=16,
            d_vocab=20,
            layers=["gru", "attention"],
            mixer_options=options,
            mlp="plain",
            d_mlp=32,
            tie_embeddings=False,
        )
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in (model.embed.weight, model.unembed.weight):
            weight.copy_(torch.randn(weight.shape, generator=generator))
        for parameter in model.blocks.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3)
    return model.eval()


@pytest.fixture
def stream() -> Tensor:
    """2,000 token ids below 20."""
    return torch.randint(0, 20, (2000,), generator=torch.Generator().manual_seed(3))
