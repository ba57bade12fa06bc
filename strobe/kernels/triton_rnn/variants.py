"""The step kernel at the shapes it is compiled for ahead of time: every cell, heads of 64 and 128 channels."""

from typing import Any

import torch

from strobe.kernels.triton.ahead_of_time import Variant
from strobe.kernels.triton_matrix.plan import power_of_two
from strobe.kernels.triton_rnn import backward, forward
from strobe.kernels.triton_rnn.launch import CELLS, constants, tiles

DIMS = (64, 128)
DTYPES = {torch.bfloat16: "bf16", torch.float32: "fp32", torch.float16: "fp16"}
# As wide as the xLSTM of 768 channels has it with heads of 64.
_HEADS = 12
_INT32 = ("EDITED", "POSITIONS", "KINDS")
_SIGNALS = ("PRE", "R", "BIAS", "FIRST")
_OF_EDITS = ("VALUES", "KINDS", "EDITED")


def variants() -> list[Variant]:
    """For each cell, head size and dtype: the scan, with all kept for the way back, and both with captures, edits and
    padding; backward, plain and with those. float16 where it is read in pieces: smaller heads have float32's tiles, and
    one of its three products."""
    found = []
    for cell in CELLS:
        for dim in DIMS:
            for dtype in DTYPES:
                if dtype == torch.float16 and dim <= 64:
                    continue
                found += [_forward(cell, dim, dtype, "scan"), _forward(cell, dim, dtype, "scan, all kept", keep=True)]
                looks = "captures, edits, padding"
                found.append(_forward(cell, dim, dtype, f"scan, {looks}", looks=True))
                found.append(_forward(cell, dim, dtype, f"scan, all kept, {looks}", looks=True, keep=True))
                found.append(_backward(cell, dim, dtype, "gradient"))
                found.append(_backward(cell, dim, dtype, f"gradient, {looks}", looks=True))
    return found


def _forward(cell: str, dim: int, dtype: Any, what: str, *, looks: bool = False, keep: bool = False) -> Variant:
    biased = cell == "gru"
    extra = {"KEEP": keep, "BIASED": biased, **({} if biased else {"BIAS": None})}
    return _variant(cell, dim, dtype, what, forward.forward_kernel, looks, extra)


def _backward(cell: str, dim: int, dtype: Any, what: str, *, looks: bool = False) -> Variant:
    extra = {} if cell == "gru" else {"D_RECURRENT": None}
    return _variant(cell, dim, dtype, what, backward.backward_kernel, looks, extra)


def _variant(cell: str, dim: int, dtype: Any, what: str, kernel: Any, looks: bool, extra: dict[str, Any]) -> Variant:
    off = {} if looks else dict.fromkeys((*_OF_EDITS, "POSITIONS", "MASK"))
    flags = dict.fromkeys(("CAPTURE", "EDIT", "MASKED"), looks)
    given = {"HEADS": _HEADS, **constants(cell, dim, dtype), **off, **flags, **extra}
    stack, why = _allowed_stack(cell, dim, dtype, what)
    names = kernel.arg_names
    fixed = {n: given[n] for n in names if n in given}
    return Variant(
        name=f"{cell}, heads of {dim}: {what}, {DTYPES[dtype]}",
        kernel=kernel,
        signature={n: _type(n, dtype) for n in names if n not in fixed},
        constants=fixed,
        num_warps=tiles(cell, dim, dtype).warps,
        num_stages=1,
        stack=stack,
        why_stack=why,
        # Sixteen rows: never a warp group's product, but a tensor core's.
        tensor_rows=min(16, power_of_two(dim)),
    )


def _allowed_stack(cell: str, dim: int, dtype: Any, what: str) -> tuple[dict[int, int], str]:
    """Bytes a thread that a kernel may spill, by capability, and why; set to what compiling found, rounded up."""
    if (cell, dim, dtype, what) == ("gru", 64, torch.float32, "gradient"):
        return {90: 16, 80: 16}, "two to four instructions, at 128 of 255 registers: the compiler's choice"
    if (cell, dim, dtype, what.partition(",")[0]) == ("lstm", 64, torch.bfloat16, "gradient") and "edits" in what:
        return {80: 24}, "an edit of both fields, at 168 of 255 registers: the compiler's choice"
    if (cell, dim, dtype, what.partition(",")[0]) == ("slstm", 64, torch.bfloat16, "scan") and "edits" in what:
        return {90: 24, 80: 24}, "an edit of any of four fields, at 168 of 255 registers: the compiler's choice"
    if cell in ("gru", "lstm") and (dim, dtype) == (64, torch.bfloat16) and what.startswith("scan, all kept, captures"):
        return {90: 16}, "edits beside the gates that are kept, at 128 of 255 registers: the compiler's choice"
    if dim <= 64:
        return {}, ""
    return {90: 80, 80: 80}, "a step's four gates and their gradients are held beside a block, or a piece, of R"


def _type(argument: str, dtype: Any) -> str:
    if not argument.isupper():
        return "i32"
    if argument in _INT32:
        return "*i32"
    if argument == "MASK":
        return "*i8"
    return f"*{DTYPES[dtype]}" if argument in _SIGNALS else "*fp32"
