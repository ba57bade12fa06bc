"""Rows of the step kernel: LSTM and sLSTM of 768 channels in heads of 64 and 128."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from gpu_rows.measuring import Options, Reach, Row, Unmeasured, and_backward, input_sets, looks, measure, scanned

from strobe.kernels import family


class Shape(NamedTuple):
    """A cell, its width and how many heads share it."""

    cell: str
    hidden: int
    heads: int

    @property
    def name(self) -> str:
        """As a row has it."""
        return f"{self.cell}, d {self.hidden}, heads of {self.hidden // self.heads}"


SHAPES = tuple(Shape(cell, 768, heads) for cell in ("lstm", "slstm") for heads in (12, 6))
BATCHES = (1, 8, 64)
# A loop over tokens waits for its launches, so that its time a token is the same at every length.
TIMES = (512, 2048)

# By cell and what. Why: a token of the loop is about 20 launches (sLSTM 30) of 5 microseconds; of ours four products of
# 16 rows, dependent on the last token's, taken as 1.5 microseconds; 12 heads are 12 programs, and 64 rows four times
# as many, so that batch and head count for nothing. cuDNN has the dense R of 768 spread over the card: 5 microseconds a
# token. Backwards a loop has twice the launches and autograd's own cost.
PREDICTED = {
    ("lstm", "step loop / ours"): 60.0,
    ("lstm", "forward and backward, step loop / ours"): 80.0,
    ("lstm", "cuDNN with a dense R / ours"): 3.0,
    ("lstm", "forward and backward, cuDNN with a dense R / ours"): 2.5,
    ("slstm", "step loop / ours"): 90.0,
    ("slstm", "forward and backward, step loop / ours"): 120.0,
    ("slstm", "step loop with W x outside / ours"): 75.0,
    ("slstm", "forward and backward, step loop with W x outside / ours"): 100.0,
    "capture every 256 / plain": 1.02,
    "capture every 64 / plain": 1.02,
    "capture at 100 / plain": 1.02,
    "1 reader / plain": 1.02,
    "8 readers / plain": 1.02,
    "10 edits / plain": 1.02,
}
_REACH = {("lstm", "step loop / ours"): Reach(50.0, True)}


def rows(
    options: Options,
    shapes: tuple[Shape, ...] = SHAPES,
    batches: tuple[int, ...] = BATCHES,
    times: tuple[int, ...] = TIMES,
) -> Iterator[Row | Unmeasured]:
    """Every ratio of each shape, batch and length."""
    for shape in shapes:
        for batch in batches:
            for time in times:
                yield from _of(shape, batch, time, options)


def _of(shape: Shape, batch: int, time: int, options: Options) -> Iterator[Row | Unmeasured]:
    it = family(shape.cell)
    sets = input_sets(lambda g: inputs(shape, batch, time, options, g), options)
    least = floor(shape, batch, time, options)

    def row(what: str, slow: Any, fast: Any, reach: Reach | None = None, *, forward: bool = True) -> Row | Unmeasured:
        key = what if what in PREDICTED else (shape.cell, what)
        return measure(
            options, (shape.name, batch, time, what), (slow, fast), sets,
            predicted=PREDICTED[key], reach=_REACH.get(key, reach), floor=least if forward else None,
        )  # fmt: skip

    plain = scanned(it, options.backend)
    # What torch's own kernel runs for an LSTM is for sLSTM a loop with all that can be taken out of it.
    library = "cuDNN with a dense R" if shape.cell == "lstm" else "step loop with W x outside"
    for what, backend in (("step loop", "reference"), (library, "chunked")):
        other = scanned(it, backend)
        yield row(f"{what} / ours", other, plain)
        both = and_backward(other), and_backward(plain)
        yield row(f"forward and backward, {what} / ours", *both, forward=False)
    for what, asked, reach in looks(time, torch.randn(8, shape.hidden, device=options.device)):
        yield row(what, scanned(it, options.backend, **asked), plain, reach)


def inputs(shape: Shape, batch: int, time: int, options: Options, g: torch.Generator) -> Any:
    """Inputs as wide as the cell, and weights of variance 1/fan-in, in bfloat16 (float32 on a CPU)."""
    dtype, dim = torch.float32 if options.device == "cpu" else torch.bfloat16, shape.hidden // shape.heads

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=g, device=options.device)

    W, R = normal(4 * shape.hidden, shape.hidden) * shape.hidden**-0.5, normal(4 * shape.hidden, dim) * dim**-0.5
    x, b = normal(batch, time, shape.hidden), normal(4 * shape.hidden)
    return _signals(shape)(*(y.to(dtype) for y in (x, W, R, b)))


def _signals(shape: Shape) -> Any:
    from strobe.kernels.rnn import LSTMSignals, SLSTMSignals

    return LSTMSignals if shape.cell == "lstm" else SLSTMSignals


def floor(shape: Shape, batch: int, time: int, options: Options) -> float:
    """Milliseconds that the forward pass cannot go below, token by token: one dependent step, the products with R, or
    four gates read and h written in bfloat16. The product with W comes before it and is left out."""
    products = 8 * shape.hidden * (shape.hidden // shape.heads) * batch
    least = max(
        options.machine.step, products / options.machine.flops, 10 * batch * shape.hidden / options.machine.bandwidth
    )
    return 1e3 * time * least
