"""Rows of the chunk kernel: SSD and the gated delta rule at the heads of released models."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from gpu_rows import carried
from gpu_rows.measuring import Options, Reach, Row, Unmeasured, and_backward, input_sets, looks, measure, scanned
from torch.nn.functional import normalize

from strobe.kernels.decay import DECAY, DecaySignals
from strobe.kernels.delta import DELTA, DeltaSignals


class Shape(NamedTuple):
    """Heads of a released model. `groups` share q (and, in `decay`, k)."""

    name: str
    family: Any
    heads: int
    groups: int
    key: int
    value: int


SHAPES = (
    Shape("Mamba-2 130M", DECAY, 24, 1, 128, 64),
    Shape("Mamba-2 2.7B", DECAY, 80, 1, 128, 64),
    Shape("Qwen3-Next", DELTA, 32, 16, 128, 128),
)

# What each ratio should be, by subject. Why: a chunk of the sequential scan is a chain of about six dependent products
# and two reductions, taken as 2 to 3 microseconds whatever the chunk holds, so that at batch 1, with 24 to 128 programs
# on 132 multiprocessors, time is chunks times that at every T; most of fla's passes are parallel over chunks, and at
# small T it waits for its launches. Backwards ours is two such passes, of which one is parallel. A capture costs its
# bytes; a reader one more product of the six, and eight of them pass the tile's width.
PREDICTED = {
    "fla / ours": {"Mamba-2 130M": 0.3, "Mamba-2 2.7B": 0.8, "Qwen3-Next": 0.6},
    "forward and backward, fla / ours": {"Mamba-2 130M": 0.5, "Mamba-2 2.7B": 0.9, "Qwen3-Next": 0.8},
    "plain PyTorch / ours": {"Mamba-2 130M": 5.0, "Mamba-2 2.7B": 4.0, "Qwen3-Next": 15.0},
    "forward and backward, plain PyTorch / ours": {"Mamba-2 130M": 6.0, "Mamba-2 2.7B": 5.0, "Qwen3-Next": 15.0},
    "capture every 256 / plain": {"Mamba-2 130M": 1.05, "Mamba-2 2.7B": 1.05, "Qwen3-Next": 1.05},
    "capture every 64 / plain": {"Mamba-2 130M": 1.2, "Mamba-2 2.7B": 1.2, "Qwen3-Next": 1.2},
    "capture at 100 / plain": {"Mamba-2 130M": 1.03, "Mamba-2 2.7B": 1.03, "Qwen3-Next": 1.03},
    "1 reader / plain": {"Mamba-2 130M": 1.4, "Mamba-2 2.7B": 1.4, "Qwen3-Next": 1.2},
    "8 readers / plain": {"Mamba-2 130M": 4.0, "Mamba-2 2.7B": 4.0, "Qwen3-Next": 2.5},
    "10 edits / plain": {"Mamba-2 130M": 1.02, "Mamba-2 2.7B": 1.02, "Qwen3-Next": 1.02},
}
_NO_SLOWER = Reach(1.0, True)


def rows(options: Options, shapes: tuple[Shape, ...] = SHAPES) -> Iterator[Row | Unmeasured]:
    """Every ratio of each shape at each length."""
    fla = carried.functions(options.fla)
    for shape in shapes:
        for time in options.times:
            yield from _of(shape, time, options, fla)


def _of(shape: Shape, time: int, options: Options, fla: Any) -> Iterator[Row | Unmeasured]:
    sets = input_sets(lambda g: inputs(shape, time, options, g), options)
    least = floor(shape, time * options.batch, options)

    def row(
        what: str, slow: Any, fast: Any, reach: Reach | None = None, *, forward: bool = True, sets: list[Any] = sets
    ) -> Row | Unmeasured:
        return measure(
            options, (shape.name, options.batch, time, what), (slow, fast), sets,
            predicted=PREDICTED[what][shape.name], reach=reach, floor=least if forward else None,
        )  # fmt: skip

    plain = scanned(shape.family, options.backend)
    torch_alone = scanned(shape.family, "chunked")
    if fla is not None:
        other = theirs(shape, fla)
        # Each side is given what it takes: making theirs out of ours is not timed.
        pairs = [(prepared(shape, s), s) for s in sets]
        for what, wrap in (("fla / ours", _as_it_is), ("forward and backward, fla / ours", and_backward)):
            sides = of_pair(wrap(other), 0), of_pair(wrap(plain), 1)
            yield row(what, *sides, _NO_SLOWER, forward=wrap is _as_it_is, sets=pairs)
        del pairs
    yield row("plain PyTorch / ours", torch_alone, plain)
    both = and_backward(torch_alone), and_backward(plain)
    yield row("forward and backward, plain PyTorch / ours", *both, forward=False)
    u = torch.randn(8, shape.heads, shape.key, device=options.device)
    for what, asked, reach in looks(time, u):
        yield row(what, scanned(shape.family, options.backend, **asked), plain, reach)


def inputs(shape: Shape, time: int, options: Options, g: torch.Generator) -> Any:
    """Signals in bfloat16 (float32 on a CPU)."""
    dtype = torch.float32 if options.device == "cpu" else torch.bfloat16

    def normal(heads: int, size: int) -> torch.Tensor:
        return torch.randn(options.batch, time, heads, size, generator=g, device=options.device).to(dtype)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(options.batch, time, *shape, generator=g, device=options.device)

    q, v, decay = normal(shape.groups, shape.key), normal(shape.heads, shape.value), -0.1 * uniform(shape.heads)
    if shape.family is DECAY:
        return DecaySignals(q, normal(shape.groups, shape.key), v, decay)
    b = normalize(normal(shape.heads, shape.key).float(), dim=-1)
    return DeltaSignals(q, (uniform(shape.heads, 1) * b).to(dtype), v, decay, None, b.to(dtype))


class Theirs(NamedTuple):
    """What flash-linear-attention takes: q and k of every head, and beta where it is the delta rule."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    g: torch.Tensor
    beta: torch.Tensor | None


