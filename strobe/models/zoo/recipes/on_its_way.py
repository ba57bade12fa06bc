"""A flip-flop network with its weights at several steps of its training: how its fixed points come about."""

from pathlib import Path
from typing import Any

import torch

from strobe.models.checkpoint import load_checkpoint, save_checkpoint
from strobe.models.config import ModelConfig
from strobe.models.native import HookedLM
from strobe.models.tasks import task, task_batches, task_score
from strobe.models.training import TrainingConfig, mean_squared_error, train
from strobe.models.zoo.recipes.recipe import Progress, Recipe
from strobe.models.zoo.training_steps import save_steps

# Close together where a first run, which kept fewer, had gone from one fixed point to 27.
STEPS = (0, 20, 40, 44, 48, 52, 56, 60, 80, 100, 200, 600)


def _make(made: Recipe, out: Path, runs: Path, on_progress: Progress | None) -> dict[str, Any]:
    from strobe.models.zoo.making import card_of

    chosen = task(str(made.config.task))
    model = HookedLM(made.config, name=made.name)
    kept: dict[int, dict[str, torch.Tensor]] = {0: _copied(model)}

    def watch(done: int, total: int, message: str) -> None:
        if done in STEPS:
            kept[done] = _copied(model)
        if on_progress is not None:
            on_progress(done, total, message)

    batches = task_batches(chosen, made.training, **made.task_options)
    # Begun anew where it was stopped: the steps before are part of what is kept.
    report = train(
        model, batches, made.training, out_dir=runs, on_progress=watch, loss=mean_squared_error, resume=False
    )
    save_checkpoint(model, out, dtype=torch.bfloat16)
    save_steps(out, kept)
    stored = load_checkpoint(out)
    scores = []
    for weights in kept.values():
        model.load_state_dict(weights)
        scores.append(task_score(model.eval(), chosen, **made.task_options))
    return card_of(made, stored, report) | {
        "task": chosen.name,
        "task_options": made.task_options,
        "score": task_score(stored, chosen, **made.task_options),
        "chance": chosen.chance(**made.task_options),
        "score_untrained": scores[0],
        "tables": [
            {
                "title": "On its way",
                "columns": ["step", "mean squared error", "share of signs right"],
                "rows": [[step, *map(_rounded, score.values())] for step, score in zip(kept, scores, strict=True)],
                "note": f"Weights kept in float32 after these steps; control: step 0, and always saying 0, "
                f"{chosen.chance(**made.task_options):g}.",
            }
        ],
    }


def _rounded(x: float) -> float:
    return float(f"{x:.3g}")


def _copied(model: HookedLM) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


RECIPES = (
    Recipe(
        name="flipflop-on-its-way",
        about="Three bits held by sixteen tanh units, with its weights at twelve steps of its training.",
        config=ModelConfig(
            d_model=16,
            d_vocab=3,
            d_input=3,
            layers=["elman"],
            mixer_options={"elman": {"hidden": 16, "project_out": False}},
            mlp="none",
            norm="none",
            residual=False,
            tie_embeddings=False,
            task="flip_flop",
        ),
        training=TrainingConfig(
            steps=600,
            context=64,
            batch_size=128,
            learning_rate=1e-2,
            weight_decay=0.0,
            final_lr=0.05,
            warmup=20,
            threads=1,
        ),
        task_options={"time": 64, "p": 0.5},
        make=_make,
    ),
)
