"""`block_recurrence`: how well k shared blocks, each applied several times, retrace a model's own path through depth.

After Raptor (arXiv:2512.19941): one block a phase, trained to follow the teacher's residual stream, teacher-forced at
first and on its own states later. Left out: the depth-scale network, the fine-tuning on labels. Ours: contiguous
phases by dynamic programming, the blocks' own architecture and weights as a start, the loss's unit, both controls.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from strobe.core import hook_names
from strobe.probes.depth.dynamics import depth_dynamics
from strobe.probes.depth.phases import phases
from strobe.probes.depth.surrogate_result import BlockRecurrence
from strobe.probes.depth.tying import kinds, tied_copy
from strobe.probes.geometry.sequences import Sequences, library_sequences, sequences_of
from strobe.probes.lens.readout import evaluating, residuals
from strobe.probes.partial import keeping
from strobe.probes.provenance import provenance_of

Tick = Callable[[int, int, str], None]
_POINTS = 8
_CONTROL = (
    "the same number of shared blocks, of the same sizes and trained alike, whose members are drawn at random instead "
    "of following each other; a loss of 1 is each depth's mean state"
)


class _Fit(NamedTuple):
    """Held-out figures of one surrogate; `loss` and `kl` at each point of the training."""

    loss: list[float]
    kl: list[float]
    by_layer: list[float]


def block_recurrence(
    model: Any,
    tokens: Any = None,
    *,
    k: Sequence[int] = (1, 2),
    steps: int = 200,
    batch: int = 8,
    context: int = 64,
    n_rows: int = 128,
    n_held_out: int = 16,
    rate: float = 1e-3,
    seed: int = 0,
    progress: Tick | None = None,
    partial: Callable[[BlockRecurrence], None] | None = None,
) -> BlockRecurrence:
    """Surrogates of `k` shared blocks for each entry of `k`, fitted to `model`'s residual stream, beside their control.

    `tokens`: as `depth_dynamics`; None for `n_rows` rows of held-out library files. The last `n_held_out` rows' files
    judge. Trained by AdamW at `rate`, falling to zero over `steps`; teacher-forced with a probability that falls from 1
    to 0 over the first half. Where `progress` raises, `partial` is given the surrogates whose control was trained too,
    if any. A copy is trained, never `model`. Raises ValueError for a `k` that is not possible, or too few rows.
    """
    n = model.cfg.n_layers
    if min(steps, batch, n_held_out) < 1 or not k:
        raise ValueError(
            f"{steps} steps of {batch} rows, {n_held_out} to judge by, k {list(k)}: give one of each at least"
        )
    given = library_sequences(model, n_rows, context, seed) if tokens is None else sequences_of(model, tokens, context)
    fit, judge = given.split(n_held_out)
    similarity = depth_dynamics(model, fit, seed=seed).similarity("state")
    found: list[tuple[tuple[int, ...], tuple[int, ...] | None, _Fit, _Fit | None]] = []
    own = [phases(similarity, count, kinds(model)).assignment(n) for count in k]
    drawn = [_shuffled(a, kinds(model), seed) for a in own]
    total = steps * sum(1 + (d is not None) for d in drawn)
    settings = {
        "k": list(k), "steps": steps, "batch": batch, "context": given.rows.shape[1], "rows": len(fit),
        "held_out": len(judge), "rate": rate, "tokens": "library" if tokens is None else "given",
    }  # fmt: skip

    def result() -> BlockRecurrence:
        return _result(found, n, steps, provenance_of(model, seed=seed, settings=settings, control=_CONTROL))

    done, tick = 0, keeping(progress, partial, lambda: result() if found else None)
    with evaluating(model):
        for assignment, other in zip(own, drawn, strict=True):
            fits: list[_Fit | None] = []
            for members in (assignment, other):
                if members is None:
                    fits.append(None)
                    continue
                say = _ticker(tick, done, total, members is other, len(set(assignment)))
                fits.append(_fitted(model, members, fit, judge, steps, batch, rate, seed, say))
                done += steps
            assert fits[0] is not None
            found.append((assignment, other, fits[0], fits[1]))
    return result()


def _shuffled(assignment: tuple[int, ...], of: tuple[int, ...], seed: int) -> tuple[int, ...] | None:
    """The same groups with members drawn at random among blocks of their kind; None where no other drawing exists."""
    rng = np.random.default_rng(seed)
    for _ in range(100):
        drawn = np.array(assignment)
        for kind in set(of):
            at = np.flatnonzero(np.array(of) == kind)
            drawn[at] = drawn[rng.permutation(at)]
        # Names of groups do not matter: told apart by who is with whom.
        if any((drawn[i] == drawn[j]) != (assignment[i] == assignment[j]) for i in range(len(drawn)) for j in range(i)):
            return tuple(drawn.tolist())
    return None


def _fitted(
    model: Any, assignment: tuple[int, ...], fit: Sequences, judge: Sequences, steps: int, batch: int, rate: float,
    seed: int, say: Callable[[int], None],
) -> _Fit:  # fmt: skip
    """Train the surrogate of `assignment` and judge it at evenly spaced steps."""
    student, shared = tied_copy(model, assignment)
    student.eval()
    optimizer = torch.optim.AdamW(shared, lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    rng = np.random.default_rng(seed)
    at = set(points(steps))
    out = _Fit([], [], [])
    held = [torch.from_numpy(part) for part in np.array_split(judge.rows, max(1, len(judge) // batch))]
    for step in range(steps + 1):
        if step in at:
            loss, kl, by_layer = _judged(model, student, held)
            out.loss.append(loss)
            out.kl.append(kl)
            out.by_layer[:] = by_layer
        if step == steps:
            break
        say(step)
        rows = torch.from_numpy(fit.rows[rng.integers(len(fit), size=batch)])
        forced = rng.random() < 1 - 2 * step / steps
        _, teacher = residuals(model, rows)
        with torch.enable_grad():
            _, path = _path(student, rows, teacher if forced else None)
            objective = _unexplained(path, teacher).mean()
            optimizer.zero_grad()
            objective.backward()
        torch.nn.utils.clip_grad_norm_(shared, 1.0)
        optimizer.step()
        schedule.step()
    return out


def _path(student: Any, rows: Tensor, teacher: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
    """(logits, states after each block); where `teacher` is given, each block starts from the teacher's state."""
    n, after = student.cfg.n_layers, dict[int, Tensor]()

    def keep(layer: int) -> Any:
        return lambda x, hook: after.__setitem__(layer, x)

    hooks = [(hook_names.resid_post(i), keep(i)) for i in range(n)]
    forced = [] if teacher is None else list(enumerate(teacher))[1:n]
    hooks += [(hook_names.resid_pre(i), lambda x, hook, h=h: h.to(x)) for i, h in forced]
    logits = student.run_with_hooks(rows.to(next(student.parameters()).device), fwd_hooks=hooks, check=False)
    return logits, [after[i] for i in range(n)]


