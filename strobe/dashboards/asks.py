"""What pages ask of the probes: results, kept by what decides them and never by the identity of an object.

The arguments that start with an underscore carry the model; the others are the key, and hold a stamp of its files.
"""

from typing import TYPE_CHECKING, Any

import streamlit as st

from strobe.dashboards.loading import Loaded
from strobe.dashboards.work import LensFile, lens_files

if TYPE_CHECKING:
    from strobe.probes.lens import LensTrajectory, TunedLens
    from strobe.probes.states import StateTrace


def usable_lenses(loaded: Loaded) -> tuple[list[LensFile], list[str]]:
    """The tuned lenses of this model that can be read, and what is wrong with the others."""
    usable, problems = [], []
    for file in lens_files(loaded):
        lens, problem = open_lens(loaded, file)
        if lens is not None:
            usable.append(file)
        else:
            problems.append(f"The lens {file.label} cannot be used: {problem}")
    return usable, problems


def open_lens(loaded: Loaded, file: LensFile) -> "tuple[TunedLens | None, str]":
    """The lens in `file`, or None and the reason."""
    return _lens(loaded, file, loaded.source.name, loaded.source.stamp, _stamp(file))


def lens_trajectory(loaded: Loaded, ids: tuple[int, ...], lens: LensFile | None) -> "LensTrajectory":
    """The trajectory of a text by a tuned lens and the logit lens, or by the logit lens alone."""
    return _trajectory(loaded, lens, loaded.source.name, loaded.source.stamp, ids, "" if lens is None else _stamp(lens))


def state_trace(loaded: Loaded, subject: str | tuple[int, ...], layer: int) -> "StateTrace":
    """The trace of one layer's carry along a text (or tokens)."""
    return _trace(loaded, loaded.source.name, loaded.source.stamp, subject, layer)


def _stamp(file: LensFile) -> str:
    return f"{file.path} {file.path.stat().st_mtime_ns}"


@st.cache_resource(max_entries=4, show_spinner=False)
def _lens(_loaded: Loaded, _file: LensFile, name: str, stamp: str, lens_stamp: str) -> Any:
    from strobe.probes.lens import TunedLens

    try:
        with _loaded.lock:
            return TunedLens.load(_file.path, _loaded.model), ""
    except ValueError as error:
        return None, str(error)


@st.cache_resource(max_entries=16, show_spinner="Reading the lens")
def _trajectory(
    _loaded: Loaded, _file: LensFile | None, name: str, stamp: str, ids: tuple[int, ...], lens_stamp: str
) -> Any:
    from strobe.probes.lens import LogitLens

    lens = LogitLens() if _file is None else open_lens(_loaded, _file)[0]
    assert lens is not None
    with _loaded.lock:
        return lens.trajectory(_loaded.model, list(ids))


@st.cache_resource(max_entries=16, show_spinner="Reading the carry")
def _trace(_loaded: Loaded, name: str, stamp: str, subject: str | tuple[int, ...], layer: int) -> Any:
    from strobe.probes.states import state_trace as trace

    with _loaded.lock:
        return trace(_loaded.model, subject, layer)
