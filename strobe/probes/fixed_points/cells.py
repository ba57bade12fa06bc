"""Elman, GRU, LSTM and sLSTM cells under a held input: exact Jacobians, and residuals without the ghosts of a closed
gate.

With x held, all that a cell sees of it is `drive` = W x + b. The equations are those of `strobe.kernels.rnn`.

    Elman   h' = f(a)                   a = drive + R h           residual  h' - h
    GRU     h' = (1 - z) n + z h        n = n(h)                  residual  n(h) - h
    LSTM    c' = f c + i g              h' = o tanh(c')           residual  o tanh(i g / (1 - f)) - h
    sLSTM   c' = f c + i z, n' = f n + i                          residual  o z - h
            h' = o c' / n'

A GRU that stands still has n = h whatever its update gate z < 1; an LSTM has c = i g / (1 - f), which leaves h as the
only unknown; an sLSTM has m = i~ (log f < 0), so i = 1, f = sigmoid(f~), and c / n = z whatever f is. Each has exactly
the roots of F(x) - x.

Shape letters: n carries, H hidden. The LSTM's carry is [h, c], the sLSTM's [h, c, n, m].
"""

from typing import Literal

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn import functional as F

from strobe.kernels.rnn import SLSTMCarry
from strobe.kernels.rnn.blocks import dense, recurrent
from strobe.kernels.rnn.slstm import cell as slstm_cell
from strobe.probes.fixed_points.system import Roots, System, differentiate, less_identity

Vector = Float64[Tensor, " gates_hidden"]
Matrix = Float64[Tensor, "gates_hidden hidden"]


def elman(
    R: Matrix, drive: Vector, *, nonlinearity: Literal["tanh", "relu"] = "tanh", name: str = "elman", held: str = ""
) -> System:
    """H' = tanh(drive + R h), or relu: `R` [H, H], `drive` [H]."""
    act = torch.tanh if nonlinearity == "tanh" else torch.relu

    def step(h: Tensor) -> Tensor:
        return act(F.linear(h, R, drive))

    def slope(after: Tensor) -> Tensor:
        """Of the nonlinearity, [n, H], from what it returned: a relu is above 0 exactly where what it was given is."""
        return 1 - after.square() if nonlinearity == "tanh" else (after > 0).to(after.dtype)

    def jacobian(h: Tensor) -> Tensor:
        return slope(step(h))[:, :, None] * R

    def linearise(h: Tensor) -> tuple[Tensor, Tensor]:
        after = step(h)
        return after - h, less_identity(slope(after)[:, :, None] * R)

    return System(
        name=name,
        held=held,
        size=R.shape[1],
        step=step,
        jacobian=jacobian,
        roots=Roots(residual=lambda h: step(h) - h, linearise=linearise),
        fields=(("h", (R.shape[1],)),),
        box=torch.ones(R.shape[1], dtype=R.dtype) if nonlinearity == "tanh" else None,
        shuffled=lambda seed: elman(permuted(R, 1, seed), drive, nonlinearity=nonlinearity, name=name, held=held),
    )


