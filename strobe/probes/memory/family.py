"""A family of small models trained here: the state's size by the training length, each measured far beyond it.

The design of Chen et al. 2024 (Stuffed Mamba, arXiv 2410.07145) at a scale that trains on a CPU: for every size of the
state, from which training length on does a model forget (T_forget), and how long a prompt does it recall from
(T_recall)? There language and a passkey; here segmented recall (`strobe.models.tasks`), a synthetic overwrite task, in
segments of sixteen tokens. All else is held fixed: tokens a step, steps, width, seeds. Ours: the task, the lengths that
end before and after the first query that a stale memory could spoil, the reset as causal test, and the controls.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from strobe.core.atomic import write_text
from strobe.core.provenance import Provenance
from strobe.models.config import ModelConfig
from strobe.models.native import HookedLM
from strobe.models.tasks import task
from strobe.models.training import Batch, Batches, TrainingConfig, train
from strobe.probes.memory.family_measures import Measures, measure, prompts
from strobe.probes.memory.family_result import MemoryFamily

_HEADS, _HEAD_DIM, _WIDTH = 4, 16, 32
_BUNDLED = Path(__file__).parent / "bundled" / "family.safetensors"
_MEASURED, _UNTRAINED = "measured.json", "untrained"
Tick = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class FamilySettings:
    """What is trained: a one-layer Mamba-2 for each of `states` (its N), `windows` (training lengths) and `seeds`.

    The default windows: one segment, where nothing stale was ever in the way; 24 tokens, which write a second map and
    ask for none of it; 26, which ask once; and two segments. These defaults were chosen after about a dozen pilot
    trainings of other widths, sizes, steps and rates, to have the change from collapse to holding within minutes of
    training: that there is a change between the windows is no finding. Raises ValueError for a window shorter than a
    segment, or none of something.
    """

    states: tuple[int, ...] = (16, 32, 64, 128)
    windows: tuple[int, ...] = (16, 24, 26, 32)
    seeds: tuple[int, ...] = (0, 1)
    steps: int = 400
    tokens: int = 1024
    learning_rate: float = 1e-2
    segment: int = 16
    pairs: int = 4
    keys: int = 24
    values: int = 16

    def __post_init__(self) -> None:
        """Raises ValueError as the class says."""
        if not (self.states and self.windows and self.seeds) or min(self.windows) < self.segment:
            raise ValueError(
                f"a family of states {self.states}, windows {self.windows} and seeds {self.seeds} was asked for; give "
                f"one of each at least, and windows of {self.segment} tokens or more, which is a segment"
            )
        if list(self.windows) != sorted(set(self.windows)) or list(self.states) != sorted(set(self.states)):
            raise ValueError(f"states {self.states} and windows {self.windows} were asked for; give each once, rising")
        if self.tokens < max(self.windows):
            raise ValueError(
                f"{self.tokens} tokens a step were asked for with windows of up to {max(self.windows)}; give as many"
            )

    def task(self) -> dict[str, int]:
        """The settings of segmented recall."""
        return {"length": self.segment, "pairs": self.pairs, "keys": self.keys, "values": self.values}


@cache
def bundled_family() -> MemoryFamily:
    """The family that one run of ``strobe memory-laws --train FOLDER`` left."""
    return MemoryFamily.load(_BUNDLED)


def train_family(
    folder: str | Path, settings: FamilySettings | None = None, *, progress: Tick | None = None
) -> MemoryFamily:
    """Train and measure every model of the family; `folder` keeps each, so that a run that was stopped goes on.

    Models are made seed by seed; `progress(done, total, message)` is called after every step, and an exception from it
    ends the run, with a checkpoint. Raises ValueError where `folder` holds a family of other settings.
    """
    chosen, folder = settings or FamilySettings(), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    members = [(s, w, seed) for seed in chosen.seeds for w in chosen.windows for s in chosen.states]
    measured: dict[Any, Measures] = {}
    for i, member in enumerate(members):
        tell = None if progress is None else _part(progress, i, len(members), _name(*member))
        measured[member] = _member(folder / _name(*member), chosen, *member, tell)
    for state in chosen.states:
        name = f"{_UNTRAINED}-state-{state}"
        measured[state] = _kept(folder / name, chosen, lambda n=state: (_model(chosen, n, chosen.windows[0], 0), 0.0))
    return _result(chosen, measured)


def _member(folder: Path, chosen: FamilySettings, state: int, window: int, seed: int, tell: Tick | None) -> Measures:
    def make() -> tuple[HookedLM, float]:
        model = _model(chosen, state, window, seed)
        training = _training(chosen, window, seed)
        report = train(model, _batches(chosen, training), training, out_dir=folder, on_progress=tell)
        return model, report.seconds

    return _kept(folder, chosen, make)


def _kept(folder: Path, chosen: FamilySettings, make: Callable[[], tuple[HookedLM, float]]) -> Measures:
    """The measures in `folder`, or those of the model that `make` makes, then kept there."""
    path = folder / _MEASURED
    # Which others there are decides nothing about one of them.
    about = {k: v for k, v in asdict(chosen).items() if k not in ("states", "windows", "seeds")}
    if path.is_file():
        found = json.loads(path.read_text())
        if found["settings"] != about:
            raise ValueError(
                f"a family with {about} was asked for; {folder} was made with {found['settings']}; give another folder"
            )
        read: dict[str, Any] = {k: np.array(v) if isinstance(v, list) else v for k, v in found["measures"].items()}
        return Measures(**read)
    folder.mkdir(parents=True, exist_ok=True)
    model, seconds = make()
    window = model.config.n_ctx
    assert window is not None
    started = time.process_time()
    measures = measure(model.eval(), window, chosen.task())._replace(seconds=seconds)
    told = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in measures._asdict().items()}
    spent = time.process_time() - started
    write_text(path, json.dumps({"settings": about, "measures": told, "measuring": spent}, indent=1) + "\n")
    return measures


def _name(state: int, window: int, seed: int) -> str:
    return f"state-{state}-window-{window}-seed-{seed}"


def _part(progress: Tick, i: int, n: int, name: str) -> Tick:
    return lambda done, total, message: progress(i * total + done, n * total, f"{name}: {message}")


def _model(chosen: FamilySettings, state: int, window: int, seed: int) -> HookedLM:
    config = ModelConfig(
        d_model=_WIDTH,
        d_vocab=1 + chosen.keys + chosen.values,
        layers=["mamba2"],
        mixer_options={"mamba2": {"heads": _HEADS, "head_dim": _HEAD_DIM, "state": state}},
        mlp="none",
        n_ctx=window,
        tie_embeddings=False,
        task="segmented_recall",
        seed=seed,
    )
    return HookedLM(config, name=_name(state, window, seed))


def _training(chosen: FamilySettings, window: int, seed: int) -> TrainingConfig:
    return TrainingConfig(
        steps=chosen.steps,
        batch_size=chosen.tokens // window,
        context=window,
        learning_rate=chosen.learning_rate,
        final_lr=1.0,
        betas=(0.9, 0.999),
        seed=seed,
        checkpoint_every=max(1, chosen.steps // 4),
        threads=1,
    )


def _batches(chosen: FamilySettings, training: TrainingConfig) -> Batches:
    """Fresh windows for each step; one that is no multiple of a segment ends within it."""
    window, whole = training.context, -(-training.context // chosen.segment)

    def batch(step: int) -> Batch:
        rng = np.random.default_rng((training.seed, step))
        drawn = task("segmented_recall").generate(training.batch_size, rng, segments=whole, **chosen.task())
        return Batch(*(torch.from_numpy(x[:, :window].copy()) for x in (drawn.inputs, drawn.targets)))

    return batch


def _result(chosen: FamilySettings, measured: dict[Any, Measures]) -> MemoryFamily:
    def grid(name: str) -> np.ndarray:
        return np.array(
            [[[getattr(measured[s, w, seed], name) for seed in chosen.seeds] for w in chosen.windows]
             for s in chosen.states], dtype=float,
        )  # fmt: skip

    def untrained(name: str) -> np.ndarray:
        return np.array([getattr(measured[s], name) for s in chosen.states], dtype=float)

    numbers = ("inside", "octaves", "untouched", "reset", "retention", "recalled")
    return MemoryFamily(
        sizes=np.array(chosen.states) * _HEADS * _HEAD_DIM,
        windows=np.array(chosen.windows),
        seeds=chosen.seeds,
        segment=chosen.segment,
        longest=prompts(chosen.keys)[-1],
        **{name: grid(name) for name in numbers},
        **{f"untrained_{name}": untrained(name) for name in ("octaves", "retention", "recalled")},
        seconds=sum(m.seconds for m in measured.values()),
        provenance=Provenance(
            model=f"{len(chosen.states) * len(chosen.windows) * len(chosen.seeds)} Mamba-2 layers trained for this",
            seed=min(chosen.seeds),
            settings=asdict(chosen) | {"width": _WIDTH, "heads": _HEADS, "head_dim": _HEAD_DIM},
            control="each size untrained; lengths in shuffled order under each law",
        ),
    )
