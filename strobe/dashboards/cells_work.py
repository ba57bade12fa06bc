"""What the cells page asks of the probes: long work as jobs whose results are kept, quick answers kept in memory.

Of work that is cancelled, what was found before is kept, and the result says that it is not all: of a search what the
trained model gave, of errors the files judged, of importance the tokens reached.
"""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from strobe.dashboards import loading, store
from strobe.dashboards.jobs import Tick
from strobe.dashboards.partial import keep_what_is_found

if TYPE_CHECKING:
    from strobe.probes.cells import CellText, GateSaturation, TransitionView

Subject = str | tuple[int, ...]


def key_of(source: loading.Source, settings: dict[str, Any], kind: str = "cells") -> str:
    """The job's key and the result's name, from everything that decides it."""
    return store.key_of(kind, model=source.name, stamp=source.stamp, **settings)


def run(key: str, name: str, settings: dict[str, Any], tick: Tick) -> Path:
    """Search the model called `name` as `settings` (arguments of `search_cells`) say, and keep the result under `key`;
    of a search cancelled while the untrained control runs, what there was before it."""
    from strobe.probes.cells import search_cells

    return keep_what_is_found(key, name, tick, partial(search_cells, **settings))


def run_errors(key: str, name: str, settings: dict[str, Any], tick: Tick) -> Path:
    """Sort the errors of the model called `name` as `settings` (arguments of `error_types`) say, and keep that; of work
    that is cancelled, the files judged."""
    from strobe.probes.cells import error_types

    said = "loading the model, counting n-grams"
    return keep_what_is_found(key, name, tick, partial(error_types, **settings), first=said)


def run_importance(key: str, name: str, subject: Subject, layer: int, tick: Tick) -> Path:
    """Take each token's write of `subject` out of the carry of `layer` in turn, and keep what that does; of work that
    is cancelled, the tokens reached."""
    from strobe.probes.cells import token_importance

    return keep_what_is_found(key, name, tick, partial(token_importance, text=subject, layer=layer))


def along(loaded: loading.Loaded, tokens: tuple[int, ...], unit: tuple[int, str, int]) -> "CellText":
    """One unit, (layer, field, number), after each of `tokens`."""
    from strobe.probes.cells import cell_text

    with loaded.lock:
        return cell_text(loaded.model, tokens, *unit)


def gates(loaded: loading.Loaded, subject: Subject) -> "GateSaturation":
    """How often each gate is shut or open along `subject`. Raises ValueError as the probe."""
    return _gates(loaded, loaded.source.name, loaded.source.stamp, subject)


def transitions(pairs: Sequence[tuple[loading.Loaded, int]], subject: Subject, text: str) -> "TransitionView":
    """A, B and the read of each (model, layer) along `subject`: `text`, or the tokens of the first model that it was
    cut to. Raises ValueError as the probe, and for a model that cuts `text` into other tokens than those.
    """
    return _transitions(pairs, tuple((m.source.name, m.source.stamp, layer) for m, layer in pairs), subject, text)


def beside() -> list[str]:
    """The bundled models that read text and have a recurrent layer."""
    return [name for name in loading.bundled() if _reads_and_recurs(loading.find(name).folder)]


def _reads_and_recurs(folder: Path) -> bool:
    layers = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("layers", [])
    return (folder / "tokenizer.json").is_file() and any(layer != "attention" for layer in layers)


@st.cache_resource(max_entries=16, show_spinner="Watching the gates")
def _gates(_loaded: loading.Loaded, name: str, stamp: str, subject: Subject) -> Any:
    from strobe.probes.cells import gate_saturation

    with _loaded.lock:
        return gate_saturation(_loaded.model, subject)


@st.cache_resource(max_entries=16, show_spinner="Reading what each token does to the memory")
def _transitions(
    _pairs: Sequence[tuple[loading.Loaded, int]], places: tuple[tuple[str, str, int], ...], subject: Subject, text: str
) -> Any:
    from strobe.probes.cells import transition_view

    with ExitStack() as held:
        # Two pages that show the same two models the other way round must not wait for each other.
        for model in sorted((model for model, _ in _pairs), key=lambda model: (model.source.name, id(model))):
            held.enter_context(model.lock)
        for model, _ in _pairs:
            _same_tokens(model, subject, text)
        return transition_view([(model.model, layer) for model, layer in _pairs], subject)


def _same_tokens(loaded: loading.Loaded, subject: Subject, text: str) -> None:
    # Ids mean nothing to another tokenizer, and the probe cannot see where they came from.
    if isinstance(subject, str):
        return
    own = [int(i) for i in loaded.model.tokenize(text)[0][0][: len(subject)]]
    if own != list(subject):
        raise ValueError(
            f"the first {len(subject)} tokens of the text were to be shown; {loaded.source.name} cuts the text into "
            "other tokens; use models of one tokenizer"
        )
