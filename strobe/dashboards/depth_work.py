"""What the depth page asks: the motion of a text at once; that of library files, and shared blocks, as jobs."""

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from strobe.dashboards import loading, store
from strobe.dashboards.jobs import Tick
from strobe.dashboards.partial import keep_what_is_found

if TYPE_CHECKING:
    from strobe.probes.depth import DepthDynamics

# Surrogates of more blocks than this say little that fewer do not, and each is trained twice.
_MOST = 3


def dynamics(loaded: loading.Loaded, ids: tuple[int, ...]) -> "DepthDynamics":
    """The `DepthDynamics` of the tokens `ids`, at once: it is one pass over a text that a page holds."""
    return _dynamics(loaded, loaded.source.name, loaded.source.stamp, ids)


@st.cache_resource(max_entries=16, show_spinner="Following the tokens through depth")
def _dynamics(_loaded: loading.Loaded, name: str, stamp: str, ids: tuple[int, ...]) -> Any:
    from strobe.probes.depth import depth_dynamics

    with _loaded.lock:
        return depth_dynamics(_loaded.model, [list(ids)])


def library_key(source: loading.Source) -> str:
    """The key of the motion of library files."""
    return store.key_of("depth-library", model=source.name, stamp=source.stamp)


def library(key: str, name: str, tick: Tick) -> Path:
    """Follow tokens of held-out library files through a copy of the model called `name` and keep that under `key`; of a
    cancelled job the rows that were read, if any."""
    from strobe.probes.depth import depth_dynamics

    return keep_what_is_found(key, name, tick, depth_dynamics, first="loading the model and the files")


def counts(kinds: tuple[int, ...]) -> list[int]:
    """Numbers of shared blocks worth fitting: fewer than there are blocks, and enough for every run of one kind."""
    runs = 1 + sum(a != b for a, b in pairwise(kinds))
    return list(range(runs, len(kinds)))[:_MOST]


def key_of(source: loading.Source, settings: dict[str, Any]) -> str:
    """The job's key and the result's name, from everything that decides it."""
    return store.key_of("depth", model=source.name, stamp=source.stamp, **settings)


def run(key: str, name: str, settings: dict[str, Any], tick: Tick) -> Path:
    """Fit the surrogates that `settings` (arguments of `block_recurrence`) ask for to a copy of the model called
    `name`, and keep the result under `key`; of a cancelled run those that were finished, if any."""
    from strobe.probes.depth import block_recurrence

    return keep_what_is_found(key, name, tick, partial(block_recurrence, **settings))
