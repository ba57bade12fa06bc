"""Oracle: psutil, and made-up kernel files whose numbers are known."""

from pathlib import Path

import psutil
import pytest

from strobe.core import memory
from strobe.core.errors import CaptureTooLarge


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A machine with given kernel files: the free memory in kB, and the container's limit, use and cache in bytes."""

    def make(free_kb: int | None, limit: str | None = None, used: int = 0, cached: int = 0) -> None:
        meminfo, cgroup = tmp_path / "meminfo", tmp_path / "cgroup"
        cgroup.mkdir()
        if free_kb is not None:
            meminfo.write_text(f"MemTotal:  99999999 kB\nMemFree:  1 kB\nMemAvailable:  {free_kb} kB\n")
        if limit is not None:
            (cgroup / "memory.max").write_text(f"{limit}\n")
            (cgroup / "memory.current").write_text(f"{used}\n")
            (cgroup / "memory.stat").write_text(f"anon 7\ninactive_file {cached}\n")
        monkeypatch.setattr(memory, "_MEMINFO", meminfo)
        monkeypatch.setattr(memory, "_CGROUP", cgroup)

    return make


def test_this_machines_memory_agrees_with_psutil(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.available_bytes() == pytest.approx(psutil.virtual_memory().available, rel=0.1)


def test_the_kernels_estimate_is_in_kibibytes(machine):
    machine(free_kb=1000)
    assert memory.available_bytes() == 1_024_000


def test_a_containers_limit_counts_where_it_is_lower(machine):
    machine(free_kb=10_000_000, limit="1000000", used=700_000, cached=200_000)
    assert memory.available_bytes() == 500_000


def test_a_container_without_a_limit_has_the_machines(machine):
    machine(free_kb=1000, limit="max", used=700_000)
    assert memory.available_bytes() == 1_024_000


def test_too_large_is_refused_with_figures_and_a_way_out(machine):
    machine(free_kb=1_000_000)
    memory.refuse_if_too_large(900_000_000, "the states", "ask for fewer positions")
    expected = r"the states needs 8\.0 GB, and cpu has 1\.0 GB left; ask for fewer positions"
    with pytest.raises(CaptureTooLarge, match=expected):
        memory.refuse_if_too_large(8_000_000_000, "the states", "ask for fewer positions")


def test_what_is_small_is_not_measured(machine):
    machine(free_kb=1)
    memory.refuse_if_too_large(16_000_000, "the states", "")
    with pytest.raises(CaptureTooLarge):
        memory.refuse_if_too_large(16_000_001, "the states", "")


def test_a_tenth_is_left_for_the_run_itself(machine):
    machine(free_kb=1_000_000)
    memory.refuse_if_too_large(int(0.89 * 1_024_000_000), "the states", "")
    with pytest.raises(CaptureTooLarge):
        memory.refuse_if_too_large(int(0.91 * 1_024_000_000), "the states", "")


def test_where_nothing_is_known_nothing_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "_system_bytes", lambda: None)
    monkeypatch.setattr(memory, "_container_bytes", lambda: None)
    assert memory.available_bytes() is None
    memory.refuse_if_too_large(10**18, "the states", "")


@pytest.mark.gpu
def test_the_devices_memory_is_what_torch_says():
    import torch

    before = memory.available_bytes("cuda")
    held = torch.empty(2**28, dtype=torch.uint8, device="cuda")
    after = memory.available_bytes("cuda")
    assert before is not None
    assert after is not None
    assert before - after == pytest.approx(held.nbytes, rel=0.1)
