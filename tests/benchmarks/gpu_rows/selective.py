"""Rows of the selective scan: Mamba's channels and states."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from gpu_rows.measuring import Options, Reach, Row, Unmeasured, and_backward, input_sets, looks, measure, scanned

from strobe.kernels.selective import SELECTIVE, SelectiveSignals


class Shape(NamedTuple):
    """Channels (twice the model's width) and state size of a released model."""

    name: str
    channels: int
    state: int


SHAPES = (Shape("Mamba 130M", 1536, 16), Shape("Mamba 2.8B", 5120, 16))

# By what, for Mamba 130M and 2.8B. Why: a program walks the tokens of a few channels with the state in registers; at
# batch 1 there are too few of them to fill the card, so that plain PyTorch, which keeps every state of a block of
# tokens in memory, is slower by its bytes: 16 states of 4 bytes, read and written, for 8 bytes of signals. Readers
# share the exponentials, which bound the scan.
PREDICTED = {
    "plain PyTorch / ours": (10.0, 15.0),
    "forward and backward, plain PyTorch / ours": (8.0, 12.0),
    "capture every 256 / plain": (1.05, 1.05),
    "capture every 64 / plain": (1.15, 1.15),
    "capture at 100 / plain": (1.05, 1.05),
    "1 reader / plain": (1.1, 1.1),
    "8 readers / plain": (1.8, 1.8),
    "10 edits / plain": (1.02, 1.02),
}


def rows(options: Options, shapes: tuple[Shape, ...] = SHAPES) -> Iterator[Row | Unmeasured]:
    """Every ratio of each shape at each length."""
    for shape in shapes:
        for time in options.times:
            yield from _of(shape, time, options)


def _of(shape: Shape, time: int, options: Options) -> Iterator[Row | Unmeasured]:
    sets = input_sets(lambda g: inputs(shape, time, options, g), options)
    least = floor(shape, time * options.batch, options)
    size = [s.name for s in SHAPES].index(shape.name)

    def row(what: str, slow: Any, fast: Any, reach: Reach | None = None, *, forward: bool = True) -> Row | Unmeasured:
        return measure(
            options, (shape.name, options.batch, time, what), (slow, fast), sets,
            predicted=PREDICTED[what][size], reach=reach, floor=least if forward else None,
        )  # fmt: skip

    plain, torch_alone = scanned(SELECTIVE, options.backend), scanned(SELECTIVE, "chunked")
    yield row("plain PyTorch / ours", torch_alone, plain)
    both = and_backward(torch_alone), and_backward(plain)
    yield row("forward and backward, plain PyTorch / ours", *both, forward=False)
    for what, asked, reach in looks(time, torch.randn(8, shape.state, device=options.device)):
        yield row(what, scanned(SELECTIVE, options.backend, **asked), plain, reach)


def inputs(shape: Shape, time: int, options: Options, g: torch.Generator) -> SelectiveSignals:
    """Signals in bfloat16 (float32 on a CPU), A in float32 as the models have it."""
    dtype = torch.float32 if options.device == "cpu" else torch.bfloat16

    def normal(size: int) -> torch.Tensor:
        return torch.randn(options.batch, time, size, generator=g, device=options.device)

    A = -torch.arange(1, shape.state + 1, device=options.device).float().repeat(shape.channels, 1)
    delta = 0.1 * torch.nn.functional.softplus(normal(shape.channels))
    x, B, C = normal(shape.channels), normal(shape.state), normal(shape.state)
    return SelectiveSignals(x.to(dtype), delta.to(dtype), B.to(dtype), C.to(dtype), A)


def floor(shape: Shape, tokens: int, options: Options) -> float:
    """Milliseconds that `tokens` tokens of the forward pass cannot go below: x, delta and y in bfloat16 with B and C,
    or an exponential for every entry of the state."""
    moved = 6 * shape.channels + 4 * shape.state
    exponentials = shape.channels * shape.state
    return 1e3 * tokens * max(moved / options.machine.bandwidth, exponentials / options.machine.exponentials)
