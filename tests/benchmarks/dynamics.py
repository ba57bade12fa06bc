"""What exact dynamics costs: the Lyapunov spectrum of a 64-unit network beside the Jacobians it is made of."""

import argparse
import time

import torch

from strobe.probes.dynamics.lyapunov import lyapunov_spectrum
from strobe.probes.fixed_points import from_module


def section(steps: int = 10_000) -> str:
    """Seconds of one thread for `steps` steps, and the part that is not the QR."""
    torch.manual_seed(0)
    rows = []
    for name, cell in (("tanh", torch.nn.RNN(3, 64)), ("GRU", torch.nn.GRU(3, 64)), ("LSTM", torch.nn.LSTM(3, 32))):
        with torch.no_grad():
            for parameter in cell.parameters():
                parameter.mul_(2)
        system = from_module(cell)
        x = torch.zeros(1, system.size, dtype=torch.float64) + 0.1
        began = time.process_time()
        with torch.no_grad():
            for _ in range(steps):
                system.jacobian(x)
                x = system.step(x)
        plain = time.process_time() - began
        began = time.process_time()
        found = lyapunov_spectrum(cell, steps=steps, transient=0, control=False)
        full = time.process_time() - began
        rows.append(f"| {name}, carry of 64 | {plain:.1f} | {full:.1f} | {full / plain:.1f} | {found.mean[0]:.3f} |")
    return "\n".join(
        [
            "## Exact dynamics",
            "",
            f"Lyapunov spectrum, all 64 exponents, {steps:,} steps with a QR at each, float64, one thread; CPU "
            f"seconds.",
            "",
            "| network | steps and Jacobians alone | whole spectrum | ratio | largest exponent |",
            "|---|---|---|---|---|",
            *rows,
        ]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000)
    print(section(parser.parse_args().steps))