def gru(R: Matrix, drive: Vector, b_r: Vector, *, name: str = "gru", held: str = "") -> System:
    """Gates r, z, n: `R` [3H, H], `drive` [3H], the recurrent bias `b_r` [3H], applied as torch and cuDNN do."""
    size = R.shape[1]
    R_r, R_z, R_n = R.chunk(3)
    d_r, d_z, d_n = drive.chunk(3)

    def parts(h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        h_r, h_z, h_n = F.linear(h, R, b_r).chunk(3, -1)
        r = torch.sigmoid(d_r + h_r)
        return r, torch.sigmoid(d_z + h_z), torch.tanh(d_n + r * h_n), h_n

    def candidate_jacobian(r: Tensor, n: Tensor, h_n: Tensor) -> Tensor:
        slope = 1 - n.square()
        return _weighed((slope * r, R_n), (slope * h_n * r * (1 - r), R_r))

    def step(h: Tensor) -> Tensor:
        _, z, n, _ = parts(h)
        return (1 - z) * n + z * h

    def jacobian(h: Tensor) -> Tensor:
        r, z, n, h_n = parts(h)
        through_n = (1 - z) * (1 - n.square())
        J = _weighed((through_n * r, R_n), (through_n * h_n * r * (1 - r), R_r), (z * (1 - z) * (h - n), R_z))
        J.diagonal(dim1=-2, dim2=-1).add_(z)
        return J

    def residual(h: Tensor) -> Tensor:
        return parts(h)[2] - h

    def linearise(h: Tensor) -> tuple[Tensor, Tensor]:
        r, _, n, h_n = parts(h)
        return n - h, less_identity(candidate_jacobian(r, n, h_n))

    return System(
        name=name,
        held=held,
        size=size,
        step=step,
        jacobian=jacobian,
        roots=Roots(residual=residual, linearise=linearise),
        fields=(("h", (size,)),),
        box=torch.ones(size, dtype=R.dtype),
        shuffled=lambda seed: gru(permuted(R, 3, seed), drive, b_r, name=name, held=held),
    )


def lstm(R: Matrix, drive: Vector, *, name: str = "lstm", held: str = "") -> System:
    """Gates i, f, g, o: `R` [4H, H], `drive` [4H]; the carry is [h, c], 2H numbers."""
    size = R.shape[1]
    R_i, R_f, R_g, R_o = R.chunk(4)

    def gates(h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        i, f, g, o = F.linear(h, R, drive).chunk(4, -1)
        # 1 - f is asked for by itself: subtracting would lose all of it where f is nearly 1.
        return torch.sigmoid(i), torch.sigmoid(f), torch.sigmoid(-f), torch.tanh(g), torch.sigmoid(o)

    def step(x: Tensor) -> Tensor:
        h, c = x.split(size, -1)
        i, f, _, g, o = gates(h)
        c = f * c + i * g
        return torch.cat([o * torch.tanh(c), c], -1)

    def jacobian(x: Tensor) -> Tensor:
        h, c = x.split(size, -1)
        i, f, closed, g, o = gates(h)
        after = torch.tanh(f * c + i * g)
        c_h = _weighed((f * closed * c, R_f), (i * (1 - i) * g, R_i), (i * (1 - g.square()), R_g))
        h_c = o * (1 - after.square())
        h_h = _weighed((o * (1 - o) * after, R_o)).addcmul_(h_c[:, :, None], c_h)
        top = torch.cat([h_h, torch.diag_embed(h_c * f)], -1)
        return torch.cat([top, torch.cat([c_h, torch.diag_embed(f)], -1)], -2)

    def settled(h: Tensor) -> Tensor:
        i, _, closed, g, _ = gates(h)
        return i * g / closed

    def residual(h: Tensor) -> Tensor:
        i, _, closed, g, o = gates(h)
        return o * torch.tanh(i * g / closed) - h

    def linearise(h: Tensor) -> tuple[Tensor, Tensor]:
        i, f, closed, g, o = gates(h)
        t = torch.tanh(i * g / closed)
        through_c = o * (1 - t.square()) / closed
        jac = _weighed(
            (o * (1 - o) * t, R_o),
            (through_c * i * (1 - i) * g, R_i),
            (through_c * i * (1 - g.square()), R_g),
            (through_c * i * g * f, R_f),
        )
        return o * t - h, less_identity(jac)

    return System(
        name=name,
        held=held,
        size=2 * size,
        step=step,
        jacobian=jacobian,
        roots=Roots(
            residual=residual,
            linearise=linearise,
            reduce=lambda x: x[:, :size].clone(),
            expand=lambda h: torch.cat([h, settled(h)], -1),
        ),
        fields=(("h", (size,)), ("c", (size,))),
        box=lstm_box(R.abs().sum(1) + drive, size),
        shuffled=lambda seed: lstm(permuted(R, 4, seed), drive, name=name, held=held),
    )


def slstm(R: Matrix, drive: Vector, *, name: str = "slstm", held: str = "") -> System:
    """Gates i, f, z, o: `R` [4H, dim], block-diagonal by head, `drive` [4H]; the carry is [h, c, n, m], 4H numbers.

    No box is known: c and n may be anything, and only their quotient is bounded.
    """
    size = len(drive) // 4
    _, _, R_z, R_o = dense(R, 4).chunk(4)

    def gates(h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """i~, f~, z, o."""
        i, f, z, o = (recurrent(h, R, 4) + drive).chunk(4, -1)
        return i, f, torch.tanh(z), torch.sigmoid(o)

    def step(x: Tensor) -> Tensor:
        carry = SLSTMCarry(*x.split(size, -1))
        return torch.cat(slstm_cell(recurrent(carry.h, R, 4) + drive, carry), -1)

    def expand(h: Tensor) -> Tensor:
        i, f, z, _ = gates(h)
        kept = 1 + torch.exp(f)
        return torch.cat([h, kept * z, kept, i], -1)

    def residual(h: Tensor) -> Tensor:
        _, _, z, o = gates(h)
        return o * z - h

    def linearise(h: Tensor) -> tuple[Tensor, Tensor]:
        _, _, z, o = gates(h)
        return o * z - h, less_identity(_weighed((o * (1 - o) * z, R_o), (o * (1 - z.square()), R_z)))

    return System(
        name=name,
        held=held,
        size=4 * size,
        step=step,
        jacobian=differentiate(step),
        roots=Roots(residual=residual, linearise=linearise, reduce=lambda x: x[:, :size].clone(), expand=expand),
        fields=tuple((field, (size,)) for field in SLSTMCarry._fields),
        shuffled=lambda seed: slstm(permuted(R, 4, seed), drive, name=name, held=held),
    )


def lstm_box(largest: Vector, size: int) -> Float64[Tensor, " carry"]:
    """Half-widths of [h, c]: |h'| < 1, and |c'| <= f |c| + 1 stays below 1 / (1 - f) for the largest forget gate.

    `largest` [4H]: the largest pre-activation of each gate for any |h| <= 1.
    """
    forget = largest[size : 2 * size]
    return torch.cat([torch.ones_like(forget), 1 + torch.exp(forget)])


def _weighed(*parts: tuple[Tensor, Tensor]) -> Tensor:
    """Sum of diag(w) R over the parts (w [n, H], R [H, H]), built in place: one pass over [n, H, H] for each."""
    (w, R), *rest = parts
    total = w[:, :, None] * R
    for w, R in rest:
        total.addcmul_(w[:, :, None], R)
    return total


def permuted(R: Tensor, gates: int, seed: int) -> Tensor:
    """`R` with the entries of each gate's block permuted: the same numbers, none of the structure."""
    generator = torch.Generator().manual_seed(seed)
    blocks = [b.flatten()[torch.randperm(b.numel(), generator=generator)].view_as(b) for b in R.chunk(gates)]
    return torch.cat(blocks)
