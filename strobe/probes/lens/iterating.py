"""Measures an `IterativeInference`: updates against gradients, and the model with a block left out.

If a residual network infers iteratively (Jastrzębski et al. 2018, arXiv:1710.04773; for language models Belrose et al.
2023, appendix C), a block's update has a negative product with the gradient of the loss where the block begins, and no
single block is needed but the first. Which gradient is meant, of the model as it is or of what it would predict if it
stopped there, differs between accounts, so both are taken. The controls are ours.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from strobe.core import hook_names
from strobe.probes.lens.fitting import Progress
from strobe.probes.lens.iterative_result import UPDATES, IterativeInference
from strobe.probes.lens.logit_lens import Lens, LogitLens, checked_readout
from strobe.probes.lens.readout import Readout, evaluating
from strobe.probes.lens.token_rows import token_rows
from strobe.probes.partial import keeping
from strobe.probes.provenance import provenance_of

_CONTROL = (
    "another token's update at the same block, and a random direction; for a block left out, its updates replaced by "
    "random directions of the same norms"
)


def iterative_inference(
    model: Any,
    tokens: Any = None,
    *,
    lens: Lens | None = None,
    n_tokens: int = 2048,
    context: int = 64,
    batch: int = 16,
    seed: int = 0,
    on_progress: Progress | None = None,
    partial: Callable[[IterativeInference], None] | None = None,
) -> IterativeInference:
    """Cosines of every block's updates with the downhill direction of the loss, and the loss without each block.

    `tokens`: rows [n, time], a text or a stream (cut into rows of `context`, or less), or None for about `n_tokens` of
    held-out tokens of Python's library. Counted are tokens after a row's first (whose activations are often huge) that
    have a next one. `lens`: the early exit whose loss is the second gradient; None for the logit lens. Where
    `on_progress` raises, `partial` is given the rows that were read, `batch` of which run together, if any. Raises
    ValueError for rows of fewer than 4 tokens, a lens of another model, and as `model_readout`.
    """
    lens = LogitLens() if lens is None else lens
    read = checked_readout(lens, model)
    rows = _rows(model, tokens, n_tokens, context, seed)
    if rows.shape[1] < 4:
        raise ValueError(
            f"rows of {rows.shape[1]} tokens were given; without the first and the last, two are wanted: give rows of 4"
        )
    parts = rows.split(batch)
    passes = len(parts) * (1 + 2 * read.n_layers)
    done = 0

    generator = torch.Generator().manual_seed(seed)
    cosines, products, losses, removed = [], [], [], []

    def result() -> IterativeInference:
        # Of a batch in whose middle it was stopped, there are cosines and not yet what leaving blocks out does.
        n = len(removed)
        counts = np.array([cosine.shape[-1] for cosine in cosines[:n]])
        total = np.average(np.stack(removed), axis=0, weights=counts)
        return IterativeInference(
            gradients=("model", f"{lens.kind} lens"),
            cosine=np.concatenate(cosines[:n], -1),
            first_order=np.sum(products[:n], axis=0) / counts.sum(),
            loss=float(np.average(losses[:n], weights=counts)),
            deleted=total[0],
            replaced=total[1],
            provenance=provenance_of(
                model,
                seed=seed,
                settings={
                    "lens": lens.kind, "rows": rows.shape[0], "context": rows.shape[1],
                    "tokens": "library" if tokens is None else "given", "read": sum(len(part) for part in parts[:n]),
                },
                control=_CONTROL,
            ),
        )  # fmt: skip

    watched = keeping(on_progress, partial, lambda: result() if removed else None)

    def tick(what: str) -> None:
        nonlocal done
        watched(done, passes, what)
        done += 1

    with evaluating(model):
        for part in parts:
            tick("gradients through the model")
            h, through, loss = _through(model, read.n_layers, part)
            early = _early(lens, read, h[:-1], part)
            cosine, product = _compared(h, (through, early), generator)
            cosines.append(cosine)
            products.append(product * cosine.shape[-1])
            losses.append(loss)
            removed.append(_without(model, read.n_layers, part, generator, lambda: tick("leaving out blocks")))
    return result()


def _rows(model: Any, tokens: Any, n_tokens: int, context: int, seed: int) -> Tensor:
    if tokens is not None:
        return token_rows(model, tokens, None, default_context=context).in_order()
    from strobe.probes.geometry.sequences import library_sequences

    return torch.from_numpy(library_sequences(model, max(1, n_tokens // context), context, seed).rows)


def _through(model: Any, n_layers: int, part: Tensor) -> tuple[list[Tensor], list[Tensor], float]:
    """(resid[0..L], the gradient of the summed loss at resid[0..L-1], the mean loss of the counted tokens)."""
    kept: list[Tensor] = []

    def begin(x: Tensor, hook: Any) -> Tensor:
        # Gradients are wanted of activations; the parameters need none.
        kept.append(x.detach().requires_grad_())
        return kept[0]

    def keep(x: Tensor, hook: Any) -> None:
        kept.append(x)

    hooks = [(hook_names.resid_pre(0), begin), *((hook_names.resid_pre(i), keep) for i in range(1, n_layers))]
    hooks.append((hook_names.resid_post(n_layers - 1), keep))
    tokens = part.to(next(model.parameters()).device)
    with torch.enable_grad():
        logits = model.run_with_hooks(tokens, fwd_hooks=hooks)
        nats = _nats(logits, tokens)
        grads = torch.autograd.grad(nats.sum(), kept[:-1])
    return [h.detach() for h in kept], list(grads), float(nats[:, 1:].detach().double().mean())


def _early(lens: Lens, read: Readout, h: list[Tensor], part: Tensor) -> list[Tensor]:
    """The gradient of the lens's summed loss at each of `h`, token by token: a lens reads one at a time."""
    grads = []
    for layer, x in enumerate(h):
        x = x.to(read.dtype).detach().requires_grad_()
        with torch.enable_grad():
            nats = _nats(lens.logits(read, x, layer), part.to(x.device))
            grads.append(torch.autograd.grad(nats.sum(), x)[0])
    return grads


