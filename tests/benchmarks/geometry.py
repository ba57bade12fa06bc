"""Layer-update geometry against the plain forward, and against the number of layers: time and memory."""

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import compare

import strobe
from strobe.models import HookedLM, ModelConfig
from strobe.probes.depth import depth_dynamics
from strobe.probes.geometry import layer_geometry, library_sequences

LAYERS = (4, 8, 16)
BANK, WIDTH = 4096, 256
MAPS = ("linear", "constant")


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
    peaks = [_peak(n) for n in LAYERS]
    lines += [
        "",
        f"Resident memory that a run over {BANK} tokens of width {WIDTH} adds to a loaded model, at its peak, each in "
        f"a process of its own; one layer's activations are {BANK * WIDTH * 4 / 1e6:.0f} MB in float32.",
        "",
        "| layers | " + " | ".join(map(str, LAYERS)) + " |",
        "|---|" + "---|" * len(LAYERS),
        "| added, MB | " + " | ".join(f"{peak / 1e6:.0f}" for peak in peaks) + " |",
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
    """Bytes that measuring a model of `n_layers` blocks adds to the memory of a process of its own."""
    out = subprocess.run(
        [sys.executable, __file__, "--peak", str(n_layers)], capture_output=True, text=True, check=True
    ).stdout
    return int(out.split()[-1])


def _added(n_layers: int) -> int:
    torch.set_num_threads(1)
    options = {"attention": {"n_heads": 4}}
    model = HookedLM(
        ModelConfig(d_model=WIDTH, d_vocab=256, layers=("attention",) * n_layers, mixer_options=options, mlp="none")
    )
    tokens = np.random.default_rng(0).integers(0, 256, (BANK // 63 + 16, 64))
    # What the first run loads and keeps (libraries, threads) is no part of the second one's need.
    layer_geometry(model, tokens[:30], n_bank=256, n_judged=16, layers=[0], k=8, maps=MAPS, n_bootstrap=10)
    before = _resident()
    layer_geometry(model, tokens, n_bank=BANK, n_judged=64, k=8, maps=MAPS, n_bootstrap=10)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def _resident() -> int:
    """Bytes of this process in memory now (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    print(_added(int(sys.argv[2])) if sys.argv[1:2] == ["--peak"] else section())
