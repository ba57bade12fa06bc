"""Numbers too small for their dtype's full precision, taken for zero while a scan computes."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def flushed(device: torch.device) -> Iterator[None]:
    """On a CPU, results below the smallest normal number (1.2e-38 in float32) are zero inside, on the calling thread.

    Products of many decays fade through that range, and a processor needs a hundred times as long for each such number:
    at the untrained decays of a Gated DeltaNet a third of the whole forward. What is lost had lost its precision
    before. A GPU does not slow down, and a compiled graph cannot change the mode: nothing is done there.
    """
    if device.type != "cpu" or torch.compiler.is_compiling() or _are_flushed():
        yield
        return
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _are_flushed() -> bool:
    # torch tells nobody which mode it is in; a caller's own choice must outlast us.
    return float(np.float32(1e-39) * np.float32(1)) == 0.0
