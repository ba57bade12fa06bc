"""The long work of the steering page: a vector from a bundled contrast set, the texts it makes and its sweep, kept."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from strobe.dashboards import loading, store
from strobe.dashboards.jobs import Tick
from strobe.dashboards.partial import keep_what_is_found

# Pairs that a vector is fitted on here: enough for a steady mean, quick enough to wait for.
_PAIRS = 60
# What runs have written so far, by job: gone when the job ends.
_WRITTEN: dict[str, list[list[str]]] = {}
POINTS = {"residual stream": "resid_post", "state": "carry"}


def steering_key(source: loading.Source, subject: str | tuple[int, ...], layer: int, settings: dict[str, Any]) -> str:
    """The job's key and the result's name, from everything that decides it."""
    return store.key_of("steering", model=source.name, stamp=source.stamp, subject=subject, layer=layer, **settings)


def sweep_key(source: loading.Source, settings: dict[str, Any]) -> str:
    """The job's key and the result's name, from everything that decides it."""
    return store.key_of("sweep", model=source.name, stamp=source.stamp, **settings)


def partial_key(key: str) -> str:
    """Under which what was done of a sweep that was cancelled is kept."""
    return f"partial-{key}"


def multipliers(largest: float) -> tuple[float, ...]:
    """Those of a sweep up to `largest`, both ways."""
    return tuple(largest * share for share in (-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0))


def sweep_vectors(key: str, name: str, places: Sequence[str], settings: dict[str, Any], tick: Tick) -> Path:
    """Sweep a vector for each of `places` (of `POINTS`) over every layer and both ways, and keep that under `key`.

    A sweep that is cancelled leaves what was done under `partial_key`; one that ends takes it away.
    """
    from strobe.probes.steering import contrast_set, contrast_vector, steering_sweep

    tick(0, 1, "loading the model")
    model = loading.load(loading.find(name)).model
    contrast = contrast_set(settings["contrast"], n_pairs=_PAIRS, n_questions=settings["questions"])
    vectors = {
        "residual" if place == "residual stream" else place: contrast_vector(
            model, contrast.pairs, point=POINTS[place], progress=tick
        )
        for place in places
    }
    result = steering_sweep(
        model,
        vectors,
        contrast.questions,
        multipliers=multipliers(settings["largest"]),
        labels=(contrast.positive, contrast.negative),
        n_random=settings["random"],
        progress=tick,
        partial=lambda found: store.keep(partial_key(key), found),
    )
    kept = store.keep(key, result)
    store.path_of(partial_key(key)).unlink(missing_ok=True)
    return kept


def steer_text(
    key: str, name: str, subject: str | tuple[int, ...], layer: int, settings: dict[str, Any], tick: Tick
) -> Path:
    """Fit a vector at `layer` as `settings` say, continue `subject` with and without it, and keep that under `key`; of
    a run that is cancelled, what was written by then.

    A residual vector is added from the last prompt token on. The carry is steered from the token before it, as an edit
    after the last one would come too late for the first new token.
    """
    from strobe.probes.steering import Where, contrast_set, contrast_vector, steered_text

    def steered(model: Any, *, progress: Tick, partial: Any) -> Any:
        contrast = contrast_set(settings["contrast"], n_pairs=_PAIRS, n_questions=1)
        point = POINTS[settings["at"]]
        vector = contrast_vector(model, contrast.pairs, point=point, layers=[layer], progress=progress)
        return steered_text(
            model,
            subject,
            vector,
            settings["multiplier"],
            where=Where("from", start=-2 if point == "carry" else -1),
            max_new_tokens=settings["new"],
            temperature=settings["temperature"],
            progress=progress,
            written=lambda texts: _WRITTEN.update({key: texts}),
            partial=partial,
        )

    try:
        return keep_what_is_found(key, name, tick, steered)
    finally:
        _WRITTEN.pop(key, None)


def written(key: str) -> list[list[str]]:
    """What each run of the job `key` has written so far, by token; nothing before it begins and after it ends."""
    return _WRITTEN.get(key, [])
