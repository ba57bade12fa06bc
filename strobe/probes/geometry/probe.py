"""`layer_geometry`: each block's updates against what a map of the token's own vector can say of them.

Blocks are taken one after the other and forgotten: a pass over the tokens for each block keeps that block's output
only, whose input is what the pass before kept. Activations are held of two layers, however many there are, and
states of all layers within a fixed number of bytes (`functional`), so memory does not grow with the depth.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from strobe.probes.geometry import global_maps, local_maps
from strobe.probes.geometry.functional import replacement_kl, variants
from strobe.probes.geometry.measures import N_SPECTRUM, PER_TOKEN, per_token
from strobe.probes.geometry.neighbours import Metric, neighbours
from strobe.probes.geometry.rank_correlation import spearman
from strobe.probes.geometry.result import RELATIONS, LayerGeometry
from strobe.probes.geometry.sequences import Sequences, library_sequences, sequences_of
from strobe.probes.geometry.source import PER_ROW, Source, Tokens
from strobe.probes.lens.readout import evaluating
from strobe.probes.partial import keeping
from strobe.probes.provenance import provenance_of

Tick = Callable[[int, int, str], None]
MAPS = ("diagonal", "low_rank", "orthogonal", "mlp", "linear", "constant", "identity")
# Penalties of the local maps that the bank's own tokens choose from, for each class and layer.
RIDGES = (1e-8, 1e-2, 1.0, 100.0)
_N_CHOOSING = 64
# Query tokens whose neighbours are gathered at a time.
_TOGETHER = 32
_CONTROL = (
    "maps that know nothing of the token: the identity, and the mean update; for the effect on the output, the "
    "residual in a random direction of equal length, and another token's residual scaled to its length"
)


def layer_geometry(
    model: Any,
    tokens: Any = None,
    *,
    layers: Iterable[int] | None = None,
    maps: Sequence[str] = MAPS,
    n_bank: int = 4096,
    n_judged: int = 512,
    context: int = 64,
    k: int = 64,
    rank: int = 8,
    metric: Metric = "cosine",
    horizon: int = 1,
    n_bootstrap: int = 1000,
    seed: int = 0,
    progress: Tick | None = None,
    partial: Callable[[LayerGeometry], None] | None = None,
) -> LayerGeometry:
    """How much of each block's update a tokenwise map predicts, and what the rest does to the output.

    `tokens`: `Sequences`, rows [n, time] (each a sequence), a text or stream (cut into rows of `context`), or None for
    held-out files of Python's library. `n_bank` tokens of some sequences fit the maps, `n_judged` of others, eight a
    row, judge them. `k` neighbours by `metric`; `rank` of the low-rank update. `horizon`: see `replacement_kl`.
    Where `progress` raises, `partial` is given the blocks that were done, if any.

    Yoo 2026 (arXiv:2604.02459) for the maps, neighbours and the correlation. Ours: every size, the penalties (chosen by
    the bank), position 0 left out, the controls, the measures of the update. Raises ValueError for a model of numbers,
    too few tokens or sequences, and layers or maps that do not exist.
    """
    wanted = _checked(model, layers, maps, n_bank, n_judged, k, rank, horizon)
    n_rows = -(-n_bank // (context - 1)) + -(-n_judged // PER_ROW)
    given = library_sequences(model, n_rows, context, seed) if tokens is None else sequences_of(model, tokens, context)
    fit, judge = given.split(-(-n_judged // min(PER_ROW, given.rows.shape[1] - 1)))
    source = Source(model, fit, judge, n_bank, n_judged, seed)
    found, settings = _Found(maps, judge, source), dict[str, Any]()

    def result() -> LayerGeometry:
        return found.result(model, provenance_of(model, seed=seed, settings=settings, control=_CONTROL))

    tick = keeping(progress, partial, lambda: result() if found.layers else None)
    with evaluating(model):
        for number, (layer, bank, judged) in enumerate(source.blocks(wanted)):
            say = _ticker(tick, number, len(wanted), layer)
            updates, ridges = _updates(bank, judged, maps, k, rank, metric, seed, say)
            say(0.8, "effect on the output")
            kl = _effect(model, source, layer, judged, updates, horizon, seed)
            found.add(layer, judged, updates, ridges, kl, n_bootstrap, seed)
            settings = {
                "n_bank": len(bank.x), "n_judged": len(judged.x), "sequences": len(np.unique(given.sequence)),
                "context": given.rows.shape[1], "k": k, "rank": rank, "metric": metric, "horizon": horizon,
                "layers": wanted, "n_bootstrap": n_bootstrap, "tokens": "library" if tokens is None else "given",
            }  # fmt: skip
    return result()


def _checked(
    model: Any, layers: Any, maps: Sequence[str], n_bank: int, n_judged: int, k: int, rank: int, horizon: int
) -> list[int]:
    n = model.cfg.n_layers
    if getattr(getattr(model, "config", None), "d_input", 0):
        raise ValueError(
            f"updates are compared over tokens; {model.model_name} takes real-valued inputs; use a language model"
        )
    wanted = list(range(n)) if layers is None else sorted(set(layers))
    if not wanted or wanted[0] < 0 or wanted[-1] >= n:
        raise ValueError(f"layers {wanted} were asked for; {model.model_name} has 0 to {n - 1}; give some of these")
    if unknown := [m for m in maps if m not in MAPS] or (["none"] if not maps else []):
        raise ValueError(f"map {unknown[0]!r} was asked for; there are {', '.join(MAPS)}")
    if min(n_bank, n_judged, k, rank, horizon) < 1 or n_judged < 4:
        raise ValueError(
            f"n_bank {n_bank}, n_judged {n_judged}, k {k}, rank {rank}, horizon {horizon}: give 1 or more of each, and "
            "4 judged tokens at least, as fewer have no rank correlation"
        )
    return wanted


def _updates(
    bank: Tokens, judged: Tokens, maps: Sequence[str], k: int, rank: int, metric: Metric, seed: int, say: Any
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Each map's predicted updates of the judged tokens, and the penalty that was chosen for it."""
    fits = {
        "diagonal": local_maps.diagonal,
        "low_rank": lambda x, near_x, near_y, ridge: local_maps.low_rank(x, near_x, near_y, ridge, rank),
        "orthogonal": local_maps.orthogonal,
    }
    updates, ridges = {}, {}
    held = global_maps.kept_back(bank.sequence)
    picked = np.random.default_rng(seed).permutation(len(bank.x))[:_N_CHOOSING]
    choosing = Tokens(*(t[torch.from_numpy(picked)] for t in bank))
    for number, name in enumerate(maps):
        say(0.8 * number / len(maps), name.replace("_", "-"))
        if name in fits:
            updates[name], ridges[name] = _local(fits[name], bank, judged, choosing, k, metric, say)
        elif name == "linear":
            predict, ridges[name] = global_maps.linear(bank.x, bank.y, held)
            updates[name] = predict(judged.x)
        elif name == "mlp":
            updates[name] = global_maps.mlp(bank.x, bank.y, held, seed)(judged.x)
        elif name == "constant":
            updates[name] = global_maps.constant(bank.x, bank.y)(judged.x)
        else:
            updates[name] = torch.zeros_like(judged.x)
    return updates, ridges


