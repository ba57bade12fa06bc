"""The long work of the repetition page: one analysis of the page's model, kept; and the features that came with it."""

from pathlib import Path
from typing import Any

from strobe.dashboards import loading, store
from strobe.dashboards.jobs import Tick
from strobe.dashboards.partial import keep_what_is_found

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
    """Run the analysis `what` on a copy of the model called `name` and keep it under `key`; of a cancelled run what it
    had by then: candidates of the features' search, blocks of the heads, copies, tokens of a loop."""

    def probe(model: Any, *, progress: Tick, partial: Any) -> Any:
        return run(model, what, settings, progress, partial)

    return keep_what_is_found(key, name, tick, probe)


def run(model: Any, what: str, settings: dict[str, Any], progress: Tick | None = None, partial: Any = None) -> Any:
    """The result of the analysis `what` ("text", "structure", "reinforcement", "heads", "attribution", "features" or
    "loop") with `settings`, its arguments. The first two and attribution are one pass over a text, and take no
    `progress` or `partial`."""
    if what == "features":
        from strobe.probes.repetition import find_repetition_features
        from strobe.probes.sae import SparseAutoencoder

        settings = dict(settings)
        folder = settings.pop("sae", None)
        sae = SparseAutoencoder.bundled(model.model_name) if folder is None else SparseAutoencoder.load(folder, model)
        return find_repetition_features(model, sae, progress=progress, partial=partial, **settings)
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
    return probes[what](model, progress=progress, partial=partial, **settings)