def prepared(shape: Shape, s: Any) -> Theirs:
    """The same problem as `s`. k = beta b with unit b: the rule's beta is the length of k."""
    each = shape.heads // shape.groups
    q = s.q.repeat_interleave(each, 2)
    if shape.family is DECAY:
        return Theirs(q, s.k.repeat_interleave(each, 2), s.v, s.log_decay, None)
    return Theirs(q, s.b, s.v, s.log_decay, s.k.float().norm(dim=-1).to(s.k.dtype))


def theirs(shape: Shape, fla: Any) -> Callable[[Theirs], torch.Tensor]:
    """flash-linear-attention's function for the same recurrence."""
    simple_gla, gated_delta_rule = fla

    def call(s: Theirs) -> torch.Tensor:
        with torch.set_grad_enabled(s.q.requires_grad):
            if shape.family is DECAY:
                return simple_gla(s.q, s.k, s.v, g=s.g, scale=1.0)[0]
            return gated_delta_rule(s.q, s.k, s.v, g=s.g, beta=s.beta, scale=1.0)[0]

    return call


def of_pair(f: Callable[[Any], Any], which: int) -> Callable[[Any], Any]:
    """`f` of one of two inputs."""
    return lambda pair: f(pair[which])


def _as_it_is(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return f


def floor(shape: Shape, tokens: int, options: Options) -> float:
    """Milliseconds that `tokens` tokens of the forward pass cannot go below: bytes moved, or products, in bfloat16.

    Per token and head: signals in and reads out once; the state is read and written by two products, and with the delta
    rule a third; the products inside a chunk are left out.
    """
    moved = 2 * (shape.groups * shape.key * 2 + shape.heads * shape.value * 2) + 4 * shape.heads
    if shape.family is DELTA:
        moved += 2 * shape.heads * shape.key * 2
    products = (2 if shape.family is DECAY else 3) * 2 * shape.heads * shape.key * shape.value
    return 1e3 * tokens * max(moved / options.machine.bandwidth, products / options.machine.flops)