def _local(
    fit: Any, bank: Tokens, judged: Tokens, choosing: Tokens, k: int, metric: Metric, say: Any
) -> tuple[Tensor, float]:
    """The updates of `judged`, with the penalty under which tokens of the bank, without their own sequence, do best."""

    def predicted(tokens: Tokens, ridge: float) -> Tensor:
        near = neighbours(tokens.x, bank.x, tokens.sequence, bank.sequence, k, metric)
        parts = []
        for x, index in zip(tokens.x.split(_TOGETHER), near.split(_TOGETHER), strict=True):
            say(None, None)
            parts.append(fit(x, bank.x[index], bank.y[index], ridge))
        return torch.cat(parts)

    wanted = choosing.y - choosing.x
    errors = [float((predicted(choosing, r) - wanted).norm(dim=-1).mean()) for r in RIDGES]
    chosen = RIDGES[int(np.argmin(errors))]
    return predicted(judged, chosen), chosen


def _effect(
    model: Any, source: Source, layer: int, judged: Tokens, updates: dict[str, Tensor], horizon: int, seed: int
) -> np.ndarray:
    """KL [relation, map, token]: of the maps, of their random controls, of their permuted ones."""
    mapped = judged.x[:, None] + torch.stack(list(updates.values()), 1)
    shape = (len(source.judge_rows), len(source.positions))
    put = variants(judged.y, mapped, seed + layer).unflatten(0, shape)
    kl = replacement_kl(model, torch.from_numpy(source.judge_rows), source.positions, layer, put, horizon)
    return kl.reshape(-1, 3, len(updates)).transpose(1, 2, 0)


