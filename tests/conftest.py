"""What every test may rely on: no network, one thread, the same numbers each time, and a reason for each skip."""

import os
from collections.abc import Iterator

# Before anything imports a model library: nothing may ask a hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, and say what it lacks."""
    if any(item.get_closest_marker("browser") for item in items):
        from strobe.core.export import browser_path

        if browser_path() is None:
            _skip(items, "browser", "no Chrome or Chromium here (set BROWSER_PATH)")
    if any(item.get_closest_marker("gpu") for item in items):
        import torch

        if not torch.cuda.is_available():
            _skip(items, "gpu", "no CUDA device here")


def _skip(items: list[pytest.Item], marker: str, reason: str) -> None:
    for item in items:
        if item.get_closest_marker(marker):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _same_numbers_each_time() -> Iterator[None]:
    """Seed every generator before each test, so that none depends on which ran before it in the same worker."""
    import random
    import sys

    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
    yield
