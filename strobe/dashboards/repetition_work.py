"""The long work of the repetition page: one analysis of the page's model, kept; and the features that came with it."""

from functools import partial
from pathlib import Path
from typing import Any

from strobe.dashboards import loading, store
from strobe.dashboards.jobs import Tick

# In a bundled model's folder, beside its autoencoder: the features found with it.
FEATURES_FILE = "repetition.safetensors"


def repetition_key(what: str, source: loading.Source, settings: dict[str, Any]) -> str:
    """The job's key and the result's name, from everything that decides it."""
    return store.key_of(f"repetition-{what}", model=source.name, stamp=source.stamp, settings=settings)


def features_file(source: loading.Source) -> Path | None:
    """The repetition features that came with a model, if any did."""
    path = source.folder / FEATURES_FILE
    return path if path.is_file() else None


def analyse(key: str, what: str, name: str, settings: dict[str, Any], tick: Tick) -> Path:
    """Run the analysis `what` on a copy of the model called `name` and keep it under `key`.

    What the features' search has found so far is kept after each candidate, and self-reinforcement after each sentence,
    so that a cancelled one has a result.
    """
    tick(0, 1, "loading the model")
    model = loading.load(loading.find(name)).model
    return store.keep(key, run(model, what, settings, tick, keep=partial(store.keep, key)))


def run(model: Any, what: str, settings: dict[str, Any], tick: Tick, *, keep: Any = None) -> Any:
    """The result of the analysis `what` ("text", "structure", "reinforcement", "heads", "attribution", "features" or
    "loop") with `settings`, its arguments. `keep`: is given partial results."""
    if what == "features":
        from strobe.probes.repetition import find_repetition_features
        from strobe.probes.sae import SparseAutoencoder

        settings = dict(settings)
        folder = settings.pop("sae", None)
        sae = SparseAutoencoder.bundled(model.model_name) if folder is None else SparseAutoencoder.load(folder, model)
        return find_repetition_features(model, sae, progress=tick, partial=keep, **settings)
    if what == "attribution":
        from strobe.probes.attribution import direct_logit_attribution

        return direct_logit_attribution(model, **settings)
    if what == "structure":
        from strobe.probes.repetition import structural_repetition

        return structural_repetition(**settings)
    if what == "text":
        from strobe.probes.repetition import text_repetition

        return text_repetition(model=model, **settings)
    from strobe.probes import repetition

    probes = {
        "reinforcement": repetition.self_reinforcement, "heads": repetition.head_scores, "loop": repetition.greedy_loop,
    }  # fmt: skip
    kept = {"partial": keep} if what == "reinforcement" else {}
    return probes[what](model, progress=tick, **kept, **settings)
