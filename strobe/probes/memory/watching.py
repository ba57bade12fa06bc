"""Collects what `CarryDiagnostics` holds while an input streams by: a few numbers a position, no carry is kept."""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from strobe.core.memory import refuse_if_too_large
from strobe.probes.memory import carry_statistics
from strobe.probes.memory.mitigations import Mitigation
from strobe.probes.memory.scan_signals import NONLINEAR, changing, log_decay_sums, token_decay
from strobe.probes.memory.streaming import WindowMeans, pieces


class CarryWatch:
    """Statistics of the carry of `layers` after every `stride`-th token of inputs [batch, time, ...].

    Raises CaptureTooLarge if what is kept would not fit.
    """

    def __init__(self, model: Any, layers: list[int], train_length: int, stride: int, inputs: Tensor) -> None:
        self.model, self.layers, self.train_length, self.stride = model, layers, train_length, stride
        self.inputs = inputs
        self.family = {i: model.mixers[f"blocks.{i}.mixer"].family.name for i in layers}
        self.linear = [i for i in layers if self.family[i] not in NONLINEAR]
        self.positions: list[int] = []
        self.windows = WindowMeans(inputs.shape[1], stride)
        self._rows: dict[str, dict[int, _Rows]] = {}
        self._decay: dict[int, Tensor] = {}
        self._seen = dict.fromkeys(layers, 0)
        self._ranges = {i: carry_statistics.TrainingRange() for i in layers}
        self._refuse_too_much()

    def run(self, *, targets: Tensor | Literal["next"] | None, piece: int, under: Mitigation, tick: Any = None) -> None:
        """Stream the inputs, `piece` tokens at a time, `under` an intervention (a plain `Mitigation` does nothing)."""
        with under.open(self.model), changing(self.model, self._see_signals, self.linear):
            for part in pieces(self.model, self.inputs, targets=targets, every=self.stride, layers=self.layers,
                               looks=under.looks, hooks=under.hooks(self.model), piece=piece, tick=tick):  # fmt: skip
                if part.targets is not None:
                    self.windows.add(part)
                self.positions += part.positions
                for layer, memory in part.memories.items():
                    self._describe(layer, memory, part.positions)

    def kept(self, name: str) -> list[np.ndarray | None]:
        """What was kept under `name`, one array [positions, units] a layer; None where a layer has no such number."""
        rows = self._rows.get(name, {})
        return [rows[i].filled if i in rows else None for i in self.layers]

    def range_control(self, which: int) -> list[np.ndarray | None]:
        """Of rows held out, inside the training length: the share outside the range (0) or the distance (1)."""
        ranges = [self._ranges[i] for i in self.layers]
        return [r.inside()[which].float().cpu().numpy() if r.fitted else None for r in ranges]

    def mean_log_decay(self, time: int) -> list[np.ndarray | None]:
        """Mean log decay a token of every unit over the `time` tokens read, [heads, units] a layer."""
        return [(self._decay[i] / time).float().cpu().numpy() if i in self._decay else None for i in self.layers]

    def _see_signals(self, layer: int, family: str, inputs: Any) -> Any:
        decay = token_decay(family, inputs)
        time, start = len(decay.per_token), self._seen[layer]
        if start == 0:
            # Some layers (RG-LRU) mark their first token by a decay of 0, which multiplies an empty carry.
            decay.per_token[0].nan_to_num_(neginf=0.0)
        ends = list(range(self.stride - 1 - start % self.stride, time, self.stride))
        at_ends, total = log_decay_sums(decay, ends)
        before = self._decay.get(layer, torch.zeros_like(total))
        self._keep("log_retention", layer, (at_ends + before).mean(-1))
        self._decay[layer] = before + total
        self._seen[layer] = start + time
        return inputs

    def _describe(self, layer: int, memory: Tensor, positions: list[int]) -> None:
        family = self.family[layer]
        for name, values in carry_statistics.by_head(memory)._asdict().items():
            self._keep(f"head_{name}", layer, values)
        for name, values in carry_statistics.by_channel(memory)._asdict().items():
            self._keep(f"channel_{name}", layer, values)
        if (rank := carry_statistics.effective_rank(memory)) is not None:
            self._keep("rank", layer, rank)
        full = carry_statistics.saturation(family, memory, rank)
        if full is not None:
            self._keep("saturation", layer, full)
        if memory.shape[0] > 1:
            self._compare(layer, memory, sum(p < self.train_length for p in positions))

    def _compare(self, layer: int, memory: Tensor, inside: int) -> None:
        seen = self._ranges[layer]
        if inside:
            seen.fit(memory[:, :inside])
        if inside < memory.shape[1] and seen.fitted:
            share, z = seen.distance(memory[:, inside:])
            self._keep("outside", layer, share)
            self._keep("distance", layer, z)

    def _keep(self, name: str, layer: int, values: Tensor) -> None:
        layers = self._rows.setdefault(name, {})
        if layer not in layers:
            layers[layer] = _Rows(self.inputs.shape[1] // self.stride, tuple(values.shape[1:]))
        layers[layer].add(values)

    def _refuse_too_much(self) -> None:
        channels = 0
        for i in self.layers:
            mixer = self.model.mixers[f"blocks.{i}.mixer"]
            shape = getattr(mixer.init_carry(1, torch.float32, torch.device("meta")), mixer.memory).shape
            channels += shape[1] * shape[2] if len(shape) == 4 else shape[1]
        n = self.inputs.shape[1] // self.stride
        refuse_if_too_large(
            # Four numbers of four bytes.
            n * channels * 4 * 4,
            f"four numbers for each of {channels} channels at {n} positions",
            "ask for a longer stride or fewer layers",
        )


class _Rows:
    """Float32 numbers of up to `n` positions, in one block made at the start.

    Not a list of tensors: small blocks that stay between large ones that come and go keep the allocator from using
    their room again, and a million tokens took 680 MB of it.
    """

    def __init__(self, n: int, shape: tuple[int, ...]) -> None:
        self._numbers, self._count = np.empty((n, *shape), dtype=np.float32), 0

    def add(self, values: Tensor) -> None:
        """Put in those of the next positions."""
        end = self._count + len(values)
        self._numbers[self._count : end] = values.detach().cpu().numpy()
        self._count = end

    @property
    def filled(self) -> np.ndarray:
        """What was put in."""
        return self._numbers[: self._count]
