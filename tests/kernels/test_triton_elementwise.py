"""Oracle: that of each file in interpreted/: the loop in float64, and autograd through it. Here they are started."""

from pathlib import Path

import pytest
from interpreted import passes_interpreted

_FILES = Path(__file__).parent / "interpreted"


@pytest.mark.slow  # the interpreter runs a kernel's every operation in Python
@pytest.mark.parametrize("name", ["selective_scan", "diagonal_scan", "wkv_scan"])
def test_in_the_interpreter(name):
    pytest.importorskip("triton")
    passes_interpreted(_FILES / f"{name}.py")