def _ticker(progress: Tick, number: int, total: int, layer: int) -> Any:
    """say(share of this block, what): says it in hundredths; say(None, None) only gives the caller a chance to stop."""
    last = [number * 100, ""]

    def say(share: float | None, what: str | None) -> None:
        if share is not None:
            last[:] = [number * 100 + round(100 * share), f"block {layer}: {what}"]
        progress(last[0], total * 100, last[1])

    return say


class _Found:
    """The numbers of the blocks so far, as arrays."""

    def __init__(self, maps: Sequence[str], judge: Sequences, source: Source) -> None:
        self.maps, self.source = tuple(maps), source
        self.layers: list[int] = []
        self.columns: dict[str, list[np.ndarray]] = {}

    def add(
        self, layer: int, judged: Tokens, updates: dict[str, Tensor], ridges: dict[str, float], kl: np.ndarray,
        n_bootstrap: int, seed: int,
    ) -> None:  # fmt: skip
        """The measures of one block, and the correlations of error and effect."""
        size = judged.y.norm(dim=-1)
        rows: dict[str, list[Any]] = {name: [] for name in (*PER_TOKEN, "dimensions", "spectrum")}
        for update in updates.values():
            values, dims, spectrum = per_token(judged.x, judged.y, update)
            for name, value in values.items():
                rows[name].append(value.cpu().numpy())
            rows["dimensions"].append(dims)
            rows["spectrum"].append(_padded(spectrum.cpu().numpy()))
        clusters = np.arange(len(size)) // len(self.source.positions)
        norm = size.cpu().numpy()
        related = [
            [
                spearman(
                    error, kl[0 if kind == "partial" else RELATIONS.index(kind), m], clusters,
                    given=norm if kind == "partial" else None, n_bootstrap=n_bootstrap, seed=seed,
                )
                for m, error in enumerate(rows["error_state"])
            ]
            for kind in RELATIONS
        ]  # fmt: skip
        self.layers.append(layer)
        here = {name: np.array(values) for name, values in rows.items()}
        here |= {
            "kl": kl, "rank_correlation": np.array(related).transpose(2, 0, 1), "state_norm": norm,
            "update_norm": (judged.y - judged.x).norm(dim=-1).cpu().numpy(),
            "ridge": np.array([ridges.get(name, np.nan) for name in self.maps]),
        }  # fmt: skip
        for name, value in here.items():
            self.columns.setdefault(name, []).append(value)

    def result(self, model: Any, provenance: Any) -> LayerGeometry:
        """The result so far."""
        stacked = {name: np.stack(values) for name, values in self.columns.items()}
        ids = self.source.judge_rows[:, self.source.positions].ravel()
        at = np.tile(self.source.positions, len(self.source.judge_rows))
        return LayerGeometry(
            maps=self.maps,
            layers=tuple(self.layers),
            n_layers=int(model.cfg.n_layers),
            d_model=int(model.cfg.d_model),
            token_ids=ids,
            position=at,
            sequence=self.source.judged_sequence.numpy(),
            **stacked,
            provenance=provenance,
        )


def _padded(spectrum: np.ndarray) -> np.ndarray:
    return np.pad(spectrum, (0, N_SPECTRUM - len(spectrum)), constant_values=0.0)
