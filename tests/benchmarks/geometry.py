"""Layer-update geometry against the plain forward, and against the number of layers: time and memory."""

import tracemalloc
from typing import Any

import numpy as np
import torch
from timing import compare

import strobe
from strobe.models import HookedLM, ModelConfig
from strobe.probes.depth import depth_dynamics
from strobe.probes.geometry import layer_geometry, library_sequences


def section(
    models: tuple[str, ...] = ("transformer-python", "mamba2-python"), n_bank: int = 4096, turns: int = 3
) -> str:
    """A Markdown section: each analysis as a multiple of a plain forward over the tokens that it reads."""
    torch.set_num_threads(1)
    lines = [
        "## Layer-update geometry and depth as time",
        "",
        "Median CPU seconds on one thread, by turns with a plain forward over the same tokens.",
        "",
        "| model | what | tokens | analysis | forward | ratio (quartiles) |",
        "|---|---|---|---|---|---|",
    ]
    for name in models:
        model = strobe.load(name)
        lines += [_row(model, name, what, f, rows, turns) for what, f, rows in _cases(model, n_bank)]
    counts = (4, 8, 16)
    peaks = [_peak(n) for n in counts]
    lines += [
        "",
        "Peak of Python's and numpy's memory over a run, and torch tensors of the bank alive at once, by layers:",
        "",
        "| layers | " + " | ".join(map(str, counts)) + " |",
        "|---|" + "---|" * len(counts),
        "| peak, MB | " + " | ".join(f"{peak / 1e6:.1f}" for peak in peaks) + " |",
    ]
    return "\n".join(lines) + "\n"


def _cases(model: Any, n_bank: int) -> list[tuple[str, Any, np.ndarray]]:
    sequences = library_sequences(model, -(-n_bank // 63) + 64, 64)
    few = library_sequences(model, 32, 64)
    return [
        ("geometry, every map and control", lambda: layer_geometry(model, sequences, n_bank=n_bank), sequences.rows),
        (
            "geometry, low-rank only",
            lambda: layer_geometry(model, sequences, n_bank=n_bank, maps=("low_rank",)),
            sequences.rows,
        ),
        ("depth as time", lambda: depth_dynamics(model, few), few.rows),
    ]


def _row(model: Any, name: str, what: str, f: Any, rows: np.ndarray, turns: int) -> str:
    tokens = torch.from_numpy(rows)

    def forward() -> None:
        with torch.no_grad():
            for part in tokens.split(16):
                model(part)

    ratio = compare(f, forward, turns=turns, warm=1)
    return (
        f"| {name} | {what} | {rows.size} | {ratio.slow:.2f} | {ratio.fast:.3f} | **{ratio.ratio:.0f}x** "
        f"({ratio.low:.0f}–{ratio.high:.0f}) |"
    )


def _peak(n_layers: int) -> int:
    """Bytes at the peak of what Python and numpy allocate while a model of `n_layers` blocks is measured."""
    options = {"attention": {"n_heads": 2}}
    model = HookedLM(
        ModelConfig(d_model=64, d_vocab=256, layers=("attention",) * n_layers, mixer_options=options, mlp="none")
    )
    tokens = np.random.default_rng(0).integers(0, 256, (48, 32))
    tracemalloc.start()
    layer_geometry(model, tokens, n_bank=800, n_judged=32, maps=("constant",), k=8, n_bootstrap=10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


if __name__ == "__main__":
    print(section())
