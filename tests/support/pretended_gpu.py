"""A GPU that is not there: Triton's launcher specialises and compiles for sm_90 as it would, and then runs nothing.

What a launch makes of its arguments (an integer of 1 becomes a constant, a tensor that is not there a None) is neither
seen by the interpreter nor by compiling ahead of time, which take them as they are written down.
"""

from typing import Any, NamedTuple

import pytest
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from strobe.kernels.triton import backend, device

# CUDA C++ Programming Guide, technical specifications: blocks in a grid along x, y, z; threads and bytes of a block.
GRID = (2**31 - 1, 65535, 65535)
_THREADS, _SHARED = 1024, 232_448


class Launch(NamedTuple):
    """A kernel's name, its grid, and the GPU that was the current one."""

    kernel: str
    grid: tuple[int, int, int]
    on: Any


class _Launcher:
    def __init__(self, src: Any, metadata: Any) -> None:
        self.name = src.fn.__name__

    def __call__(self, x: int, y: int, z: int, *rest: Any) -> None:
        assert all(0 < size <= most for size, most in zip((x, y, z), GRID, strict=True)), f"{self.name}: {(x, y, z)}"
        LAUNCHES.append(Launch(self.name, (x, y, z), CURRENT[-1]))


class _Utils:
    def load_binary(self, name: str, kernel: bytes, shared: int, device: int) -> tuple[int, ...]:
        """(module, function, registers, spills, threads of a block at most)."""
        return 1, 1, 0, 0, _THREADS

    def get_device_properties(self, device: int) -> dict[str, int]:
        """What the launcher refuses a kernel by."""
        return {"max_shared_mem": _SHARED, "multiprocessor_count": 132, "warpSize": 32}


class _Driver:
    utils, launcher_cls = _Utils(), _Launcher

    def get_current_target(self) -> GPUTarget:
        """A Hopper."""
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        """The only one."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """Its own."""
        return 0


LAUNCHES: list[Launch] = []
CURRENT: list[Any] = [None]


def pytest_configure() -> None:
    """Pretend, in a run that has this module for a plugin (``-p pretended_gpu``), and not wherever it is imported.

    It comes before a family's backend is imported, which takes these two by name. Tensors stay on the CPU, where
    nothing runs.
    """
    driver.set_active(_Driver())  # pyright: ignore[reportArgumentType]
    backend.why_not_on = device.why_not_on = lambda device: None
    device.why_not_tensors = lambda tensors: None


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[Launch]:
    """The launches of a test, as they are made."""
    LAUNCHES.clear()

    class Guard:
        """`torch.cuda.device`, noting what it was given."""

        def __init__(self, on: Any) -> None:
            self.on = on

        def __enter__(self) -> None:
            CURRENT.append(self.on)

        def __exit__(self, *error: object) -> None:
            CURRENT.pop()

    monkeypatch.setattr(torch.cuda, "device", Guard)
    return LAUNCHES
