"""Training from a carry that is not empty, so that a model meets the states that long inputs lead to.

Buitrago & Gu 2025 (arXiv 2507.02782): a model whose training never showed it such states fails on inputs longer than
training, and a short further training from other initial carries repairs it. Their four ways:

- ``noise``: the memory is N(0, scale^2).
- ``fitted noise``: normal, with the mean and deviation that each head's final memory had in the batch before.
- ``state passing``: the final carry of an unrelated sequence, here of the next row of the batch before.
- ``truncated bptt``: each row goes on from its own final carry, for `concatenated` batches, then starts empty again.

The carry that a batch starts from is a constant: no gradient goes back into the batch before. Which batches make up a
row's concatenated sequence is the data's business; for a task whose sequences are independent they are just the next
ones, and then truncated bptt and state passing differ in the restarts alone.
"""

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

Start = Literal["noise", "fitted noise", "state passing", "truncated bptt"]
STARTS: tuple[Start, ...] = get_args(Start)


class CarriedStart(nn.Module):
    """`model` (a native one, or anything with the state contract), started as `start` says; give it to `train`.

    Called on inputs [batch, time] it returns the model's logits [batch, time, d_vocab]. What is handed on is part of
    its ``state_dict``, so that a stopped run goes on as it was. Only recurrent layers are handed a carry; attention
    starts empty. Raises ValueError for an unknown start, or a model without a recurrent layer.
    """

    def __init__(self, model: Any, start: str, *, scale: float = 1.0, concatenated: int = 12) -> None:
        super().__init__()
        if start not in STARTS:
            raise ValueError(f"the start {start!r} was asked for; there are {', '.join(STARTS)}")
        if not model.mixers:
            raise ValueError(f"{model.model_name} has no recurrent layer, so no carry to start from; train it as it is")
        self.model, self.start, self.scale, self.concatenated = model, start, scale, concatenated
        self._calls = 0
        self._last: dict[str, tuple[Tensor, ...]] = {}

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits, from a carry that is not empty; the final carry is kept for the next call."""
        state = self.model.init_state(inputs.shape[0])
        for name, mixer in self.model.mixers.items():
            state.carries[name] = self._begin(mixer, state.carries[name], self._last.get(name))
        logits, after = self.model(inputs, state, return_type="state")
        self._last = {n: tuple(x.detach() for x in after.carries[n]) for n in self.model.mixers}
        self._calls += 1
        return logits

    def _begin(self, mixer: Any, empty: Any, last: tuple[Tensor, ...] | None) -> Any:
        if self.start == "noise":
            noise = {f: torch.randn_like(getattr(empty, f)) * self.scale for f in [mixer.memory]}
            return empty._replace(**noise)
        if last is None or last[0].shape[0] != empty[0].shape[0]:
            return empty
        if self.start == "state passing":
            return type(empty)(*(x.roll(1, 0) for x in last))
        if self.start == "truncated bptt":
            return empty if self._calls % self.concatenated == 0 else type(empty)(*last)
        memory = last[empty._fields.index(mixer.memory)]
        by_head = memory.flatten(2) if memory.ndim == 4 else memory.flatten(1).unsqueeze(1)
        deviation, mean = torch.std_mean(by_head, dim=(0, 2), keepdim=True, correction=0)
        drawn = (mean + deviation * torch.randn_like(by_head)).reshape(memory.shape)
        return empty._replace(**{mixer.memory: drawn})

    def get_extra_state(self) -> dict[str, Any]:
        """What is handed to the next call."""
        return {"calls": self._calls, "last": {n: list(x) for n, x in self._last.items()}}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take back what `get_extra_state` gave."""
        self._calls = state["calls"]
        self._last = {n: tuple(x) for n, x in state["last"].items()}
