"""Sweeps a steering vector over layers and multipliers, with fluency guards and random directions as control.

As Paulo et al. do, the prompt is run up to its last token, once; then a residual vector is added at the last token, and
a vector of the carry to the carry that the last token starts from. All settings of a question go on together from
copies of that state, as rows of one batch.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from strobe.models.generation import sample
from strobe.models.state import ModelState
from strobe.probes.partial import keeping
from strobe.probes.provenance import provenance_of
from strobe.probes.steering.apply import change
from strobe.probes.steering.questions import Asked, Question, ask
from strobe.probes.steering.sweep_result import SteeringSweep
from strobe.probes.steering.vector import SteeringVector, carry_field, is_carry, layer_of

Tick = Callable[[int, int, str], None]
MULTIPLIERS = (-3.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 3.0)
# Settings that run at once: each has a copy of the state.
_ROWS = 288


@dataclass(frozen=True)
class _Setting:
    """One row of the batch: which direction, where it goes in the result, and how much of it."""

    vector: SteeringVector
    place: tuple[int, int, int, int]
    layer: int
    multiplier: float


def steering_sweep(
    model: Any,
    vectors: SteeringVector | Mapping[str, SteeringVector],
    questions: Sequence[Question],
    *,
    layers: Iterable[int] | None = None,
    multipliers: Sequence[float | int] = MULTIPLIERS,
    labels: tuple[str, str] = ("positive", "negative"),
    n_random: int = 3,
    n_continued: int = 8,
    continuation: int = 12,
    temperature: float = 0.7,
    n_bootstrap: int = 1000,
    seed: int = 0,
    progress: Tick | None = None,
    partial: Callable[[SteeringSweep], None] | None = None,
) -> SteeringSweep:
    """What `vectors` (by name, as "residual" or "state") do to the answers of `questions`, one layer at a time.

    `layers`: None for all that any vector has. `n_random`: random directions of equal norm, drawn for each vector and
    layer. The first `n_continued` questions are continued by `continuation` sampled tokens (all settings share their
    noise): a residual vector then goes on being added at every new token, an edit of the carry is made once and
    propagates; the unsteered model's perplexity of what came out is the guard. `labels`: positive and negative side.

    Questions are asked one after another, each of every layer and multiplier. Where `progress` raises, `partial` is
    given the sweep over the questions that were finished, if any.

    Raises ValueError for a vector of another model, no question or multiplier, fewer than one random direction, or a
    layer that no vector has.
    """
    named = {"vector": vectors} if isinstance(vectors, SteeringVector) else dict(vectors)
    if not named or not len(multipliers) or not np.isfinite(multipliers).all() or n_random < 1:
        raise ValueError(
            f"{len(named)} vectors, multipliers {list(multipliers)}, {n_random} random directions: give one of each "
            "at least, and finite multipliers. A sweep without its control is not finished"
        )
    for vector in named.values():
        vector.check(model)
    have = sorted({layer for v in named.values() for layer in v.layers})
    wanted = have if layers is None else sorted(set(layers))
    if missing := sorted(set(wanted) - set(have)):
        raise ValueError(f"layers {missing} were asked for; the vectors have {', '.join(map(str, have))}")
    settings = _settings(named, wanted, multipliers, n_random, seed)
    asked = ask(model, questions)
    n_continued = min(n_continued, len(asked)) if continuation > 0 else 0
    shape = (len(named), 1 + n_random, len(wanted), len(multipliers))
    sizes = {"behaviour": len(asked), "outside": len(asked), "kl": len(asked), "log_perplexity": n_continued}
    found = {name: np.full((*shape, size), np.nan) for name, size in sizes.items()}
    base = {name: np.full(size, np.nan) for name, size in sizes.items()}
    chosen = {
        "layers": wanted, "multipliers": list(map(float, multipliers)), "n_continued": n_continued,
        "continuation": continuation, "temperature": temperature, "n_questions": len(asked),
        "vectors": {n: {k: v.header()[k] for k in ("point", "method", "norm", "selector")} for n, v in named.items()},
    }  # fmt: skip

    def finished(n: int) -> SteeringSweep:
        return SteeringSweep(
            vectors=tuple(named),
            layers=tuple(wanted),
            multipliers=np.array(multipliers, dtype=float),
            **{name: values[..., :n] for name, values in found.items()},
            **{f"base_{name}": values[:n] for name, values in base.items() if name != "kl"},
            norms=np.array([[_norm(v, layer) for layer in wanted] for v in named.values()]),
            labels=labels,
            n_bootstrap=n_bootstrap,
            provenance=provenance_of(
                model, seed=seed, settings=chosen, control=f"random directions of equal norm, {n_random} draws"
            ),
        )

    tick = keeping(progress, partial, lambda: finished(i) if i else None)
    for i, question in enumerate(asked):
        tick(i, len(asked), "asking every layer and multiplier")
        ids = question.ids.to(next(model.parameters()).device)[None]
        prefix = model.state_after(ids[:, :-1])
        for first in range(0, len(settings), _ROWS):
            batch = _Batch(model, settings[first : first + _ROWS], ids, prefix)
            numbers = batch.answers(question)
            if i < n_continued:
                numbers["log_perplexity"] = batch.perplexity(continuation, temperature, seed + i)
            places = tuple(np.array([s.place for s in batch.settings]).T)
            for name, values in numbers.items():
                base[name][i] = values[0]
                found[name][(*places, i)] = values[1:]
    return finished(len(asked))


def _settings(
    named: Mapping[str, SteeringVector], layers: list[int], multipliers: Sequence[float | int], n_random: int, seed: int
) -> list[_Setting]:
    settings = []
    for v, vector in enumerate(named.values()):
        for draw in range(1 + n_random):
            drawn = vector if draw == 0 else vector.random(seed * 1000 + draw)
            settings += [
                _Setting(drawn.only([layer]), (v, draw, at, m), layer, float(multiplier))
                for at, layer in enumerate(layers)
                if layer in vector.layers
                for m, multiplier in enumerate(multipliers)
            ]
    return settings


class _Batch:
    """All settings of one question: row 0 is unsteered, row 1 + i is `settings[i]`."""

    def __init__(self, model: Any, settings: list[_Setting], ids: Tensor, prefix: ModelState) -> None:
        self.model, self.settings, self.ids = model, settings, ids
        self.logits, self.state = self._run(self.ids[:, -1:].expand(1 + len(settings), -1), self._edited(prefix))

    def answers(self, question: Asked) -> dict[str, np.ndarray]:
        """ "behaviour", "outside" and "kl" of every row, in float64."""
        log_p = self.logits[:, -1].double().log_softmax(-1)
        p = log_p.exp()
        matching, other = p[:, question.matching], p[:, question.other]
        kl = (p[:1] * (log_p[:1] - log_p)).sum(-1)
        numbers = {"behaviour": matching / (matching + other), "outside": 1 - matching - other, "kl": kl}
        return {name: value.cpu().numpy() for name, value in numbers.items()}

    def perplexity(self, n_tokens: int, temperature: float, seed: int) -> np.ndarray:
        """Nats per token of each row's continuation under the unsteered model."""
        rows, logits, state, drawn = len(self.logits), self.logits, self.state, []
        for i in range(n_tokens):
            # One draw of noise for all rows: settings that agree go on alike.
            noise = torch.Generator(device="cpu").manual_seed(seed * 7919 + i)
            new = _sample_alike(logits[:, -1], noise, temperature)
            drawn.append(new)
            if i < n_tokens - 1:
                logits, state = self._run(new[:, None], state)
        whole = torch.cat([self.ids.expand(rows, -1), torch.stack(drawn, 1)], 1)
        with torch.no_grad():
            log_p = self.model(whole[:, :-1])[:, -n_tokens:].double().log_softmax(-1)
        return -log_p.gather(-1, whole[:, -n_tokens:, None]).mean((1, 2)).cpu().numpy()

    def _run(self, tokens: Tensor, state: ModelState) -> tuple[Tensor, ModelState]:
        with torch.no_grad():
            return self.model.run_with_hooks(tokens, fwd_hooks=self._hooks(), state=state, return_type="state")

    def _hooks(self) -> list[tuple[str, Callable[..., Any]]]:
        names = {n for s in self.settings for n in s.vector.directions if not is_carry(n)}
        return [(name, self._hook(name)) for name in sorted(names)]

    def _hook(self, name: str) -> Callable[..., Tensor]:
        rows = [(1 + i, s) for i, s in enumerate(self.settings) if name in s.vector.directions]

        def steer(x: Tensor, hook: Any) -> Tensor:
            x = x.clone()
            for at, directions, multipliers in _by_operation(rows, name, x):
                index, operation = at
                x[index] = change(x[index], directions[:, None], multipliers[:, None], operation, directions.ndim - 1)
            return x

        return steer

    def _edited(self, prefix: ModelState) -> ModelState:
        """The state after the prefix, a row for each setting, with the carries of those that steer one changed."""
        n = 1 + len(self.settings)
        carries = {k: type(c)(*(x.repeat_interleave(n, 0) for x in c)) for k, c in prefix.carries.items()}
        names = {name for s in self.settings for name in s.vector.directions if is_carry(name)}
        for name in sorted(names):
            rows = [(1 + i, s) for i, s in enumerate(self.settings) if name in s.vector.directions]
            key, field = f"blocks.{layer_of(name)}.mixer", carry_field(name)
            x = getattr(carries[key], field).clone()
            for at, directions, multipliers in _by_operation(rows, name, x):
                index, operation = at
                x[index] = change(x[index], directions, multipliers, operation, directions.ndim - 1)
            carries[key] = carries[key]._replace(**{field: x})
        return replace(prefix, carries=carries)


