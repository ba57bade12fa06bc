"""Print the table of the GPU kernels, and write it to BENCHMARKS-GPU.md with ``--write``; needs a CUDA device.

Each row is a ratio whose sides ran by turns in this run, medians over turns, on several sets of inputs that are
together larger than the second-level cache. flash-linear-attention is compared with where it is installed: it is no
dependency.
The predictions were written down before anything was measured, and stay beside what is measured.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn.functional import normalize

from strobe.core.provenance import versions
from strobe.kernels import Edit, scan
from strobe.kernels.decay import DECAY, DecaySignals
from strobe.kernels.delta import DELTA, DeltaSignals

# Bytes of all input sets of a row together; the second-level cache of the largest card at hand is 50 MB.
_BEYOND_CACHE = 200 << 20


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

# What each row's ratio should be, by (shape, T, what); why: a chunk of the sequential scan is a chain of about six
# dependent products and two reductions, taken as 2 to 3 microseconds whatever the chunk holds, so that at batch 1, with
# 24 to 128 programs on 132 multiprocessors, time is chunks times that; most of fla's passes are parallel over chunks.
PREDICTED = {
    ("Mamba-2 130M", 2048, "fla / ours"): 0.4,
    ("Mamba-2 130M", 65536, "fla / ours"): 0.3,
    ("Mamba-2 2.7B", 65536, "fla / ours"): 0.8,
    ("Qwen3-Next", 65536, "fla / ours"): 0.6,
    ("Mamba-2 130M", 2048, "plain PyTorch / ours"): 5.0,
    ("Mamba-2 2.7B", 65536, "plain PyTorch / ours"): 4.0,
    ("Qwen3-Next", 65536, "plain PyTorch / ours"): 15.0,
    ("Mamba-2 130M", 65536, "capture every 256 / plain"): 1.05,
    ("Mamba-2 130M", 65536, "capture every 64 / plain"): 1.2,
    ("Mamba-2 130M", 65536, "capture at 100 / plain"): 1.03,
    ("Mamba-2 130M", 65536, "1 reader / plain"): 1.4,
    ("Mamba-2 130M", 65536, "8 readers / plain"): 4.0,
    ("Mamba-2 130M", 65536, "10 edits / plain"): 1.02,
}


class Row(NamedTuple):
    """One line; `slow` over `fast`, both in milliseconds (medians), with the quartiles of the turn-by-turn ratio."""

    shape: str
    time: int
    what: str
    slow: float
    fast: float
    low: float
    high: float
    floor: float

    def __str__(self) -> str:
        predicted = PREDICTED.get((self.shape, self.time, self.what))
        return (
            f"| {self.shape} | {self.time} | {self.what} | {self.slow:.3f} | {self.fast:.3f} | "
            f"**{self.slow / self.fast:.2f}x** ({self.low:.2f}–{self.high:.2f}) | "
            f"{'' if predicted is None else f'{predicted:g}x'} | {self.floor / self.fast:.0%} |"
        )


def inputs(shape: Shape, time: int, batch: int, seed: int) -> Any:
    """Signals in bfloat16 on the GPU."""
    g = torch.Generator("cuda").manual_seed(seed)

    def normal(heads: int, size: int) -> torch.Tensor:
        return torch.randn(batch, time, heads, size, generator=g, device="cuda").bfloat16()

    q, v = normal(shape.groups, shape.key), normal(shape.heads, shape.value)
    decay = -torch.rand(batch, time, shape.heads, generator=g, device="cuda") * 0.1
    if shape.family is DECAY:
        return DecaySignals(q, normal(shape.groups, shape.key), v, decay)
    b = normalize(normal(shape.heads, shape.key).float(), dim=-1)
    beta = torch.rand(batch, time, shape.heads, 1, generator=g, device="cuda")
    return DeltaSignals(q, (beta * b).bfloat16(), v, decay, None, b.bfloat16())


def input_sets(shape: Shape, time: int, batch: int) -> list[Any]:
    """As many sets of inputs as do not fit in the cache together, two at least."""
    first = inputs(shape, time, batch, 0)
    size = sum(x.numel() * x.element_size() for x in first if x is not None)
    return [first, *(inputs(shape, time, batch, seed) for seed in range(1, max(2, -(-_BEYOND_CACHE // size))))]


def compare(a: Callable[[Any], Any], b: Callable[[Any], Any], sets: list[Any], turns: int) -> tuple[float, ...]:
    """Milliseconds of `a` and of `b`, medians, and the quartiles of their ratio turn by turn."""
    for signals in sets[:2]:
        a(signals)
        b(signals)
    pairs = [(_milliseconds(a, sets[i % len(sets)]), _milliseconds(b, sets[i % len(sets)])) for i in range(turns)]
    slow, fast = (statistics.median(column) for column in zip(*pairs, strict=True))
    low, _, high = statistics.quantiles([x / y for x, y in pairs], n=4)
    return slow, fast, low, high


def _milliseconds(f: Callable[[Any], Any], signals: Any) -> float:
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    f(signals)
    stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop)


def floor(shape: Shape, tokens: int, bandwidth: float, flops: float) -> float:
    """Milliseconds that `tokens` tokens of the forward pass cannot go below: bytes moved, or products, in bfloat16.

    `bandwidth` in bytes a second, `flops` a second. Per token and head: signals in and reads out once; the state is
    read and written by two products, and with the delta rule a third; the products inside a chunk are left out.
    """
    moved = 2 * (shape.groups * shape.key * 2 + shape.heads * shape.value * 2) + 4 * shape.heads
    if shape.family is DELTA:
        moved += 2 * shape.heads * shape.key * 2
    products = (2 if shape.family is DECAY else 3) * 2 * shape.heads * shape.key * shape.value
    return 1e3 * tokens * max(moved / bandwidth, products / flops)


def rows(shape: Shape, time: int, batch: int, turns: int, bandwidth: float, flops: float) -> Iterator[Row]:
    """Every ratio of one shape at one length."""
    sets = input_sets(shape, time, batch)
    least = floor(shape, time * batch, bandwidth, flops)

    def row(what: str, slow: Callable[[Any], Any], fast: Callable[[Any], Any]) -> Row:
        return Row(shape.name, time, what, *compare(slow, fast, sets, turns), least)

    plain = ours(shape)
    fla = theirs(shape)
    if fla is not None:
        yield row("fla / ours", fla, plain)
        yield row("forward and backward, fla / ours", and_backward(fla), and_backward(plain))
    yield row("plain PyTorch / ours", ours(shape, backend="chunked"), plain)
    for what, asked in looks(shape, time).items():
        yield row(f"{what} / plain", ours(shape, **asked), plain)


def looks(shape: Shape, time: int) -> dict[str, dict[str, Any]]:
    """What is asked on the way, by name: arguments of `scan`."""
    u = torch.randn(8, shape.heads, shape.key, device="cuda")
    edits = [Edit(position=i * time // 11, kind="scale", value=0.5) for i in range(1, 11)]
    return {
        "capture every 256": {"capture": slice(255, None, 256)},
        "capture every 64": {"capture": slice(63, None, 64)},
        "capture at 100": {"capture": [i * time // 101 + i % 7 for i in range(100)]},
        "1 reader": {"readers": u[:1]},
        "8 readers": {"readers": u},
        "10 edits": {"edits": edits},
    }


def ours(shape: Shape, backend: str = "triton", **asked: Any) -> Callable[[Any], torch.Tensor]:
    """Our scan of signals, as a function of them."""

    def call(signals: Any) -> torch.Tensor:
        with torch.set_grad_enabled(signals.v.requires_grad):
            return scan(shape.family, signals, backend=backend, **asked).read

    return call


def theirs(shape: Shape) -> Callable[[Any], torch.Tensor] | None:
    """flash-linear-attention's function for the same recurrence; None where it is not installed."""
    try:
        from fla.ops.gated_delta_rule import chunk_gated_delta_rule
        from fla.ops.simple_gla import chunk_simple_gla
    except ImportError:
        return None
    each = shape.heads // shape.groups

    def decay(s: Any) -> torch.Tensor:
        q, k = (x.repeat_interleave(each, 2) for x in (s.q, s.k))
        return chunk_simple_gla(q, k, s.v, g=s.log_decay, scale=1.0)[0]

    def delta(s: Any) -> torch.Tensor:
        # k = beta b with unit b: the rule's beta is the length of k.
        beta = s.k.float().norm(dim=-1).to(s.k.dtype)
        q = s.q.repeat_interleave(each, 2)
        return chunk_gated_delta_rule(q, s.b, s.v, g=s.log_decay, beta=beta, scale=1.0)[0]

    return decay if shape.family is DECAY else delta


