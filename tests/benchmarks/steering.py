"""What steering costs: each way of it over the plain pass or the plain generation, by turns in one run."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from timing import compare

import strobe
from strobe.probes.steering import Steering, SteeringVector, Where
from strobe.probes.steering.vector import site_names

_MODELS = ("transformer-python", "gru-python", "mamba2-python", "gated-deltanet-python")


def section(time: int = 128, new: int = 32, turns: int = 7) -> str:
    """A table of ratios for a prompt of `time` tokens, and for `new` tokens after it."""
    torch.set_num_threads(1)
    lines = [
        "## Steering",
        "",
        f"One layer steered, over the same without: a pass over {time} tokens, and {new} tokens generated after "
        f"{time}. Medians of {turns} turns, quartiles of the turns in brackets. The memory is the field that a mixer's "
        "`hook_state` shows; the whole carry has its windows too, and the tokens that see them changed are projected "
        "once more.",
        "",
        "| model | steered | forward | generation |",
        "|---|---|---|---|",
    ]
    for name in _MODELS:
        model = strobe.load(name)
        tokens = torch.randint(0, model.cfg.d_vocab, (1, time), generator=torch.Generator().manual_seed(0))
        for what, steering in _ways(model, time):
            forward = compare(_pass(steering.forward, tokens), _pass(model, tokens), turns=turns)
            generated = compare(_written(steering, tokens, new), _written(model, tokens, new), turns=turns)
            cells = " | ".join(f"{r.ratio:.2f} ({r.low:.2f} to {r.high:.2f})" for r in (forward, generated))
            lines.append(f"| {name} | {what} | {cells} |")
    return "\n".join(lines) + "\n"


def _ways(model: Any, time: int) -> Iterator[tuple[str, Steering]]:
    yield "residual stream, every token", Steering(model, _vector(model, "resid_post", 1))
    if not model.mixers:
        return
    carry = _vector(model, "carry", 1)
    memory = model.mixers["blocks.1.mixer"].Memory._fields
    kept = {n: d for n, d in carry.directions.items() if n.partition("hook_state_")[2] in memory}
    state = SteeringVector(directions=kept, point="carry", model=carry.model, weights_hash=carry.weights_hash)
    yield "memory, one token", Steering(model, state, where=Where("at", positions=(time // 2,)))
    yield "memory, every token", Steering(model, state)
    if len(kept) < len(carry.directions):
        yield "whole carry, every token", Steering(model, carry)


def _vector(model: Any, point: str, layer: int) -> SteeringVector:
    _, cache = model.run_with_cache(torch.tensor([[1, 2]]), states=[-1])
    generator = torch.Generator().manual_seed(1)
    directions = {
        name: 0.01 * torch.randn(cache[name][0, -1].shape, generator=generator)
        for name in site_names(model, point, [layer])
    }
    return SteeringVector(directions=directions, point=point, model=model.model_name, weights_hash=model.weights_hash())


def _pass(run: Callable[..., Any], tokens: torch.Tensor) -> Callable[[], object]:
    def once() -> object:
        with torch.no_grad():
            return run(tokens)

    return once


def _written(writer: Any, tokens: torch.Tensor, new: int) -> Callable[[], object]:
    return lambda: writer.generate(tokens, new, temperature=0.0, stop_at_eos=False)


if __name__ == "__main__":
    print(section())