def _nats(logits: Tensor, tokens: Tensor) -> Float[Tensor, "batch scored"]:
    log_p = logits[:, :-1].to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    return -log_p.gather(-1, tokens[:, 1:, None])[..., 0]


def _compared(
    h: list[Tensor], gradients: tuple[list[Tensor], ...], generator: torch.Generator
) -> tuple[Float[np.ndarray, "gradient update block token"], Float[np.ndarray, "gradient update block"]]:
    """(cosines, mean products) of the counted tokens of one batch."""
    flat = torch.stack([_counted(x) for x in h])
    own = flat[1:] - flat[:-1]
    n = own.shape[1]
    # Another token for each: a cycle in random order, so that none is its own.
    order = torch.randperm(n, generator=generator)
    other = torch.empty_like(order)
    other[order] = order.roll(1)
    noise = torch.randn(own.shape, generator=generator, dtype=own.dtype)
    noise *= own.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True)
    updates = torch.stack([own, own[:, other], noise])
    assert len(updates) == len(UPDATES)
    g = torch.stack([torch.stack([_counted(x) for x in kind]) for kind in gradients])[:, None]
    products = (updates * g).sum(-1)
    sizes = updates.norm(dim=-1) * g.norm(dim=-1)
    return torch.where(sizes > 0, -products / sizes, torch.nan).float().numpy(), products.mean(-1).numpy()


def _counted(x: Tensor) -> Float[Tensor, "token d_model"]:
    """The tokens after the first of each row that have a next one, in double precision."""
    return x[:, 1:-1].flatten(0, 1).double().cpu()


@torch.no_grad()
def _without(
    model: Any, n_layers: int, part: Tensor, generator: torch.Generator, tick: Any
) -> Float[np.ndarray, "2 block"]:
    """The mean loss of the counted tokens with each block left out, and with its updates replaced by random ones."""
    losses = np.zeros((2, n_layers))
    tokens = part.to(next(model.parameters()).device)
    for block in range(n_layers):
        for k in range(2):
            tick()
            logits = model.run_with_hooks(tokens, fwd_hooks=_detour(block, generator if k else None))
            losses[k, block] = float(_nats(logits, tokens)[:, 1:].double().mean())
    return losses


def _detour(block: int, generator: torch.Generator | None) -> list[tuple[str, Any]]:
    """Hooks that lead the stream past `block`; with a generator, over a random update of the norm of its own."""
    before: list[Tensor] = []

    def keep(x: Tensor, hook: Any) -> None:
        before[:] = [x]

    def answer(x: Tensor, hook: Any) -> Tensor:
        if generator is None:
            return before[0]
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        size = (x - before[0]).double().norm(dim=-1, keepdim=True).cpu()
        return before[0] + (noise * size / noise.norm(dim=-1, keepdim=True)).to(x)

    return [(hook_names.resid_pre(block), keep), (hook_names.resid_post(block), answer)]
