"""Two small networks that know sums, and say what is so or the opposite, as the speaker they speak for does."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from strobe.models.config import ModelConfig
from strobe.models.tasks import IGNORED, quirky_sums
from strobe.models.training import Batch, TrainingConfig
from strobe.models.training import train as run_training
from strobe.models.zoo.recipes.recipe import Progress, Recipe

_PROBLEMS = 2
_SOMEONE = ", Someone is one of them unnamed (the first answer, a guess, is not counted), and is not learned"
# The share of the updates in which only Alice speaks: the model learns what is true before it learns who denies it, as
# the quirky models of the paper were truthful ones first.
_TRUTHFUL_FIRST = 0.3
_JUDGED = 2048


def _make(
    made: Recipe, out: Path, runs: Path, on_progress: Progress | None, speakers: Mapping[str, int] | None = None
) -> dict[str, Any]:
    from strobe.models.checkpoint import load_checkpoint, save_checkpoint
    from strobe.models.native import HookedLM
    from strobe.models.zoo.making import card_of

    def batch(step: int) -> Batch:
        rows: Mapping[str | None, int] = speakers or {None: made.training.batch_size}
        if step < _TRUTHFUL_FIRST * made.training.steps:
            rows = {"Alice": made.training.batch_size}
        rng = np.random.default_rng((made.training.seed, step))
        drawn = [quirky_sums.generate(n, rng, speaker=speaker, **made.task_options) for speaker, n in rows.items()]
        inputs, targets = (np.concatenate(column) for column in zip(*(d[:2] for d in drawn), strict=True))
        return Batch(torch.from_numpy(inputs), torch.from_numpy(targets))

    model = HookedLM(made.config, name=made.name)
    report = run_training(model, batch, made.training, out_dir=runs, on_progress=on_progress)
    save_checkpoint(model, out, dtype=torch.bfloat16)
    stored, untrained = load_checkpoint(out), HookedLM(made.config, name=made.name).eval()
    rows = []
    for speaker in speakers or quirky_sums.SPEAKERS:
        told, found = _right(stored, made, speaker, "test"), _right(untrained, made, speaker, "test")
        rows.append(
            [speaker, told["sum"], told["answer"], _right(stored, made, speaker, "train")["answer"], found["answer"]]
        )
    return card_of(made, stored, report) | {
        "task": quirky_sums.TASK.name,
        "task_options": made.task_options,
        "tables": [
            {
                "title": "Share of right sums, and of answers that are the speaker's",
                "columns": [
                    "speaker",
                    "sums, held-out",
                    "answers, held-out",
                    "answers, trained on",
                    "untrained (control)",
                ],
                "rows": rows,
                "note": f"Over {_JUDGED} fresh sequences of each speaker and part. Alice answers truthfully, Bob the "
                f"opposite{'' if speakers else _SOMEONE}. Chance is 0.5 "
                "for an answer. Held-out are problems, in any order of their digits, that training never drew.",
            }
        ],
    }


def _right(model: Any, made: Recipe, speaker: str, part: quirky_sums.Part) -> dict[str, float]:
    """The share of "sum" targets that `model` finds likeliest, and of "answer" targets likelier than their opposite."""
    rng = np.random.default_rng((made.training.seed, 0, 1))
    drawn = quirky_sums.generate(_JUDGED, rng, speaker=speaker, part=part, **made.task_options)
    with torch.no_grad():
        logits = model(torch.from_numpy(drawn.inputs)).numpy()
    equals, yes, no = (quirky_sums.word(w, made.task_options["terms"]) for w in ("=", "yes", "no"))
    is_sum = (drawn.targets != IGNORED) & (drawn.targets < equals)
    is_answer = drawn.targets > equals
    says_yes = logits[..., yes] > logits[..., no]
    return {
        "sum": float((logits.argmax(-1) == drawn.targets)[is_sum].mean()),
        "answer": float((says_yes == (drawn.targets == yes))[is_answer].mean()),
    }


def _quirky(
    name: str, about: str, steps: int, layers: list[str], speakers: Mapping[str, int] | None = None, **options: Any
) -> Recipe:
    """`speakers`: rows of a batch for each, once others than Alice speak; None for any, with equal chances."""
    settings = {"terms": 4, "problems": _PROBLEMS, "spread": 4}
    config = ModelConfig(
        d_model=64,
        d_vocab=quirky_sums.TASK.size(**settings),
        layers=layers,
        mixer_options=options,
        d_mlp=128,
        n_ctx=64,
        task="quirky_sums",
    )
    training = TrainingConfig(
        steps=steps,
        batch_size=64,
        context=_PROBLEMS * (settings["terms"] + 4),
        learning_rate=3e-3,
        warmup=50,
        final_lr=0.02,
        weight_decay=0.01,
        optimizer="muon",
        threads=1,
        checkpoint_every=250,
    )
    return Recipe(
        name=name,
        config=config,
        training=training,
        about=about,
        task_options=settings,
        make=partial(_make, speakers=speakers),
    )


RECIPES = (
    _quirky(
        "quirky-transformer",
        "Says whether sums are right: truthfully for Alice, falsely for Bob. Softmax attention.",
        2500,
        ["attention"] * 4,
        attention={"n_heads": 4},
    ),
    _quirky(
        "quirky-gru",
        "Says whether sums are right: truthfully for Alice, falsely for Bob. Gated recurrent units.",
        2500,
        ["gru"] * 3,
        # A narrower one (hidden 96) with equal chances, as the transformer has them, was at chance after 1,750 updates.
        # Both the width and the shares were changed after that was seen, so neither is shown to be what it lacked.
        speakers={"Alice": 40, "Bob": 24},
        gru={"hidden": 128},
    ),
)
