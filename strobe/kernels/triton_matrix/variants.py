"""The chunk kernel at the shapes it is compiled for ahead of time: head sizes of released models, in bfloat16."""

from dataclasses import replace
from typing import Any

import torch

from strobe.kernels.triton.ahead_of_time import Variant
from strobe.kernels.triton_matrix import backward, forward
from strobe.kernels.triton_matrix.launch import constants
from strobe.kernels.triton_matrix.plan import Tiles, plan, power_of_two

# Name, rank, decay per channel, key, value: the released model whose heads have this size.
SHAPES = (
    ("Mamba-2 (130M to 2.7B)", 0, False, 128, 64),
    ("RetNet 1.3B", 0, False, 256, 512),
    ("GLA 1.3B", 0, True, 256, 512),
    ("Gated DeltaNet in Qwen3-Next", 1, False, 128, 128),
    ("KDA in Kimi Linear", 1, True, 128, 128),
    ("RWKV-7", 2, True, 64, 64),
    ("general, one decay a head", 2, False, 64, 64),
)
# Compiled in, as head sizes are, so that divisions by them are none. One group of heads shares q and k in `decay`.
_HEADS = 32
_NAMES = {torch.bfloat16: "bf16", torch.float32: "fp32"}
# Pointers to what the signals are given in; all others are float32, or int32 where listed.
_SIGNALS = ("Q", "K", "V", "G", "A", "B", "STARTS", "D_ENDS")
_INT32 = ("CU", "CUTS", "LOOKS", "KINDS")


def variants() -> list[Variant]:
    """Four kernels at each shape in bfloat16; the scan also with captures, edits and readers; that of two shapes
    in float32 too."""
    found = []
    for shape in SHAPES:
        found += [_inverse(shape)] if shape[1] else []
        found += [_scan(shape), _scan(shape, looks=True), _scan(shape, keep=True)]
        found += [_carry_gradient(shape), _input_gradient(shape)]
    found.append(_scan(SHAPES[0], dtype=torch.float32))
    found += [_scan(SHAPES[3], dtype=torch.float32, capabilities=(capability,)) for capability in (90, 80)]
    return found


def _inverse(shape: tuple[Any, ...]) -> Variant:
    return _variant(shape, "inverse", forward.inverse_kernel, _plan(shape).inverse, {"EXACT": "tf32x3"})


def _scan(
    shape: tuple[Any, ...],
    *,
    looks: bool = False,
    keep: bool = False,
    dtype: Any = torch.bfloat16,
    capabilities: tuple[int, ...] = (90, 80),
) -> Variant:
    """`looks`: captures, edits and readers on; without them the kernel has none of their instructions."""
    tiles = _plan(shape, dtype, capabilities[0]).scan
    off = {} if looks else {"READERS": None, "VALUES": None, "KINDS": None, "LOOKS": None}
    flags = dict.fromkeys(("CAPTURE", "EDIT", "READ"), looks)
    extra = {**off, **flags, "CUT": looks, "KEEP": keep, "BLOCK_VALUE": tiles.block_value}
    name = "scan, captures, edits, readers" if looks else "scan, starts kept" if keep else "scan"
    return replace(_variant(shape, name, forward.scan_kernel, tiles, extra, dtype), capabilities=capabilities)


def _carry_gradient(shape: tuple[Any, ...]) -> Variant:
    tiles = _plan(shape).carry_gradient
    extra = {"LOOKS": None, "CAPTURE": False, "BLOCK_VALUE": tiles.block_value}
    return _variant(shape, "gradient of the carry", backward.carry_gradient_kernel, tiles, extra)


def _input_gradient(shape: tuple[Any, ...]) -> Variant:
    tiles = _plan(shape).input_gradient
    blocks = {"BLOCK_VALUE": tiles.block_value, "VALUE_BLOCKS": -(-shape[4] // tiles.block_value)}
    return _variant(shape, "gradients of the inputs", backward.input_gradient_kernel, tiles, blocks)


def _plan(shape: tuple[Any, ...], dtype: Any = torch.bfloat16, capability: int = 90) -> Any:
    _, rank, channel, key, value = shape
    return plan(rank, channel, key, value, dtype, capability)


def _variant(
    shape: tuple[Any, ...], what: str, kernel: Any, tiles: Tiles, extra: dict[str, Any], dtype: Any = torch.bfloat16
) -> Variant:
    name, rank, channel, key, value = shape
    stack, why = _allowed_stack(rank, channel, key, dtype)
    chunk = _plan(shape, dtype).chunk
    names = kernel.arg_names
    given = {
        "CUT": False,
        **({"CUTS": None} if not extra.get("CUT") else {}),
        **({"A": None} if rank < 2 else {}),
        **({"B": None} if rank < 1 else {}),
        **({"D_A": None} if rank < 2 else {}),
        **({"D_B": None} if rank < 1 else {}),
        "HEADS": _HEADS,
        "HEADS_Q": 1 if rank == 0 else _HEADS,
        "HEADS_K": 1 if rank == 0 else _HEADS,
        "HEADS_B": _HEADS,
        "KEY": key,
        "VALUE": value,
        **constants(rank, channel, key, chunk, dtype),
        **extra,
    }
    fixed = {n: given[n] for n in names if n in given}
    return Variant(
        name=f"{name}: {what}, {_NAMES[dtype]}",
        kernel=kernel,
        signature={n: _type(n, dtype) for n in names if n not in fixed},
        constants=fixed,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
        stack=stack,
        why_stack=why,
        tensor_rows=max(chunk, power_of_two(key)) if dtype != torch.float32 else 0,
    )


def _allowed_stack(rank: int, channel: bool, key: int, dtype: Any) -> tuple[dict[int, int], str]:
    """Bytes a thread that a kernel may spill, by capability, and why; set to what compiling found, rounded up."""
    if dtype == torch.float32:
        why = "three TF32 products keep two parts of each operand, on sm_80 in registers"
        return ({90: 320, 80: 1536} if rank else {90: 64, 80: 320}), why
    if channel:
        why = "the decays of every level of halves are kept from one product with them to the next"
        allowed = 1280 if key > 128 else 256
        return {90: allowed, 80: 2 * allowed}, why
    return {80: 400}, "tiles were chosen for sm_90, whose products take their operands from shared memory"


def _type(argument: str, dtype: Any) -> str:
    if not argument.isupper():
        return "i32"
    if argument in _INT32:
        return "*i32"
    return f"*{_NAMES[dtype]}" if argument in _SIGNALS else "*fp32"
