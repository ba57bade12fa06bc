"""Launching the four kernels: grids, tables, buffers. Shapes are those of `operator`."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from strobe.kernels.triton.device import interpreting
from strobe.kernels.triton.device import launch as launch_on
from strobe.kernels.triton_matrix.plan import Chunks, Plan, Tiles, as_table, chunks, looks, operands, plan, power_of_two


class Inputs(NamedTuple):
    """What is scanned; the arguments of `strobe::matrix_scan` of the same names."""

    q: Tensor
    k: Tensor
    v: Tensor
    log_decay: Tensor
    a: Tensor | None
    b: Tensor | None
    S: Tensor
    rank: int
    offsets: Tensor | None
    longest: int
    chunk: int

    @property
    def channel(self) -> bool:
        """Whether there is one decay per key channel."""
        return self.log_decay.ndim == 4

    def contiguous(self) -> "Inputs":
        """With every tensor laid out as its shape says."""
        tensors = {name: x.contiguous() for name, x in self._asdict().items() if isinstance(x, Tensor)}
        return self._replace(**tensors)


class Asked(NamedTuple):
    """What is asked on the way; the arguments of `strobe::matrix_scan` of the same names."""

    readers: Tensor | None
    values: Tensor | None
    kinds: list[int]
    edited: list[int]
    positions: list[int]
    keep: bool

    @property
    def ends(self) -> list[int]:
        """Tokens with which a chunk has to end."""
        return sorted({*self.edited, *(self.positions if self.keep else ())})


def chunk_layout(inputs: Inputs, asked: Asked) -> Chunks:
    """The chunks of the forward pass, which are those of the backward pass."""
    return chunks(inputs.longest, inputs.chunk, asked.ends)


def empty_outputs(inputs: Inputs, asked: Asked) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Buffers of what `forward` returns, not filled."""
    v, (sequences, heads, key, value) = inputs.v, inputs.S.shape
    count = chunk_layout(inputs, asked).n_chunks

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=v.device)

    n_readers = 0 if asked.readers is None else asked.readers.shape[0]
    started = (sequences, heads, count, key, value) if asked.keep else (0,)
    return (
        empty(*v.shape),
        empty(sequences, heads, key, value),
        empty(sequences, len(asked.positions), heads, key, value),
        empty(*v.shape[:2], n_readers, *v.shape[2:]),
        empty(*started, dtype=torch.bfloat16 if v.dtype == torch.bfloat16 else torch.float32),
        empty(sequences, heads, count, inputs.chunk, inputs.chunk) if inputs.rank else empty(0),
    )