def _unexplained(path: list[Tensor], teacher: list[Tensor]) -> Tensor:
    """[block]: the squares of what is missed over the scatter of the teacher's states, without position 0."""
    shares = []
    for x, wanted in zip(path, teacher[1:], strict=True):
        x, wanted = x[:, 1:].flatten(0, 1), wanted[:, 1:].flatten(0, 1)
        shares.append((x - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum())
    return torch.stack(shares)


@torch.no_grad()
def _judged(model: Any, student: Any, held: list[Tensor]) -> tuple[float, float, list[float]]:
    """(mean loss over blocks, KL(model || surrogate) in nats per token, loss of each block), on its own states."""
    shares, kls, weights = [], [], []
    for rows in held:
        logits, teacher = residuals(model, rows)
        found, path = _path(student, rows, None)
        shares.append(_unexplained(path, teacher).double())
        log_p, log_q = (x[:, 1:].double().log_softmax(-1) for x in (logits, found))
        kls.append((log_p.exp() * (log_p - log_q)).sum(-1).mean())
        weights.append(float(len(rows)))
    weight = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    by_layer = (torch.stack(shares).cpu() * weight[:, None]).sum(0)
    return float(by_layer.mean()), float((torch.stack(kls).cpu() * weight).sum()), by_layer.tolist()


def points(steps: int) -> list[int]:
    """The steps before which a surrogate is judged: 0, `steps`, and a few between."""
    return sorted({round(i * steps / (_POINTS - 1)) for i in range(_POINTS)})


def _ticker(progress: Tick, before: int, total: int, control: bool, count: int) -> Callable[[int], None]:
    what = f"{count} shared block{'s' if count > 1 else ''}{', drawn at random' if control else ''}"
    return lambda step: progress(before + step, total, what)


def _result(found: list[Any], n: int, steps: int, provenance: Any) -> BlockRecurrence:
    at = points(steps)

    def both(name: str, size: int) -> np.ndarray:
        nothing = [np.nan] * size
        pairs = [(own, other) for _, _, own, other in found]
        return np.array([[nothing if f is None else getattr(f, name) for f in pair] for pair in pairs])

    return BlockRecurrence(
        k=tuple(len(set(a)) for a, _, _, _ in found),
        assignments=tuple(a for a, _, _, _ in found),
        control_assignments=tuple(a or () for _, a, _, _ in found),
        steps=np.array(at),
        loss=both("loss", len(at)),
        kl=both("kl", len(at)),
        block_loss=both("by_layer", n),
        provenance=provenance,
    )