def _by_operation(rows: list[tuple[int, _Setting]], name: str, like: Tensor) -> list[Any]:
    """((row indices, operation), directions [rows, ...], multipliers [rows, 1, ...]) for each operation."""
    groups: dict[Any, list[tuple[int, _Setting]]] = {}
    for row, setting in rows:
        # A multiplier of 0 leaves the row as it is, to the bit.
        if setting.multiplier != 0 or setting.vector.operation == "replace":
            groups.setdefault(setting.vector.operation, []).append((row, setting))
    found = []
    for operation, members in groups.items():
        index = torch.tensor([row for row, _ in members], device=like.device)
        directions = torch.stack([s.vector.directions[name] for _, s in members]).to(like)
        multipliers = torch.tensor([s.multiplier for _, s in members]).to(like)
        found.append(((index, operation), directions, multipliers.view(-1, *(1,) * (directions.ndim - 1))))
    return found


def _sample_alike(logits: Tensor, noise: torch.Generator, temperature: float) -> Tensor:
    """One token a row, all rows with the noise of one."""
    if temperature == 0:
        return sample(logits, noise, 0.0)
    uniform = torch.rand(logits.shape[-1], generator=noise).clamp_min(torch.finfo(torch.float32).tiny)
    return (logits.float() / temperature - torch.log(-torch.log(uniform)).to(logits.device)).argmax(-1)


def _norm(vector: SteeringVector, layer: int) -> float:
    """Euclidean norm of everything that `vector` has at `layer`; NaN where that is nothing."""
    sizes = [size for name, size in vector.norms.items() if layer_of(name) == layer]
    return float(np.sqrt(np.sum(np.square(sizes)))) if sizes else float("nan")
