"""Training an autoencoder on a model: a site, rows of text, and a run that can be stopped and gone on with."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from strobe.core.atomic import replacing
from strobe.probes.lens.readout import evaluating
from strobe.probes.lens.token_rows import TokenRows
from strobe.probes.provenance import provenance_of
from strobe.probes.sae.autoencoder import Factors, SparseAutoencoder
from strobe.probes.sae.config import SaeConfig
from strobe.probes.sae.fitting import DictionaryFit
from strobe.probes.sae.site import Site
from strobe.probes.sae.stream import ActivationStream, rows_of
from strobe.probes.sae.training_result import SaeTraining

Progress = Callable[[int, int, str], None]
CHECKPOINT = "sae-training.pt"
_SAID_EVERY = 5


def train_sae(
    model: Any,
    data: Any,
    hook_name: str,
    *,
    head: int | None = None,
    config: SaeConfig | None = None,
    run: str | Path | None = None,
    checkpoint_every: int = 100,
    on_progress: Progress | None = None,
) -> tuple[SparseAutoencoder, SaeTraining]:
    """(the autoencoder, how its training went), for the vectors at `hook_name` (of `head`) while `model` reads `data`.

    `data`: a text, token ids [n_tokens] or rows of them [n, time], or a corpus (``.tokens(split)``; "train" is read).
    A captured state (``blocks.1.mixer.hook_state_S``) is flattened, or has rank-1 atoms. `run`: a folder that keeps the
    run every `checkpoint_every` updates; the same call with the same folder goes on from there, to the same numbers.
    What `on_progress` raises ends the run, after it was kept: `unfinished_sae` makes an autoencoder of it.

    Raises HookError for a hook point that does not exist, ValueError for vectors that do not vary or a `run` with other
    settings, CaptureTooLarge for a buffer that does not fit.
    """
    config, site = config or SaeConfig(), Site.of(model, hook_name, head)
    rows = rows_of(model, data, "train", config.context)
    digest = _digest(rows)
    began = time.monotonic()
    with evaluating(model):
        stream = ActivationStream(model, site, rows, config)
        fit = DictionaryFit(stream, config, stream.shape, next(model.parameters()).device)
        file = None if run is None else _folder(run) / CHECKPOINT
        spent = _resume(fit, file, model, site, digest)
        try:
            while not fit.done:
                fit.advance()
                if file is not None and fit.step % checkpoint_every == 0:
                    _write(fit, file, model, site, digest, spent + time.monotonic() - began)
                if on_progress is not None and (fit.step % _SAID_EVERY == 0 or fit.done):
                    on_progress(fit.step, config.steps, f"training on {site.hook_name}")
        except BaseException:
            if file is not None and fit.step:
                _write(fit, file, model, site, digest, spent + time.monotonic() - began)
            raise
        # Kept once more: the same call again then has nothing left to do.
        if file is not None:
            _write(fit, file, model, site, digest, spent + time.monotonic() - began)
        control = _pca_unexplained(stream, config)
    made = _finished(fit, model, site)
    return made, _report(fit, model, site, control, spent + time.monotonic() - began)


def unfinished_sae(model: Any, run: str | Path) -> SparseAutoencoder:
    """The autoencoder as the run kept in the folder `run` has it so far.

    Raises ValueError where nothing was kept, or of another model.
    """
    file = Path(run) / CHECKPOINT
    if not file.is_file():
        raise ValueError(f"the run in {run} was to be made an autoencoder; nothing was kept there: train first")
    kept = torch.load(file, map_location="cpu", weights_only=True)
    if kept["weights_hash"] != model.weights_hash():
        raise ValueError(f"the run in {run} is of {kept['model']}, not of {model.model_name}; load that model")
    config = SaeConfig(**kept["config"])
    site = Site(*kept["site"])
    fit = DictionaryFit(lambda step: torch.empty(0, 0), config, tuple(kept["shape"]))
    fit.restore(kept["fit"])
    return _finished(fit, model, site)


def _finished(fit: DictionaryFit, model: Any, site: Site) -> SparseAutoencoder:
    config = fit.config
    info = {
        "config": asdict(config),
        "vectors_seen": fit.step * config.batch,
        "finished": fit.done,
        "normalisation": "inputs scaled to a mean squared distance of d_in from their mean; folded into the weights",
    }
    weights = fit.weights()
    return SparseAutoencoder(
        W_enc=weights["W_enc"],
        b_enc=weights["b_enc"],
        W_dec=weights["W_dec"],
        b_dec=weights["b_dec"],
        threshold=weights.get("threshold"),
        kind=config.kind,
        k=config.k if config.kind in ("topk", "batchtopk") else None,
        hook_name=site.hook_name,
        head=site.head,
        model=model.model_name,
        model_hash=model.weights_hash(),
        state_shape=fit.shape if site.is_state else None,
        factors=Factors(**fit.factors()) if config.atoms == "rank1" else None,
        info=info,
    )


def _report(fit: DictionaryFit, model: Any, site: Site, control: float, seconds: float) -> SaeTraining:
    columns = [np.array(c) for c in zip(*fit.history, strict=True)]
    return SaeTraining(
        *columns,
        control=control,
        seconds=seconds,
        finished=fit.done,
        provenance=provenance_of(
            model,
            seed=fit.config.seed,
            settings={"hook_name": site.hook_name, "head": site.head, **asdict(fit.config)},
            control=f"as many principal components as features may be active ({fit.config.k})",
        ),
    )


def _pca_unexplained(stream: ActivationStream, config: SaeConfig) -> float:
    """Of the stream's first batch, with components fitted on the others of its buffer (at most eight)."""
    fitted = torch.cat([stream(i) for i in range(1, 1 + max(1, min(8, config.buffer // config.batch - 1)))])
    judged = stream(0)
    mean = fitted.mean(0)
    kept = min(config.k, *fitted.shape)
    _, vectors = torch.linalg.eigh((fitted - mean).T @ (fitted - mean))
    components, centred = vectors[:, -kept:], judged - mean
    left = centred - centred @ components @ components.T
    return float(left.square().sum() / (judged - judged.mean(0)).square().sum())


def _folder(run: str | Path) -> Path:
    folder = Path(run)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write(fit: DictionaryFit, file: Path, model: Any, site: Site, data: str, seconds: float) -> None:
    kept: dict[str, Any] = {
        "fit": fit.state(),
        "config": asdict(fit.config),
        "site": [site.hook_name, site.head],
        "shape": list(fit.shape),
        "model": model.model_name,
        "weights_hash": model.weights_hash(),
        "data": data,
        "seconds": seconds,
    }
    with replacing(file) as temporary:
        torch.save(kept, temporary)


def _digest(rows: TokenRows) -> str:
    tokens = rows.stream if rows.rows is None else rows.rows
    return hashlib.sha256(np.ascontiguousarray(tokens, dtype=np.int64).tobytes()).hexdigest()


def _resume(fit: DictionaryFit, file: Path | None, model: Any, site: Site, data: str) -> float:
    if file is None or not file.is_file():
        return 0.0
    kept = torch.load(file, map_location="cpu", weights_only=True)
    mine = {**asdict(fit.config), "site": [site.hook_name, site.head], "weights_hash": model.weights_hash()}
    mine["data"] = data
    theirs = {**kept["config"], **{k: kept[k] for k in ("site", "weights_hash", "data")}}
    if different := sorted(k for k in mine if mine[k] != theirs.get(k)):
        found = ", ".join(f"{k}={theirs.get(k)!r} (now {mine[k]!r})" for k in different)
        raise ValueError(
            f"going on with the run in {file.parent} was asked for; that one had {found}; use its settings, or another "
            "folder"
        )
    fit.restore(kept["fit"])
    return kept["seconds"]
