"""Parts of the page of dynamics: what is held, a kept result or the job that makes it, and how each result is shown."""

from collections.abc import Callable
from functools import partial
from typing import Any

import streamlit as st

from strobe.core.result import Result
from strobe.dashboards import dynamics_work, held
from strobe.dashboards.components import chart, footer, job_panel, kept_result, run_button, say_if_partial
from strobe.dashboards.jobs import runner
from strobe.dashboards.loading import Loaded
from strobe.dashboards.plain import code, plain, sentence
from strobe.dashboards.selection import Selection


def choose_held(loaded: Loaded, here: Selection) -> held.Held:
    """The widgets of what is held: numbers to drag, or how many tokens up to the selected one come in turn."""
    if count := held.n_inputs(loaded):
        columns = st.columns(min(count, 6))
        return tuple(float(_slider(columns[i % len(columns)], i)) for i in range(count))
    most = min(8, here.position + 1)
    turn = st.number_input(
        "Tokens held in turn", 1, 8, 1, key="held_turn", bind="query-params",
        help="One: the token at the selected position, for ever. More: that many up to it, over and over.",
    )  # fmt: skip
    turn = min(int(turn), most)
    ids = here.ids[here.position - turn + 1 : here.position + 1]
    words = "".join(here.tokens[here.position - turn + 1 : here.position + 1])
    st.caption(f"Held: {code(words, 60)}. Choose another position in the sidebar.")
    return tuple(ids)


def _slider(column: Any, i: int) -> float:
    return column.slider(f"Held input {i}", -1.0, 1.0, 0.0, 0.1, key=f"held-{i}", bind="query-params")


def answer(key: str, label: str, work: Callable[..., Any]) -> Result | None:
    """The result kept under `key`, or a button that makes it as a job; None while there is none."""
    result: Result | None = kept_result(key)

    def start() -> None:
        runner().submit(key, label, work)

    run_button("Run", start, job=key, there=result is not None, key=f"{key}-run")
    return None if job_panel(key) else result


def show_points(result: Any) -> None:
    """Portrait, eigenvalues, timescales, completeness and table of a `FixedPoints`."""
    n = len(result.points)
    st.caption(
        f"{n} fixed point{'' if n == 1 else 's'}: " + ", ".join(f"{n} {k}" for k, n in result.kind_counts().items())
    )
    portrait, plane, times, complete, table = st.tabs(
        ["Portrait", "Eigenvalues", "Timescales", "Were all found?", "Table"]
    )
    with portrait:
        space = st.toggle("Three dimensions", key="space")
        draw = partial(result.figure, dimensions=3 if space else 2)
        chart(result, draw, key="fixed-portrait", alt="trajectories and fixed points along their main axes")
    with plane:
        names = ["all points", *(f"point {i}: {kind}" for i, kind in enumerate(result.kinds))]
        chosen = names.index(st.selectbox("Of", names, key="plane_of") or names[0]) - 1
        draw = partial(result.eigenvalue_figure, None if chosen < 0 else chosen)
        chart(result, draw, key="fixed-plane", alt="eigenvalues and the unit circle")
    with times:
        chart(result, result.timescale_figure, key="fixed-times", alt="timescales at each fixed point")
    with complete:
        st.caption(f"Completeness: {plain(result.verdict)}.")
        chart(result, result.completeness_figure, key="fixed-complete", alt="points found against initial carries")
    with table:
        st.dataframe(result.to_frame(), hide_index=True)


def show_solved(result: Any, stack: Any) -> None:
    """Timescales and eigenvalues of a `HeldFixedPoint`, and of all layers together."""
    st.caption("This layer is linear in its carry under a held token, so its one fixed point is solved, not searched.")
    times, plane, whole = st.tabs(["Timescales", "Eigenvalues", "Every layer"])
    with times:
        chart(result, result.figure, key="held-times", alt="longest timescale of each head")
    with plane:
        chart(result, result.eigenvalue_figure, key="held-plane", alt="eigenvalues and the unit circle")
    with whole:
        st.caption(
            "Each layer at rest feeds the next, so that the spectrum of the whole model is that of its layers together "
            "(with zeros for convolutions and token shifts)."
        )
        if isinstance(stack, str):
            st.info(sentence(stack), icon=":material/info:")
        else:
            chart(stack, stack.figure, key="held-stack", alt="timescales of every layer")


def show_between(loaded: Loaded, layer: int, what_is_held: held.Held) -> None:
    """What lies between fixed points, one kind at a time, each a job."""
    st.subheader("Between the points", anchor=False)
    names = list(dynamics_work.BETWEEN)
    what = st.segmented_control(
        "Follow", names, default=names[0], required=True, key="between", bind="query-params", format_func=str.capitalize
    )  # fmt: skip
    what = what or names[0]
    st.caption(f"{dynamics_work.BETWEEN[what]}.")
    key = dynamics_work.between_key(loaded.source, layer, what_is_held, what)
    asked = (key, loaded.source.name, layer, what_is_held, what)
    result = answer(key, f"{what.capitalize()} of block {layer}", lambda tick: dynamics_work.between(*asked, tick))
    if result is not None:
        say_if_partial(result)
        space = st.toggle("Three dimensions", key="between_space")
        draw = partial(result.figure, dimensions=3 if space else 2)
        chart(result, draw, key=f"between-{what}", alt=dynamics_work.BETWEEN[what])
        st.dataframe(result.to_frame(), hide_index=True)
        footer(result)


def show_training(loaded: Loaded) -> None:
    """The fixed points while the model learned, where it came with its training steps."""
    folder = loaded.source.folder
    if not dynamics_work.has_steps(folder):
        return
    st.subheader("While it learned", anchor=False)
    key = dynamics_work.training_key(loaded.source)
    asked = (key, str(folder))
    result = answer(key, "Fixed points over training", lambda tick: dynamics_work.training(*asked, tick))
    if result is not None:
        training: Any = result
        say_if_partial(training)
        chart(training, training.figure, key="training-portrait", alt="fixed points, a frame for each training step")
        chart(training, training.counts_figure, key="training-counts", alt="fixed points by index over training")
        footer(training)


def show_depth(loaded: Loaded, here: Selection) -> None:
    """Depth as time, for any model that reads text."""
    st.subheader("Depth as time", anchor=False)
    st.caption(
        "Blocks with weights of their own have no fixed points: the map is another one at every depth. What can be "
        "asked of them, and what a block would do if it were applied for ever, which few models do."
    )
    names = list(dynamics_work.DEPTH)
    what = st.segmented_control(
        "Ask", names, default=names[0], required=True, key="depth_ask", bind="query-params", format_func=str.capitalize
    )  # fmt: skip
    what = what or names[0]
    ids = here.ids[: dynamics_work.MAX_DEPTH_TOKENS]
    st.caption(f"{dynamics_work.DEPTH[what]}: the first {len(ids)} of {here.n_tokens} tokens, block {here.layer}.")
    key = dynamics_work.depth_key(loaded.source, ids, here.layer, what)
    asked = (key, loaded.source.name, ids, here.layer, what)
    result = answer(key, dynamics_work.DEPTH[what], lambda tick: dynamics_work.depth(*asked, tick))
    if result is not None:
        if what != "exponents":
            # Which are found all at once.
            say_if_partial(result)
        chart(result, result.figure, key=f"depth-{what}", alt=dynamics_work.DEPTH[what])
        if what == "block":
            st.dataframe(result.to_frame(), hide_index=True)
        footer(result)
