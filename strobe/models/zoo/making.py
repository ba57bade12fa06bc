"""Follow a recipe: train, round to bfloat16, measure what was stored, and write the model with its card.

The card's figures are measured here, on the rounded weights that ship, by the same code for every model.
"""

import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from strobe.core.atomic import write_text
from strobe.core.provenance import versions
from strobe.models.checkpoint import load_checkpoint, save_checkpoint
from strobe.models.corpus import PythonCorpus, baselines
from strobe.models.native import HookedLM
from strobe.models.tasks import task, task_batches, task_score
from strobe.models.training import (
    cross_entropy,
    evaluate_bits_per_byte,
    mean_squared_error,
    random_windows,
)
from strobe.models.training import train as run_training
from strobe.models.zoo.recipes import Progress, Recipe, recipe


def train(
    name: str, out: str | Path, *, runs: str | Path | None = None, on_progress: Progress | None = None
) -> dict[str, Any]:
    """Make the model that the recipe `name` describes in the folder `out`; returns its card.

    `runs` (default: ``{out}.run``) keeps the training checkpoint: a run that was stopped goes on from it. Raises
    ValueError for an unknown recipe.
    """
    made, out = recipe(name), Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    run_folder = Path(runs) if runs is not None else out.with_name(f"{out.name}.run")
    make = made.make or (_make_task_model if made.config.task else _make_language_model)
    card = make(made, out, run_folder, on_progress)
    write_text(out / "card.json", json.dumps(card, indent=1) + "\n")
    return card


def _make_language_model(made: Recipe, out: Path, runs: Path, on_progress: Progress | None) -> dict[str, Any]:
    corpus = PythonCorpus.build(vocab_size=made.config.d_vocab)
    valid, context = corpus.tokens("valid"), made.config.n_ctx

    def watch(model: torch.nn.Module) -> dict[str, float]:
        some = valid[: 128 * context]
        return {
            "bits_per_byte": evaluate_bits_per_byte(
                model, some, round(len(some) * corpus.bytes_per_token("valid")), context, 8
            )
        }

    model = HookedLM(made.config, tokenizer=corpus.tokenizer(), name=made.name)
    batches = random_windows(corpus.tokens("train"), made.training)
    report = run_training(model, batches, made.training, out_dir=runs, evaluate=watch, on_progress=on_progress)
    save_checkpoint(model, out, dtype=torch.bfloat16)
    stored = load_checkpoint(out)
    figures = {
        split: evaluate_bits_per_byte(stored, corpus.tokens(split), corpus.n_bytes(split), context, 8)
        for split in ("valid", "test")
    }
    return card_of(made, stored, report) | {
        "bits_per_byte": figures,
        "evaluation": f"windows of {context} tokens that do not overlap, float32, weights rounded to bfloat16",
        "baselines_test": baselines(corpus, "test"),
        "data": corpus.info,
    }


def _make_task_model(made: Recipe, out: Path, runs: Path, on_progress: Progress | None) -> dict[str, Any]:
    chosen = task(str(made.config.task))
    loss = mean_squared_error if chosen.kind == "real" else cross_entropy
    model = HookedLM(made.config, name=made.name)
    batches = task_batches(chosen, made.training, **made.task_options)
    report = run_training(model, batches, made.training, out_dir=runs, on_progress=on_progress, loss=loss)
    save_checkpoint(model, out, dtype=torch.bfloat16)
    stored = load_checkpoint(out)
    untrained = HookedLM(made.config, name=made.name).eval()
    return card_of(made, stored, report) | {
        "task": chosen.name,
        "task_options": made.task_options,
        "score": task_score(stored, chosen, **made.task_options),
        "chance": chosen.chance(**made.task_options),
        "score_untrained": task_score(untrained, chosen, **made.task_options),
    }


def card_of(made: Recipe, model: HookedLM, report: Any) -> dict[str, Any]:
    """What every card says of `model` as stored; `report` is what its training returned.

    Figures are the maker's to add, as ``tables`` (`strobe.models.zoo.card`) if they are its own kind.
    """
    return {
        "name": made.name,
        "about": made.about,
        "command": f"strobe train {made.name}",
        "layers": list(made.config.layers),
        "parameters": sum(p.numel() for p in model.parameters()),
        "weights_hash": model.weights_hash(),
        "seed": made.training.seed,
        "training": asdict(made.training),
        "tokens_seen": report.tokens,
        "training_minutes": round(report.seconds / 60, 1),
        "machine": f"{made.training.threads} CPU thread(s), Python {platform.python_version()}",
        "versions": versions(),
        "format": "strobe-card",
        "version": 1,
    }
