"""What pages ask of the probes: results, kept by what decides them and never by the identity of an object.

The arguments that start with an underscore carry the model; the others are the key, and hold a stamp of its files.
"""

from typing import TYPE_CHECKING, Any

import streamlit as st

from strobe.dashboards.loading import Loaded
from strobe.dashboards.work import LensFile

if TYPE_CHECKING:
    from strobe.probes.lens import LensTrajectory
    from strobe.probes.states import StateTrace


def lens_trajectory(loaded: Loaded, ids: tuple[int, ...], lens: LensFile | None) -> "LensTrajectory":
    """The trajectory of a text by a tuned lens and the logit lens, or by the logit lens alone."""
    stamp = "" if lens is None else f"{lens.path} {lens.path.stat().st_mtime_ns}"
    return _trajectory(loaded, lens, loaded.source.name, loaded.source.stamp, ids, stamp)


def state_trace(loaded: Loaded, subject: str | tuple[int, ...], layer: int) -> "StateTrace":
    """The trace of one layer's carry along a text (or tokens)."""
    return _trace(loaded, loaded.source.name, loaded.source.stamp, subject, layer)


@st.cache_resource(max_entries=16, show_spinner="Reading the lens")
def _trajectory(
    _loaded: Loaded, _lens: LensFile | None, name: str, stamp: str, ids: tuple[int, ...], lens_stamp: str
) -> Any:
    from strobe.probes.lens import LogitLens, TunedLens

    with _loaded.lock:
        lens = LogitLens() if _lens is None else TunedLens.load(_lens.path, _loaded.model)
        return lens.trajectory(_loaded.model, list(ids))


@st.cache_resource(max_entries=16, show_spinner="Reading the carry")
def _trace(_loaded: Loaded, name: str, stamp: str, subject: str | tuple[int, ...], layer: int) -> Any:
    from strobe.probes.states import state_trace as trace

    with _loaded.lock:
        return trace(_loaded.model, subject, layer)
