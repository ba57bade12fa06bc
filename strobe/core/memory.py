"""What fits: a capture is measured before it is made, and refused with the figures and the way out."""

import os
import sys
from pathlib import Path

from strobe.core.errors import CaptureTooLarge

# What is left for the forward pass itself and for everybody else on the machine.
_SHARE = 0.9

# Less than this is never refused: a run needs as much for itself, and to read what is left costs more than to look at
# one generated token's carry.
_SMALL_BYTES = 16_000_000

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def available_bytes(device: str = "cpu") -> int | None:
    """Bytes that can still be allocated on `device` (``"cpu"``, ``"cuda"``, ``"cuda:1"``), or None if unknown.

    On Linux the kernel's own estimate (MemAvailable), or what is left of the container's limit where that is less. On
    systems that tell neither and without psutil, None: nothing is known, so nothing is refused.
    """
    if device.startswith("cuda"):
        import torch

        free, _ = torch.cuda.mem_get_info(torch.device(device))
        # What torch has reserved and does not use is as good as free.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    known = [amount for amount in (_system_bytes(), _container_bytes()) if amount is not None]
    return min(known) if known else None


def refuse_if_too_large(need_bytes: int, what: str, way_out: str, *, device: str = "cpu") -> None:
    """Raise CaptureTooLarge if `need_bytes` is more than 16 MB and more than 90 % of what `device` has left.

    `what` names what was asked for ("the states of 24 layers at 4096 positions"), `way_out` what to ask for instead
    ("fewer positions or layers"). Does nothing where the memory left is unknown.
    """
    if need_bytes <= _SMALL_BYTES:
        return
    free = available_bytes(device)
    if free is None or need_bytes <= _SHARE * free:
        return
    raise CaptureTooLarge(
        f"{what} needs {format_bytes(need_bytes)}, and {device} has {format_bytes(free)} left; {way_out}"
    )


def format_bytes(count: float | int) -> str:
    """`count` bytes for people, in powers of 1000.

    >>> format_bytes(1_500_000), format_bytes(2.25e9), format_bytes(12)
    ('1.5 MB', '2.2 GB', '12 bytes')
    """
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"


def _system_bytes() -> int | None:
    if _MEMINFO.is_file():
        for line in _MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    names = getattr(os, "sysconf_names", {})
    if "SC_AVPHYS_PAGES" in names and sys.platform != "darwin":
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        import psutil
    except ImportError:
        return None
    return int(psutil.virtual_memory().available)


def _container_bytes() -> int | None:
    """What is left of a cgroup-v2 limit; None without one. Cached files count as free, because they are given back."""
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except OSError:
        return None
    return None if limit == "max" else max(0, int(limit) - used + int(stat.get("inactive_file", 0)))
