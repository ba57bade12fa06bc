"""Softmax attention with rotary positions, grouped keys and an optional sliding window.

Vaswani et al. 2017 (attention); Su et al. 2021 (rotary); Ainslie et al. 2023 (grouped keys); Beltagy et al. 2020
(sliding window). Its carry is the key/value cache: part of a `ModelState`, without a ``hook_carry``.

Shape letters: B batch, T queries, S keys, H heads, G key heads, D head_dim.

Hooks: ``hook_q`` [B,T,H,D] and ``hook_k`` [B,T,G,D] after rotary, ``hook_v`` [B,T,G,D], ``hook_z`` [B,T,H,D] before the
output projection, ``hook_pattern`` [B,H,T,S] (only when someone hooks it is the pattern written out).
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from strobe.models.run import Run


@dataclass(frozen=True, kw_only=True)
class Config:
    """`window`: how many tokens back a query sees, itself included; None is all."""

    d_model: int
    n_heads: int
    n_key_heads: int | None = None
    window: int | None = None
    rotary_base: float = 10000.0


class KV(NamedTuple):
    """The key/value cache. `seen` counts each row's real tokens; `real` is False at padding.

    `grows`: the fields whose axis 1 is as long as what was read.
    """

    grows = ("k", "v", "real", "position")
    k: Float[Tensor, "batch keys groups head_dim"]
    v: Float[Tensor, "batch keys groups head_dim"]
    real: Bool[Tensor, "batch keys"]
    position: Int[Tensor, "batch keys"]
    seen: Int[Tensor, " batch"]


class Attention(nn.Module):
    """Causal softmax attention; see the module's docstring."""

    Config = Config
    Carry = KV

    def __init__(self, config: Config) -> None:
        super().__init__()
        groups = config.n_key_heads or config.n_heads
        if config.d_model % config.n_heads or config.n_heads % groups:
            raise ValueError(
                f"attention: d_model {config.d_model} must be a multiple of n_heads {config.n_heads}, "
                f"and that of n_key_heads {groups}"
            )
        self.config, self.groups, self.head_dim = config, groups, config.d_model // config.n_heads
        self.run: Run | None = None
        self.key = ""
        self.W_Q = nn.Linear(config.d_model, config.d_model, bias=False)
        self.W_K = nn.Linear(config.d_model, groups * self.head_dim, bias=False)
        self.W_V = nn.Linear(config.d_model, groups * self.head_dim, bias=False)
        self.W_O = nn.Linear(config.d_model, config.d_model, bias=False)
        self.hook_q, self.hook_k, self.hook_v = HookPoint(), HookPoint(), HookPoint()
        self.hook_z, self.hook_pattern = HookPoint(), HookPoint()

    def init_carry(self, batch: int, dtype: torch.dtype, device: torch.device) -> KV:
        """An empty cache."""
        empty = torch.zeros(batch, 0, self.groups, self.head_dim, dtype=dtype, device=device)
        none = torch.zeros(batch, 0, dtype=torch.long, device=device)
        return KV(empty, empty, none.bool(), none, torch.zeros(batch, dtype=torch.long, device=device))

    def forward(self, x: Float[Tensor, "batch time d_model"]) -> Float[Tensor, "batch time d_model"]:
        run = self.run or Run()
        past: Any = run.carries.get(self.key)
        if past is None:
            past = self.init_carry(x.shape[0], x.dtype, x.device)
        mask = run.mask if run.mask is not None else torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        position = past.seen[:, None] + mask.cumsum(1) - 1

        q_BTHD = self.hook_q(rotate(self._heads(self.W_Q(x)), position, self.config.rotary_base))
        k_BTGD = self.hook_k(rotate(self._heads(self.W_K(x)), position, self.config.rotary_base))
        v_BTGD = self.hook_v(self._heads(self.W_V(x)))
        cache = KV(
            torch.cat([past.k, k_BTGD], 1),
            torch.cat([past.v, v_BTGD], 1),
            torch.cat([past.real, mask], 1),
            torch.cat([past.position, position], 1),
            past.seen + mask.sum(1),
        )
        run.keep(self.key, self._trim(cache))
        z_BTHD = self.hook_z(self._attend(q_BTHD, cache, position, unmasked=run.mask is None))
        return self.W_O(z_BTHD.flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim))

    def _attend(self, q_BTHD: Tensor, cache: KV, position: Tensor, *, unmasked: bool) -> Tensor:
        q, k, v = (t.transpose(1, 2) for t in (q_BTHD, cache.k, cache.v))
        plain = unmasked and k.shape[2] == q.shape[2] and self.config.window is None
        if plain and not self.hook_pattern.has_hooks():
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self._grouped()).transpose(1, 2)
        allowed = self._allowed(cache, position)
        if not self.hook_pattern.has_hooks():
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, enable_gqa=self._grouped())
            return out.transpose(1, 2)
        repeat = self.config.n_heads // self.groups
        k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        scores = (q @ k.transpose(-1, -2)) / math.sqrt(self.head_dim)
        pattern = self.hook_pattern(scores.masked_fill(~allowed, -torch.inf).softmax(-1))
        return (pattern @ v).transpose(1, 2)

    def _grouped(self) -> bool:
        return self.groups != self.config.n_heads

    def _allowed(self, cache: KV, position: Tensor) -> Bool[Tensor, "batch 1 time keys"]:
        """A query sees real keys up to its own position, within the window; a padding query sees itself (a softmax
        over nothing would be NaN, and its output is not used)."""
        time, keys = position.shape[1], cache.k.shape[1]
        distance = position[:, :, None] - cache.position[:, None, :]
        allowed = (distance >= 0) & cache.real[:, None, :]
        if self.config.window is not None:
            allowed &= distance < self.config.window
        own = (
            torch.arange(keys, device=position.device)
            == torch.arange(keys - time, keys, device=position.device)[:, None]
        )
        return (allowed | (own & ~cache.real[:, None, :]))[:, None]

    def _trim(self, cache: KV) -> KV:
        if self.config.window is None or not bool(cache.real.all()):
            return cache
        k, v, real, position = (t[:, -self.config.window :] for t in cache[:4])
        return KV(k, v, real, position, cache.seen)


def rotate(
    x: Float[Tensor, "batch time heads head_dim"], position: Int[Tensor, "batch time"], base: float
) -> Float[Tensor, "batch time heads head_dim"]:
    """Rotary position embedding (Su et al. 2021, eq. 34), halves paired as in GPT-NeoX."""
    half = x.shape[-1] // 2
    frequency = base ** (-torch.arange(half, device=x.device, dtype=torch.float64) / half)
    angle = (position[..., None] * frequency)[:, :, None]
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half : 2 * half]
    return torch.cat([first * cos - second * sin, second * cos + first * sin, x[..., 2 * half :]], -1)
