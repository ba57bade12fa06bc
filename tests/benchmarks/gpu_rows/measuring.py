"""What the rows of the GPU table share: two sides timed by turns, the line they make, and what a card can do at most.

Everything here also runs on a CPU, where the clock is the wall's and the figures mean nothing: so that a test can run
every row at a tiny size, and the table does not stop at a slip of the pen on the day that there is a GPU.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from strobe.kernels import Edit, scan

# Turns of a pair that takes longer than this many seconds: three are enough to see what is an order of magnitude.
_SLOW, _FEW = 0.5, 3


class Machine(NamedTuple):
    """What a card cannot exceed: bytes and bfloat16 operations a second, exponentials a second, and the seconds that
    one dependent step takes inside one multiprocessor. Defaults: an H200's, estimated."""

    bandwidth: float = 4.3e12
    flops: float = 790e12
    exponentials: float = 3.7e12
    step: float = 0.5e-6


class Options(NamedTuple):
    """How to measure. `backend` is the one that is "ours"; `cache` the bytes that a row's input sets exceed together;
    `fla` the folder that flash-linear-attention is carried in."""

    device: str = "cuda"
    backend: str = "triton"
    times: tuple[int, ...] = (2048, 8192, 32768, 65536)
    batch: int = 1
    turns: int = 15
    cache: int = 200 << 20
    machine: Machine = Machine()
    fla: str | None = None


class Reach(NamedTuple):
    """What a ratio should come to: `at_least` or at most `ratio`."""

    ratio: float
    at_least: bool

    def met(self, ratio: float) -> bool:
        """Whether `ratio` does."""
        return ratio >= self.ratio if self.at_least else ratio <= self.ratio

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.ratio:g}x"


class Row(NamedTuple):
    """One line: `slow` over `fast`, milliseconds (medians over `turns`), with the quartiles of the ratio by turns.

    `floor`: milliseconds that the second side cannot go below, None where there is no such figure.
    """

    subject: str
    batch: int
    time: int
    what: str
    slow: float
    fast: float
    low: float
    high: float
    turns: int
    floor: float | None
    predicted: float
    reach: Reach | None

    def __str__(self) -> str:
        ratio = self.slow / self.fast
        wanted = "|" if self.reach is None else f" {self.reach} | {'yes' if self.reach.met(ratio) else 'no'}"
        share = "" if self.floor is None else f"{self.floor / self.fast:.0%}"
        return (
            f"| {self.subject} | {self.batch} | {self.time} | {self.what} | {self.slow:.3f} | {self.fast:.3f} | "
            f"**{ratio:.2f}x** ({self.low:.2f}–{self.high:.2f}; {self.turns}) | {self.predicted:g}x |{wanted} | "
            f"{share} |"
        )


class Unmeasured(NamedTuple):
    """A line for what could not be measured, and why."""

    subject: str
    batch: int
    time: int
    what: str
    why: str

    def __str__(self) -> str:
        return f"| {self.subject} | {self.batch} | {self.time} | {self.what} | not measured: {self.why} | | | | | | |"


HEAD = (
    "| what runs | batch | T | first / second | first, ms | second, ms | ratio (quartiles; turns) | predicted | "
    "reach | met | floor / second |"
)


def measure(
    options: Options,
    named: tuple[str, int, int, str],
    sides: tuple[Callable[[Any], Any], Callable[[Any], Any]],
    sets: list[Any],
    *,
    predicted: float,
    reach: Reach | None = None,
    floor: float | None = None,
) -> Row | Unmeasured:
    """The row `named` (subject, batch, time, what) of the first of `sides` over the second, each a function of one of
    the input `sets`."""
    try:
        slow, fast, low, high, turns = compare(*sides, sets, options)
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return Unmeasured(*named, "out of memory")
    return Row(*named, slow, fast, low, high, turns, floor, predicted, reach)


def compare(
    a: Callable[[Any], Any], b: Callable[[Any], Any], sets: list[Any], options: Options
) -> tuple[float, float, float, float, int]:
    """Milliseconds of `a` and of `b` (medians), the quartiles of their ratio turn by turn, and how many turns."""
    for given in sets[:2]:
        a(given)
        b(given)
    first = [_milliseconds(f, sets[0], options.device) for f in (a, b)]
    turns = options.turns if sum(first) < 1e3 * _SLOW else min(_FEW, options.turns)
    pairs = [[_milliseconds(f, sets[i % len(sets)], options.device) for f in (a, b)] for i in range(turns)]
    slow, fast = (statistics.median(column) for column in zip(*pairs, strict=True))
    low, _, high = statistics.quantiles([x / y for x, y in pairs], n=4)
    return slow, fast, low, high, turns


def _milliseconds(f: Callable[[Any], Any], given: Any, device: str) -> float:
    if device == "cpu":
        begin = time.perf_counter()
        f(given)
        return 1e3 * (time.perf_counter() - begin)
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    f(given)
    stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop)


def input_sets(make: Callable[[torch.Generator], Any], options: Options) -> list[Any]:
    """As many sets of inputs as exceed the cache together, two at least; `make` draws one on the device."""
    generator = torch.Generator(options.device).manual_seed(0)
    first = make(generator)
    size = sum(x.numel() * x.element_size() for x in first if x is not None)
    return [first, *(make(generator) for _ in range(1, max(2, -(-options.cache // size))))]


def scanned(family: Any, backend: str, **asked: Any) -> Callable[[Any], torch.Tensor]:
    """The scan of signals, as a function of them."""

    def call(signals: Any) -> torch.Tensor:
        with torch.set_grad_enabled(signals[0].requires_grad):
            return scan(family, signals, backend=backend, **asked).read

    return call


def and_backward(f: Callable[[Any], torch.Tensor]) -> Callable[[Any], Any]:
    """`f` and the gradients of the sum of what it returns."""

    def call(signals: Any) -> Any:
        leaves = type(signals)(*(None if x is None else x.detach().requires_grad_() for x in signals))
        return torch.autograd.grad(f(leaves).float().sum(), [x for x in leaves if x is not None])

    return call


def looks(time: int, readers: torch.Tensor) -> Iterator[tuple[str, dict[str, Any], Reach | None]]:
    """What is asked on the way: its name, the arguments of `scan`, and what it may cost. `readers` holds eight."""
    edits = [Edit(position=i * time // 11, kind="scale", value=0.5) for i in range(1, 11)]
    spread = [min(i * time // 101 + i % 7, time - 1) for i in range(100)]
    yield "capture every 256 / plain", {"capture": slice(255, None, 256)}, Reach(1.1, False)
    yield "capture every 64 / plain", {"capture": slice(63, None, 64)}, None
    yield "capture at 100 / plain", {"capture": spread}, Reach(1.1, False)
    yield "1 reader / plain", {"readers": readers[:1]}, Reach(1.3, False)
    yield "8 readers / plain", {"readers": readers}, None
    yield "10 edits / plain", {"edits": edits}, None
