"""The time mixing of RWKV-4 (Peng et al. 2023, "RWKV", eq. 16 and appendix D, numerically safe): the definition.

    wkv_t = (e^{max_{t-1}} num_{t-1} + e^{u + k_t} v_t) / (e^{max_{t-1}} den_{t-1} + e^{u + k_t})

    max_t = max(max_{t-1} + w, k_t)
    num_t = e^{max_{t-1} + w - max_t} num_{t-1} + e^{k_t - max_t} v_t
    den_t = e^{max_{t-1} + w - max_t} den_{t-1} + e^{k_t - max_t}

A softmax over the past whose logits k_s lose w for each token, read *before* the write: the token itself counts with
its bonus u instead. num and den are stored divided by e^max, which no longer cancels when somebody edits them:
an edit of `num` alone changes the values remembered, one of `num` and `den` alike how much the past weighs.

Shape letters: batch, time, channels, n_readers. The read is wkv_t.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from strobe.kernels.chunks import work_dtype

# log of the initial normaliser's scale: e^EMPTY is 0, and EMPTY - EMPTY is 0 where -inf would give NaN.
EMPTY = -1e38


class WKVCarry(NamedTuple):
    """`num`, `den` and `max`, each [batch, channels]: weighted sum of values, of ones, and the log of their scale."""

    num: Tensor
    den: Tensor
    max: Tensor


class WKVSignals(NamedTuple):
    """`w` (log decay per token, negative: -exp(time_decay)) and `u` (bonus) are constants.

    A False in `mask` is padding: it neither decays nor writes. Computed in the widest dtype given, at least float32.
    """

    k: Float[Tensor, "batch time channels"]
    v: Float[Tensor, "batch time channels"]
    w: Float[Tensor, " channels"]
    u: Float[Tensor, " channels"]
    mask: Bool[Tensor, "batch time"] | None = None


def init_carry(signals: WKVSignals) -> WKVCarry:
    """num_0 = den_0 = 0 and max_0 = -1e38, which stands for minus infinity."""
    num = signals.k.new_zeros(signals.k.shape[0], signals.k.shape[-1], dtype=work_dtype(*signals[:4]))
    return WKVCarry(num, torch.zeros_like(num), torch.full_like(num, EMPTY))


def read_before_write(k: Tensor, v: Tensor, u: Tensor, carry: WKVCarry) -> Tensor:
    """wkv_t from the carry that reaches token t."""
    top = torch.maximum(carry.max, u + k).detach()  # cancels: no gradient of the read depends on it
    past, own = torch.exp(carry.max - top), torch.exp(u + k - top)
    return (past * carry.num + own * v) / (past * carry.den + own)


def step(signals: WKVSignals, carry: WKVCarry) -> tuple[WKVCarry, Tensor]:
    """One token: `k`, `v` [batch, channels], `mask` [batch]; the read is wkv_t [batch, channels]."""
    dtype = work_dtype(*signals[:4])
    k, v, w, u = (x.to(dtype) for x in signals[:4])
    read = read_before_write(k, v, u, carry)
    top = torch.maximum(carry.max + w, k)
    past, own = torch.exp(carry.max + w - top), torch.exp(k - top)
    after = WKVCarry(past * carry.num + own * v, past * carry.den + own, top)
    if signals.mask is None:
        return after, read
    kept = signals.mask.unsqueeze(-1)
    return WKVCarry(*(torch.where(kept, new, old) for new, old in zip(after, carry, strict=True))), read


def reader(carry: WKVCarry, readers: Tensor) -> Tensor:
    """`readers` [n_readers, channels]: u . (num / den), the remembered average of values along u; [batch, n_readers].

    That average is what a token with no say of its own would read. An empty carry (den = 0) answers 0.
    """
    return answer(carry.num, carry.den, readers)


def answer(num: Tensor, den: Tensor, readers: Tensor) -> Tensor:
    """What `readers` answer on `num`, `den` [..., channels]: [..., n_readers]."""
    empty = den == 0
    average = (num / den.masked_fill(empty, 1)).masked_fill(empty, 0)
    return average @ readers.T.to(average.dtype)


def hold(signals: WKVSignals, mask: Tensor) -> WKVSignals:
    """Padding where `mask` [batch, time] is False (and where it already was)."""
    return signals._replace(mask=mask.bool() if signals.mask is None else signals.mask & mask.bool())


def attention(signals: WKVSignals) -> Tensor:
    """E[t, s], the weight of v_s in wkv_t from an empty carry: [batch, channels, time, time]; rows sum to one.

    softmax over s <= t of k_s + w (number of tokens strictly between s and t), and u + k_t for s = t.
    """
    dtype = work_dtype(*signals[:4])
    k, _, w, u = (x.to(dtype).mT if x.ndim == 3 else x.to(dtype) for x in signals[:4])
    batch, _, time = k.shape
    mask = k.new_ones(batch, time, dtype=torch.bool) if signals.mask is None else signals.mask
    age = mask.cumsum(1)
    between = (age - mask.to(age.dtype)).unsqueeze(2) - age.unsqueeze(1)  # [batch, time (t), time (s)]
    past = torch.ones(time, time, dtype=torch.bool, device=k.device).tril(-1) & mask.unsqueeze(1)
    logits = k.unsqueeze(2) + w[:, None, None] * between.unsqueeze(1)
    logits = logits.masked_fill(~past.unsqueeze(1), -torch.inf)
    own = torch.eye(time, dtype=torch.bool, device=k.device)
    return torch.where(own, (u[:, None] + k).unsqueeze(2), logits).softmax(-1)


def random_signals(
    batch: int, time: int, *, dtype: torch.dtype = torch.float32, seed: int = 0, channels: int = 5
) -> WKVSignals:
    """Keys normal with standard deviation 2, values and bonus standard normal, decays e^w from 0.37 to 0.95."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    w = -torch.exp(torch.linspace(-3.0, 0.0, channels, dtype=torch.float64))
    k, v, u = 2 * normal(batch, time, channels), normal(batch, time, channels), normal(channels)
    return WKVSignals(k.to(dtype), v.to(dtype), w.to(dtype), u.to(dtype))