def and_backward(f: Callable[[Any], torch.Tensor]) -> Callable[[Any], Any]:
    """`f` and the gradients of the sum of what it returns."""

    def call(signals: Any) -> Any:
        leaves = type(signals)(*(None if x is None else x.detach().requires_grad_() for x in signals))
        return torch.autograd.grad(f(leaves).float().sum(), [x for x in leaves if x is not None])

    return call


def main() -> None:
    """Measure what was asked for, print it, write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write BENCHMARKS-GPU.md")
    parser.add_argument("--times", type=int, nargs="+", default=[2048, 8192, 32768, 65536])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument(
        "--bandwidth", type=float, default=4.3e12, help="bytes a second (default: an H200's, estimated)"
    )
    parser.add_argument("--flops", type=float, default=790e12, help="bfloat16 a second (default: an H200's, estimated)")
    parser.add_argument("--commit", default="not given", help="what was measured")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("this measures a GPU, and there is no CUDA device here; `make bench` measures the CPU")
    lines = [
        "| heads of | T | what | first, ms | second, ms | ratio (quartiles) | predicted | forward floor / second |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for shape in SHAPES:
        for time in options.times:
            for row in rows(shape, time, options.batch, options.turns, options.bandwidth, options.flops):
                lines.append(str(row))
                print(row, flush=True)
    if options.write:
        used = ", ".join(f"{name} {version}" for name, version in versions().items())
        head = (
            f"# GPU benchmarks\n\nWhat `tests/benchmarks/gpu.py` printed on one {torch.cuda.get_device_name()}, batch "
            f"{options.batch}, at commit {options.commit}. Predictions were written before anything was measured.\n\n"
        )
        Path("BENCHMARKS-GPU.md").write_text(head + "\n".join(lines) + f"\n\nVersions: {used}.\n", encoding="utf-8")


if __name__ == "__main__":
    main()
