"""The sweep on the steering page: every layer and multiplier, residual stream and state on one pair of axes."""

from functools import partial
from typing import TYPE_CHECKING

import streamlit as st

from strobe.dashboards import loading, steering_work
from strobe.dashboards.components.charts import chart
from strobe.dashboards.components.footer import footer
from strobe.dashboards.components.job_panel import job_panel
from strobe.dashboards.components.kept import kept_result, run_button
from strobe.dashboards.jobs import runner

if TYPE_CHECKING:
    from strobe.probes.steering import SteeringSweep

_PANELS = {
    "change of the behaviour": "effect",
    "probability outside the answers": "outside",
    "divergence from the unsteered model": "kl",
    "surprise at the continuation": "log_perplexity",
}


def show_sweep(loaded: loading.Loaded, towards: str, contrast: str) -> None:
    """Widgets, job and figures of a sweep of `loaded` with the bundled set `contrast`."""
    st.caption(
        "Questions from other held-out files, each with an answer that shows the behaviour and one that does not, at "
        "every layer and multiplier. What is gained stands beside what it costs: probability outside both answers, "
        "divergence, and the unsteered model's surprise at what is written. × marks a broken model; grey, random "
        "directions of equal norm; bars, 95 % bootstrap intervals over questions."
    )
    first, second, third = st.columns(3, vertical_alignment="bottom")
    with first:
        largest = st.number_input("Largest multiplier", 0.1, 50.0, 2.0, 0.5, key="sweep_by", bind="query-params")
    with second:
        questions = st.number_input("Questions", 2, 200, 24, key="sweep_questions", bind="query-params")
    with third:
        random = st.number_input("Random directions", 1, 10, 2, key="sweep_random", bind="query-params")
    places = [place for place in steering_work.POINTS if place == "residual stream" or loaded.recurrent]
    settings = {
        "contrast": contrast,
        "largest": float(largest),
        "questions": int(questions),
        "random": int(random),
    }
    key = steering_work.sweep_key(loaded.source, settings)
    result: "SteeringSweep | None" = kept_result(key)
    part: "SteeringSweep | None" = None
    job = runner().get(key)
    if result is None:
        part = kept_result(steering_work.partial_key(key))

    def start() -> None:
        label = f"Sweep {loaded.source.name} towards {towards}"
        what = (key, loaded.source.name, places, settings)
        runner().submit(key, label, lambda tick: steering_work.sweep_vectors(*what, tick))

    run_button("Sweep", start, job=key, there=result is not None, key="sweep-run")
    stopped = job is not None and job.state == "cancelled" and part is not None
    # A cancelled sweep has kept something, which is said below in place of the panel's word.
    running = False if stopped else job_panel(key)
    shown = result if result is not None else part
    if running or shown is None:
        return
    if shown is part:
        done, asked = shown.progress
        st.info(
            f"The sweep was cancelled: {done:,} of {asked:,} cells are shown, {shown.base_behaviour.size} questions at "
            "every layer and multiplier. The intervals are wider for it.",
            icon=":material/block:",
        )
    _draw(shown, loaded)


def _draw(result: "SteeringSweep", loaded: loading.Loaded) -> None:
    trade, curves, heat, numbers = st.tabs(["Gain against cost", "At one layer", "Layers × multipliers", "Table"])
    with trade:
        chart(result, result.trade_figure, key="sweep-trade", alt="gain of every setting against its divergence")
    with curves:
        layer = st.selectbox("Layer", result.layers, index=_best_layer(result), key="sweep_layer")
        chart(result, partial(result.figure, layer), key="sweep-curves", alt="behaviour and its cost by multiplier")
    with heat:
        left, right = st.columns(2)
        with left:
            what = st.selectbox("Shown", list(_PANELS), key="sweep_shown")
        with right:
            vector = st.selectbox("Vector", result.vectors, key="sweep_vector")
        draw = partial(result.heatmap_figure, _PANELS[what], vector)
        chart(result, draw, key="sweep-heat", alt="layers by multipliers")
    with numbers:
        st.dataframe(result.to_frame(), hide_index=True)
    st.code(result.summary(), language=None)
    footer(result)


def _best_layer(result: "SteeringSweep") -> int:
    try:
        return result.best(0)[0]
    except ValueError:
        return 0
