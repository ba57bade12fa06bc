"""Two models of segmented recall that differ in the length they were trained on: one segment, and two.

`recall-t64` never had to forget and did not learn to; `recall-t128` had to. A synthetic overwrite task of ours, and no
language model. Each is made with two more seeds and a sweep around it, whose figures stand in its card.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from strobe.models.checkpoint import load_checkpoint, save_checkpoint
from strobe.models.config import ModelConfig
from strobe.models.native import HookedLM
from strobe.models.tasks import task, task_batches, task_score
from strobe.models.training import TrainingConfig, TrainingReport, train
from strobe.models.training.initial_carry import STARTS, CarriedStart
from strobe.models.zoo.recipes import recall_card
from strobe.models.zoo.recipes.recipe import Progress, Recipe

_SEGMENT, _SEEDS, _FURTHER_STEPS = 64, (0, 1, 2), 100
_CURE = ("none (control)", *STARTS)


def _config(segments: int, *, seed: int = 0, state: int = 32, layers: int = 1) -> ModelConfig:
    return ModelConfig(
        d_model=64,
        d_vocab=49,
        layers=["mamba2"] * layers,
        mixer_options={"mamba2": {"heads": 4, "head_dim": 32, "state": state}},
        mlp="none",
        n_ctx=_SEGMENT * segments,
        tie_embeddings=False,
        task="segmented_recall",
        seed=seed,
    )


def _training(segments: int, *, seed: int = 0, steps: int = 1000) -> TrainingConfig:
    return TrainingConfig(
        steps=steps,
        batch_size=64 // segments,
        context=_SEGMENT * segments,
        learning_rate=3e-3,
        final_lr=1.0,
        betas=(0.9, 0.999),
        seed=seed,
        threads=1,
    )


def _make(made: Recipe, out: Path, runs: Path, on_progress: Progress | None) -> dict[str, Any]:
    from strobe.models.zoo.making import card_of

    segments = made.task_options["segments"]
    others: list[tuple[str, int, ModelConfig]] = [
        (f"seed {seed}", segments, _config(segments, seed=seed)) for seed in _SEEDS
    ]
    others += _SWEEPS[segments]
    stored, reports = {}, {}
    for i, (name, window, config) in enumerate(others):
        folder = runs / name.replace(" ", "-")
        tell = None if on_progress is None else _part(on_progress, i, len(others), name)
        model = HookedLM(config, name=f"{made.name}, {name}")
        training = _training(window, seed=config.seed)
        batches = task_batches(task("segmented_recall"), training, segments=window)
        reports[name] = train(model, batches, training, out_dir=folder, on_progress=tell)
        kept = out if i == 0 else folder / "stored"
        save_checkpoint(model, kept, dtype=torch.bfloat16)
        stored[name] = load_checkpoint(kept)
    first = stored["seed 0"]
    untrained = HookedLM(made.config, name=made.name).eval()
    chosen = task("segmented_recall")
    tables = recall_card.tables(stored, untrained)
    if segments == 1:
        tables.append(recall_card.cures({"before": first, **_further(first, runs)}))
    return card_of(made, first, reports["seed 0"]) | {
        "task": chosen.name,
        "task_options": made.task_options,
        "score": task_score(first, chosen, **made.task_options),
        "chance": chosen.chance(**made.task_options),
        "score_untrained": task_score(untrained, chosen, **made.task_options),
        "tables": tables,
    }


def _further(model: HookedLM, runs: Path) -> dict[str, HookedLM]:
    """`model` trained on for a tenth of its steps, on single segments still, from each kind of initial carry."""
    found = {}
    for start in _CURE:
        copy = HookedLM(model.config, name=f"{model.model_name}, {start}")
        copy.load_state_dict(model.state_dict())
        # Another seed: the segments of the first training would come again.
        training = replace(_training(1, seed=1000, steps=_FURTHER_STEPS), learning_rate=1e-3)
        trained = copy if start not in STARTS else CarriedStart(copy, start, scale=recall_card.rms_of(model))
        batches = task_batches(task("segmented_recall"), training)
        _run(trained, batches, training, runs / f"from-{start.split()[0]}")
        found[start] = copy.eval()
    return found


def _run(model: torch.nn.Module, batches: Any, training: TrainingConfig, folder: Path) -> TrainingReport:
    return train(model, batches, training, out_dir=folder)


def _part(on_progress: Progress, i: int, n: int, name: str) -> Progress:
    return lambda done, total, message: on_progress(i * total + done, n * total, f"{name}: {message}")


_SWEEPS = {
    1: [
        ("state of 8", 1, _config(1, state=8)),
        ("state of 128", 1, _config(1, state=128)),
        ("two layers", 1, _config(1, layers=2)),
    ],
    2: [(f"windows of 4, seed {seed}", 4, _config(4, seed=seed)) for seed in _SEEDS[:2]],
}
_TASK_WORDS = "Key/value recall over segments of 64 tokens, each with a map of its own (a synthetic overwrite task)"

RECIPES = (
    Recipe(
        name="recall-t64",
        config=_config(1),
        training=_training(1),
        about=f"{_TASK_WORDS}, trained on single segments: never asked to forget, it collapses beyond them.",
        task_options={"segments": 1},
        make=_make,
    ),
    Recipe(
        name="recall-t128",
        config=_config(2),
        training=_training(2),
        about=f"{_TASK_WORDS}, trained on windows of two: it had to forget, and holds on the 128 that were tried.",
        task_options={"segments": 2},
        make=_make,
    ),
)
