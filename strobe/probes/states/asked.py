"""What both questions about a carry share: the layer asked of, the tokens and their words, the provenance."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from strobe.core.provenance import Provenance
from strobe.probes.provenance import provenance_of

if TYPE_CHECKING:
    import torch

Tick = Callable[[int, int, str], None]
"""Called with (done, total, what) between pieces of work; it may raise to cancel."""


def recurrent_layers(model: Any) -> list[int]:
    """The layers of `model` whose mixer has a carry that can be looked at and changed."""
    return sorted(int(name.split(".")[1]) for name in model.mixers if name.endswith(".mixer"))


def recurrent_mixer(model: Any, layer: int) -> Any:
    """The mixer of `layer`. Raises ValueError where it has no recurrent carry."""
    layers = recurrent_layers(model)
    if layer not in layers:
        have = f"layers with one: {', '.join(map(str, layers))}" if layers else "this model has none"
        raise ValueError(f"the state of layer {layer} was asked for, which has no recurrent carry; {have}")
    return model.mixers[f"blocks.{layer}.mixer"]


def tokens_of(model: Any, text: str | Sequence[int]) -> "torch.Tensor":
    """Token ids [1, time] of a text, or as they were given. Raises ValueError where there is none."""
    import torch

    if isinstance(text, str):
        return model.tokenize(text)[0]
    if not len(text):
        raise ValueError("the text is empty: it has no token; give at least one")
    return torch.as_tensor(list(text), device=next(model.parameters()).device)[None]


def maybe_tokens(model: Any, text: str | Sequence[int] | None) -> "torch.Tensor | None":
    """As `tokens_of`, of a text that need not be given."""
    return None if text is None else tokens_of(model, text)


def token_words(model: Any, tokens: "torch.Tensor") -> list[str]:
    """Each token's text; its number in brackets where the model has no tokenizer."""
    if model.tokenizer is None:
        return [f"[{int(t)}]" for t in tokens.flatten()]
    return [str(word) for word in model.to_str_tokens(tokens.flatten())]


def plain_text(text: str | Sequence[int] | None) -> str | list[int] | None:
    """The text as provenance keeps it: itself, or its token ids as plain integers."""
    return text if text is None or isinstance(text, str) else [int(t) for t in text]


def provenance(model: Any, text: Any, seed: int, settings: dict[str, Any], control: str) -> Provenance:
    """Where the numbers come from; called after the run, when the model knows which backends ran."""
    return provenance_of(model, seed=seed, settings={"text": plain_text(text), **settings}, control=control)


def no_tick(done: int, total: int, message: str) -> None:
    """Nobody is watching."""
