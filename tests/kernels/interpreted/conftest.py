"""Uninitialised memory is NaN here: a kernel that reads what nobody wrote, or leaves some unwritten, shows."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("empty", "empty_like"):
        original = getattr(torch, name)

        def poisoned(*args, original=original, **kwargs):
            x = original(*args, **kwargs)
            return x.fill_(torch.nan) if x.is_floating_point() and x.device.type != "meta" else x

        monkeypatch.setattr(torch, name, poisoned)
    yield
