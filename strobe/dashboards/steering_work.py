"""The long work of the steering page: a vector from a bundled contrast set, and the texts it makes, kept."""

from pathlib import Path
from typing import Any

from strobe.dashboards import loading, store
from strobe.dashboards.jobs import Tick

# Pairs that a vector is fitted on here: enough for a steady mean, quick enough to wait for.
_PAIRS = 60
POINTS = {"residual stream": "resid_post", "state": "carry"}


def steering_key(source: loading.Source, subject: str | tuple[int, ...], layer: int, settings: dict[str, Any]) -> str:
    """The job's key and the result's name, from everything that decides it."""
    return store.key_of("steering", model=source.name, stamp=source.stamp, subject=subject, layer=layer, **settings)


def steer_text(
    key: str, name: str, subject: str | tuple[int, ...], layer: int, settings: dict[str, Any], tick: Tick
) -> Path:
    """Fit a vector at `layer` as `settings` say, continue `subject` with and without it, and keep that under `key`.

    A residual vector is added from the last prompt token on. The carry is steered from the token before it, as an edit
    after the last one would come too late for the first new token.
    """
    from strobe.probes.steering import Where, contrast_set, contrast_vector, steered_text

    tick(0, 1, "loading the model")
    model = loading.load(loading.find(name)).model
    contrast = contrast_set(settings["contrast"], n_pairs=_PAIRS, n_questions=1)
    point = POINTS[settings["at"]]
    vector = contrast_vector(model, contrast.pairs, point=point, layers=[layer], progress=tick)
    result = steered_text(
        model,
        subject,
        vector,
        settings["multiplier"],
        where=Where("from", start=-2 if point == "carry" else -1),
        max_new_tokens=settings["new"],
        temperature=settings["temperature"],
        progress=tick,
    )
    return store.keep(key, result)
