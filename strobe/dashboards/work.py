"""The long work of jobs and commands: each function takes a `tick`, runs a probe and keeps what came out.

A job loads its own copy of the model: it would otherwise hold the pages' one for as long as it runs.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from strobe.dashboards import loading, store
from strobe.dashboards.home import home
from strobe.dashboards.jobs import Tick
from strobe.dashboards.partial import keep_what_is_found

# Bytes of the standard library that a lens is fitted on; 400 steps of 16 × 128 tokens are about 2 MB.
_FIT_BYTES = 4_000_000
_JUDGE_BYTES = 200_000


class LibraryTokens:
    """Python's standard library as `model` reads it, in the corpus's splits, for `TunedLens.fit`.

    Any tokenizer will do; documents follow each other with nothing between.
    """

    def __init__(self, model: Any) -> None:
        from strobe.models.corpus import split_of, standard_library_documents

        self._model = model
        documents, _ = standard_library_documents()
        self._texts = {s: [d.text for d in documents if split_of(d.path) == s] for s in ("train", "valid")}

    def tokens(self, split: str) -> np.ndarray:
        """Token ids of the split, up to a few megabytes of text."""
        room, ids = (_FIT_BYTES if split == "train" else _JUDGE_BYTES), []
        for text in self._texts[split]:
            if room <= 0:
                break
            ids.append(np.asarray(self._model.tokenizer.encode(text, add_special_tokens=False), dtype=np.int64))
            room -= len(text)
        return np.concatenate(ids)


class LensFile(NamedTuple):
    """A tuned lens that can be used: where it came from, in words, and its file."""

    label: str
    path: Path


def lens_home(loaded: loading.Loaded) -> Path:
    """Where a lens trained here for this model's weights is kept."""
    return home() / "lenses" / f"{loaded.model.weights_hash()[:20]}.safetensors"


def stopped(path: Path) -> Path:
    """Where a lens is kept whose fit was cancelled; the whole one would be at `path`."""
    return path.with_name(f"stopped-{path.name}")


def lens_files(loaded: loading.Loaded) -> list[LensFile]:
    """Tuned lenses of this model: trained here first, then the one that came with it, then one that was cancelled."""
    own = lens_home(loaded)
    came_with = LensFile(
        "that is bundled" if loaded.source.bundled else "in the model's folder",
        loaded.source.folder / loading.LENS_FILE,
    )
    every = (LensFile("trained here", own), came_with, LensFile("trained here and stopped early", stopped(own)))
    return [f for f in every if f.path.is_file()]


def fit_lens(name: str, path: Path, tick: Tick, *, steps: int = 400, seed: int = 0) -> Path:
    """Fit a tuned lens for a copy of the model called `name`, as `fit_lens_of`."""
    tick(0, steps, "loading the model")
    return fit_lens_of(loading.load(loading.find(name)).model, path, tick, steps=steps, seed=seed)


def fit_lens_of(
    model: Any,
    path: Path,
    tick: Tick,
    *,
    steps: int = 400,
    seed: int = 0,
    cut_short: Callable[[Path], None] | None = None,
) -> Path:
    """Fit a tuned lens for `model` on the standard library's source and write it to `path`; one that is cancelled is
    written beside it, as `stopped` says, of which `cut_short` is told, and taken away by the next that ends.

    Raises ValueError for a model without a tokenizer.
    """
    from strobe.probes.lens import TunedLens

    if model.tokenizer is None:
        raise ValueError(
            f"a lens for {model.model_name} was to be fitted on text, and it came without a tokenizer; add one "
            "(tokenizer.json in its folder)"
        )
    tick(0, steps, "reading the text it is fitted on")
    path.parent.mkdir(parents=True, exist_ok=True)

    def keep(lens: TunedLens) -> None:
        file = lens.save(stopped(path))
        if cut_short is not None:
            cut_short(file)

    lens = TunedLens.fit(model, LibraryTokens(model), steps=steps, seed=seed, on_progress=tick, partial=keep)
    stopped(path).unlink(missing_ok=True)
    return lens.save(path)


def edit_key(
    source: loading.Source, subject: str | tuple[int, ...], layer: int, position: int, settings: dict[str, Any]
) -> str:
    """What decides the result of an edit, as the key of its job and file."""
    where = {"model": source.name, "stamp": source.stamp, "layer": layer, "position": position}
    return store.key_of("edit", subject=subject, settings=settings, **where)


def edit_state(
    key: str,
    name: str,
    subject: str | tuple[int, ...],
    layer: int,
    position: int,
    settings: dict[str, Any],
    tick: Tick,
) -> Path:
    """Edit a carry as `settings` (arguments of `state_intervention`) say, and keep the result under `key`; of a job
    cancelled among the continuations, the predictions and what was written by then."""
    from strobe.probes.states import state_intervention

    def edited(model: Any, **watched: Any) -> Any:
        return state_intervention(model, subject, layer, position, **settings, **watched)

    return keep_what_is_found(key, name, tick, edited)
