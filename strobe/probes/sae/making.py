"""An autoencoder as it is kept: trained, rounded to what is stored, measured as stored, and written with its card."""

import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

from strobe.core.atomic import write_text
from strobe.probes.sae.autoencoder import SparseAutoencoder
from strobe.probes.sae.config import SaeConfig
from strobe.probes.sae.evaluating import evaluate_sae
from strobe.probes.sae.evaluation import SaeEvaluation
from strobe.probes.sae.training import CHECKPOINT, train_sae, unfinished_sae
from strobe.probes.sae.training_result import SaeTraining

Progress = Callable[[int, int, str], None]
Stored = Literal["float32", "bfloat16", "float16"]


def make_sae(
    model: Any,
    data: Any,
    hook_name: str,
    folder: str | Path,
    *,
    head: int | None = None,
    config: SaeConfig | None = None,
    stored_as: Stored = "float32",
    run: str | Path | None = None,
    n_tokens: int = 16_384,
    command: str = "",
    on_progress: Progress | None = None,
) -> tuple[SparseAutoencoder, SaeTraining, SaeEvaluation]:
    """Train on `data` (`train_sae`), round to `stored_as`, measure that on held-out text, write it in `folder`.

    `run`: keeps the run (None: beside `folder`), which is gone on with where it was stopped. If `on_progress` raises
    while training, what there is so far is written in `folder` as well, and the error goes on. `command`: for the card.
    """
    folder = Path(folder)
    run = folder.with_name(f"{folder.name}.run") if run is None else Path(run)
    dtype = getattr(torch, stored_as)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        sae, training = train_sae(model, data, hook_name, head=head, config=config, run=run, on_progress=on_progress)
    except BaseException:
        if (run / CHECKPOINT).is_file():
            unfinished_sae(model, run).save(folder)
        raise
    stored = sae.rounded(dtype)
    measured = evaluate_sae(model, stored, data, n_tokens=n_tokens, on_progress=on_progress)
    stored.save(folder, dtype=dtype)
    card = _card(stored, training, measured, stored_as, command)
    write_text(folder / "card.json", json.dumps(card, indent=1) + "\n")
    return stored, training, measured


def _card(
    sae: SparseAutoencoder, training: SaeTraining, measured: SaeEvaluation, stored_as: str, command: str
) -> dict[str, Any]:
    frame = measured.to_frame().round(4)
    return {
        "format": "strobe-sae-card",
        "version": 1,
        "command": command,
        "model": sae.model,
        "model_hash": sae.model_hash,
        "hook_name": sae.hook_name,
        "head": sae.head,
        "kind": sae.kind,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "stored_as": stored_as,
        "weights_hash": sae.weights_hash(),
        "training": {**sae.info["config"], "vectors_seen": sae.info["vectors_seen"]},
        "training_minutes": round(training.seconds / 60, 1),
        "machine": f"{torch.get_num_threads()} CPU thread(s) of a shared machine, Python {platform.python_version()}",
        "versions": measured.provenance.versions,
        "held_out": f"{measured.n_tokens} tokens of files that were not trained on; the numbers as stored",
        "clean_cross_entropy": round(measured.clean, 4),
        "dead": round(measured.dead, 4),
        "tables": [
            {
                "title": f"{sae.hook_name}: what is left when it is replaced",
                "columns": [str(c) for c in frame.columns],
                "rows": [[None if v != v else v for v in row] for row in frame.to_numpy().tolist()],
                "note": "PCA, an untrained dictionary and the two ablations are the controls; nats per token.",
            }
        ],
    }
