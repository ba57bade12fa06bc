"""Generation: the same hooks and edits at every new token, for every model with the state contract."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from strobe.kernels import Positions
from strobe.models.state import ModelState


def generate_stream(
    model: Any,
    inputs: Any,
    max_new_tokens: int = 50,
    *,
    state: ModelState | None = None,
    states: Positions | None = None,
    fwd_hooks: Iterable[tuple[Any, Callable[..., Any]]] = (),
    edits: Sequence[Any] = (),
    temperature: float | int = 1.0,
    top_k: int | None = None,
    top_p: float | int | None = None,
    seed: int = 0,
    stop_at_eos: bool = True,
) -> Iterator[Tensor]:
    """New tokens [batch], one at a time.

    Positions are absolute, counted from the first token of `inputs`: an edit at position 40 of a prompt of 32 tokens
    applies while decoding. A hook on ``hook_carry`` looks at `states` of the prompt (default: its last token, whose
    carry the first new token sees) and at every new token. `temperature` 0 takes the most likely token. The draw
    depends on `seed` alone, so two runs that differ in an edit share their noise. After a row's end-of-text token that
    row repeats it.

    Raises IndexError for an edit beyond the last position that will be run, ValueError for a bad sampling setting.
    """
    if temperature < 0 or (top_k is not None and top_k < 1) or (top_p is not None and not 0 < top_p <= 1):
        raise ValueError(f"temperature {temperature}, top_k {top_k}, top_p {top_p}: need >= 0, >= 1 and in (0, 1]")
    tokens, mask = model._inputs(inputs, None)
    if mask is not None:
        tokens, mask = _left_padded(tokens, mask)
    prompt, start = tokens.shape[1], 0 if state is None else state.seen
    for edit in edits:
        if not -prompt <= edit.position < prompt + max_new_tokens - 1:
            raise IndexError(
                f"edit at position {edit.position}: a prompt of {prompt} tokens and {max_new_tokens} new ones "
                f"run positions 0 to {prompt + max_new_tokens - 2}"
            )
    noise = torch.Generator(device="cpu").manual_seed(seed)
    hooks = list(fwd_hooks)
    at = {e.position % prompt if e.position < 0 else e.position for e in edits}
    done = torch.zeros(tokens.shape[0], dtype=torch.bool, device=tokens.device)
    eos = getattr(model.tokenizer, "eos_token_id", None) if stop_at_eos else None
    looks: Positions = [-1] if states is None else states
    for i in range(max_new_tokens):
        first = 0 if i == 0 else prompt + i - 1
        here = (
            [_moved(e, prompt, first) for e in edits if first <= _absolute(e, prompt) < first + tokens.shape[1]]
            if at
            else []
        )
        with torch.no_grad():
            logits, state = model.run_with_hooks(
                tokens,
                fwd_hooks=hooks,
                state=state,
                states=looks if hooks else None,
                edits=here,
                mask=mask,
                return_type="state",
                offset=start + first,
            )
        new = sample(_last(logits, mask), noise, temperature, top_k, top_p)
        if eos is not None:
            new = torch.where(done, eos, new)
            done |= new == eos
        yield new
        if bool(done.all()):
            return
        tokens, mask, looks = new[:, None], None, [0]


def generate(model: Any, inputs: Any, max_new_tokens: int = 50, **kwargs: Any) -> Any:
    """Prompt and continuation: a text for a text, a list for a list, token ids [batch, time] for token ids.

    See `generate_stream` for the arguments.
    """
    new = list(generate_stream(model, inputs, max_new_tokens, **kwargs))
    prompt, mask = model._inputs(inputs, None)
    added = torch.stack(new, 1) if new else prompt[:, :0]
    if isinstance(inputs, str):
        return model.to_string(torch.cat([prompt, added], 1)[0])
    if isinstance(inputs, list) and inputs and isinstance(inputs[0], str):
        rows = [p if mask is None else p[m] for p, m in zip(prompt, mask if mask is not None else prompt, strict=True)]
        return [model.to_string(torch.cat([p, a])) for p, a in zip(rows, added, strict=True)]
    return torch.cat([prompt, added], 1)


def sample(
    logits: Tensor,
    noise: torch.Generator,
    temperature: float | int = 1.0,
    top_k: int | None = None,
    top_p: float | int | None = None,
) -> Tensor:
    """One token [batch] from logits [batch, vocab], by the Gumbel-max trick on noise drawn on the CPU."""
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits.float() / temperature
    if top_k is not None:
        kth = logits.topk(min(top_k, logits.shape[-1]), -1).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if top_p is not None:
        ordered, index = logits.sort(-1, descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        logits = logits.masked_fill((before >= top_p).scatter(-1, index, before >= top_p), -torch.inf)
    uniform = torch.rand(logits.shape, generator=noise).clamp_min(torch.finfo(torch.float32).tiny).to(logits.device)
    return (logits - torch.log(-torch.log(uniform))).argmax(-1)


def _left_padded(tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's real tokens moved to the right end, so that every row's next token is at the same place."""
    order = torch.argsort(mask.to(torch.int8), dim=1, stable=True)
    return torch.take_along_dim(tokens, order, 1), torch.take_along_dim(mask, order, 1)


def _last(logits: Tensor, mask: Tensor | None) -> Tensor:
    assert mask is None or bool(mask[:, -1].all())
    return logits[:, -1]


def _absolute(edit: Any, prompt: int) -> int:
    return edit.position % prompt if edit.position < 0 else edit.position


def _moved(edit: Any, prompt: int, first: int) -> Any:
    from dataclasses import replace

    return replace(edit, position=_absolute(edit, prompt) - first)