def forward(inputs: Inputs, asked: Asked) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`strobe::matrix_scan` on the device."""
    from strobe.kernels.triton_matrix.forward import inverse_kernel, scan_kernel

    outputs = empty_outputs(inputs, asked)
    read, carry, captured, answers, starts, inverse = outputs
    if not inputs.v.numel() or not inputs.S.numel():
        carry.copy_(inputs.S)
        captured.copy_(inputs.S.unsqueeze(1).expand_as(captured))
        return outputs
    inputs = inputs.contiguous()
    layout, tiles = chunk_layout(inputs, asked), _plan(inputs)
    units = inputs.S.shape[0] * inputs.S.shape[1]
    shared = _shared(inputs, layout)
    device = inputs.v.device
    if inputs.rank:
        _launch(
            inverse_kernel,
            (units * layout.n_chunks,),
            tiles.inverse,
            **{**_without(shared, "Q", "V", "HEADS_Q", "VALUE"), "EXACT": "tf32x3"},
            INVERSE=inverse,
        )
    table = None
    if asked.positions or asked.edited:
        table = as_table(looks(layout, inputs.chunk, inputs.longest, asked.positions, asked.edited), device)
    _launch(
        scan_kernel,
        (units, -(-inputs.v.shape[3] // tiles.scan.block_value)),
        tiles.scan,
        **shared,
        INVERSE=inverse,
        S_FIRST=inputs.S,
        READERS=None if asked.readers is None else asked.readers.contiguous(),
        VALUES=None if asked.values is None else asked.values.contiguous(),
        KINDS=as_table(asked.kinds, device) if asked.edited else None,
        LOOKS=table,
        Y=read,
        S_LAST=carry,
        CAPTURED=captured,
        ANSWERS=answers,
        STARTS=starts,
        n_readers=_count(answers.shape[2]),
        n_captured=len(asked.positions),
        CAPTURE=bool(asked.positions),
        EDIT=bool(asked.edited),
        READ=asked.readers is not None,
        KEEP=asked.keep,
        BLOCK_VALUE=tiles.scan.block_value,
    )
    return outputs


def backward(
    inputs: Inputs,
    starts: Tensor,
    inverse: Tensor,
    positions: list[int],
    d_read: Tensor,
    d_carry: Tensor,
    d_captured: Tensor,
) -> tuple[Tensor, ...]:
    """`strobe::matrix_scan_backward` on the device."""
    from strobe.kernels.triton_matrix.backward import carry_gradient_kernel, input_gradient_kernel

    given = inputs
    targets = (given.q, given.k, given.v, given.log_decay, given.a, given.b, given.S)
    if not given.v.numel() or not given.S.numel():
        zeros = [given.q.new_empty(0) if x is None else torch.zeros_like(x) for x in targets]
        return (*zeros[:-1], (d_carry + d_captured.sum(1)).to(given.S.dtype))
    inputs = inputs.contiguous()
    layout, tiles = chunks(inputs.longest, inputs.chunk, positions), _plan(inputs)
    sequences, heads, key, value = inputs.S.shape
    units, device, shared = sequences * heads, inputs.v.device, _shared(inputs, layout)
    table = as_table(looks(layout, inputs.chunk, inputs.longest, positions, []), device) if positions else None
    d_read = d_read.contiguous()

    d_first, d_ends = torch.empty_like(inputs.S, dtype=torch.float32), torch.empty_like(starts)
    _launch(
        carry_gradient_kernel,
        (units, -(-value // tiles.carry_gradient.block_value)),
        tiles.carry_gradient,
        **_without(shared, "V"),
        INVERSE=inverse,
        LOOKS=table,
        D_Y=d_read,
        D_LAST=d_carry.contiguous(),
        D_CAPTURED=d_captured.contiguous(),
        D_FIRST=d_first,
        D_ENDS=d_ends,
        n_captured=len(positions),
        CAPTURE=bool(positions),
        BLOCK_VALUE=tiles.carry_gradient.block_value,
    )

    def per_head(*tail: int) -> Tensor:
        return torch.empty((*inputs.v.shape[:2], heads, *tail), dtype=torch.float32, device=device)

    d_q, d_k, d_v = per_head(key), per_head(key), per_head(value)
    d_g = per_head(key) if inputs.channel else per_head()
    d_a = per_head(key) if inputs.rank == 2 else None
    d_b = per_head(key) if inputs.rank else None
    _launch(
        input_gradient_kernel,
        (units * layout.n_chunks,),
        tiles.input_gradient,
        **shared,
        INVERSE=inverse,
        STARTS=starts,
        D_ENDS=d_ends,
        D_Y=d_read,
        D_Q=d_q,
        D_K=d_k,
        D_V=d_v,
        D_G=d_g,
        D_A=d_a,
        D_B=d_b,
        BLOCK_VALUE=tiles.input_gradient.block_value,
        VALUE_BLOCKS=-(-value // tiles.input_gradient.block_value),
    )
    found = (d_q, d_k, d_v, d_g, d_a, d_b, d_first)
    return tuple(_as_given(d, x, given.q) for d, x in zip(found, targets, strict=True))


def constants(rank: int, channel: bool, key: int, chunk: int, dtype: torch.dtype) -> dict[str, Any]:
    """The compile-time arguments that all four kernels share, but for CUT."""
    import triton.language as tl

    how = operands(dtype)
    return {
        "RANK": rank,
        "CHANNEL": channel,
        "CHUNK": chunk,
        "BLOCK_KEY": power_of_two(key),
        "OPERAND": tl.bfloat16 if how.dtype == torch.bfloat16 else tl.float32,
        "PRECISION": how.precision,
        "EXACT": how.inverse,
    }


def _launch(kernel: Any, grid: tuple[int, ...], tiles: Tiles, **arguments: Any) -> None:
    launch_on(kernel, grid, arguments["K"].device, **arguments, num_warps=tiles.warps, num_stages=tiles.stages)


def _plan(inputs: Inputs) -> Plan:
    key, value = inputs.S.shape[2:]
    device = inputs.v.device
    capability = 10 * torch.cuda.get_device_capability(device)[0] if device.type == "cuda" else 90
    return plan(inputs.rank, inputs.channel, key, value, inputs.v.dtype, capability)


def _shared(inputs: Inputs, layout: Chunks) -> dict[str, Any]:
    """Arguments that most of the kernels take."""
    sequences, heads, key, value = inputs.S.shape
    device, time = inputs.v.device, inputs.v.shape[1]
    cuts = None if layout.cuts is None else as_table([x for pair in layout.cuts for x in pair], device)
    offsets = inputs.offsets
    if offsets is None:
        offsets = torch.arange(sequences + 1, dtype=torch.int32, device=device) * time
    return {
        "Q": inputs.q,
        "K": inputs.k,
        "V": inputs.v,
        "G": inputs.log_decay,
        "A": inputs.a if inputs.rank == 2 else None,
        "B": inputs.b if inputs.rank else None,
        "CU": offsets,
        "CUTS": cuts,
        "n_chunks": _count(layout.n_chunks),
        "HEADS": heads,
        "HEADS_Q": inputs.q.shape[2],
        "HEADS_K": inputs.k.shape[2],
        "HEADS_B": heads if inputs.b is None else inputs.b.shape[2],
        "KEY": key,
        "VALUE": value,
        "CUT": layout.cuts is not None,
        **constants(inputs.rank, inputs.channel, key, inputs.chunk, inputs.v.dtype),
    }


def _count(number: int) -> Any:
    """How often a loop runs, as an argument: the interpreter of triton 3.6 loops over constants only."""
    from triton.language import constexpr

    return constexpr(number) if interpreting() else number


def _without(arguments: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: x for name, x in arguments.items() if name not in names}


def _as_given(gradient: Tensor | None, x: Tensor | None, like: Tensor) -> Tensor:
    """A gradient per head as that of `x`, which may be shared by groups of heads."""
    if gradient is None or x is None:
        return like.new_empty(0)
    if gradient.ndim == 4 and gradient.shape[2] != x.shape[2]:
        gradient = gradient.unflatten(2, (x.shape[2], -1)).sum(3)
    return gradient.to(x.dtype)
