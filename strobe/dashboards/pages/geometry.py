"""How much of what a block does to a token that token's own vector says, and what the rest does to the output."""

from functools import partial
from typing import TYPE_CHECKING, Any

import streamlit as st

from strobe.dashboards import geometry_work as work
from strobe.dashboards import selection
from strobe.dashboards.components import chart, footer, job_panel, kept_result, run_button
from strobe.dashboards.jobs import runner

if TYPE_CHECKING:
    from strobe.probes.geometry import LayerGeometry

TITLE = "Geometry"
ICON = ":material/polyline:"
ORDER = 60
QUESTION = "Does a block move each token by itself, and does it matter where it does not?"

st.title("Layer-update geometry", anchor=False)
loaded, here = selection.require()
st.markdown(
    "A **tokenwise map** sees one token's vector and nothing of the others. What it cannot predict of a block's output "
    "is the **residual**: what the block brought from other tokens, or did in another way (Yoo 2026). The published "
    "cosine is of the state, which a block hardly changes; the same of the **update**, beside it, is ours, and so are "
    "the controls. Measured on held-out files of Python's library, whatever the page's text."
)
first, second, third = st.columns([2, 2, 5], vertical_alignment="bottom")
with first:
    bank = st.number_input("Tokens to fit on", 256, 16384, 4096, 256, key="geometry_bank", bind="query-params")
with second:
    judged = st.number_input("Tokens to judge by", 32, 2048, 512, 32, key="geometry_judged", bind="query-params")
settings: dict[str, Any] = {
    "n_bank": min(max(int(bank), 256), 16384),
    "n_judged": min(max(int(judged), 32), 2048),
}
key = work.key_of(loaded.source, settings)


def _start() -> None:
    name = loaded.source.name
    runner().submit(key, f"Geometry of {name}", lambda tick: work.run(key, name, settings, tick))


def _pick_layer(points: list[dict[str, Any]]) -> None:
    """Select the block of a clicked point."""
    if points and isinstance(points[0].get("x"), int | float):
        st.session_state["layer"] = round(points[0]["x"])


result: "LayerGeometry | None" = kept_result(key)
with third:
    run_button(
        "Measure every block", _start, job=key, there=result is not None, key="geometry-run", again="Measure again"
    )
if job_panel(key, kept=result is not None) or result is None:
    st.stop()
if len(result.layers) < result.n_layers:
    st.warning(
        f"The run was cancelled: blocks {', '.join(map(str, result.layers))} of {result.n_layers} are here. Measure "
        "again for all.",
        icon=":material/info:",
    )

beside, effect, directions, table = st.tabs(["State beside update", "Effect on the output", "Directions", "Table"])
with beside:
    measure = st.segmented_control(
        "Measure",
        list(work.MEASURES),
        default="cosine",
        required=True,
        format_func=work.MEASURES.__getitem__,
        key="geometry_measure",
        bind="query-params",
    )
    draw = partial(result.figure, measure if measure in work.MEASURES else "cosine")
    chart(result, draw, key="geometry", alt="a measure by block, of state and update", on_pick=_pick_layer)
with effect:
    names = [name for name in work.MAPS if name in result.maps]
    chosen = st.segmented_control(
        "Map",
        names,
        default=names[0],
        required=True,
        format_func=lambda n: n.replace("_", "-"),
        key="geometry_map",
        bind="query-params",
    )
    chosen = chosen if chosen in names else names[0]
    st.caption(
        "One token's vector is replaced by what the map predicts, and the rest of the model runs on. If only the size "
        "of what is missing mattered, a random direction would do as well: compare the grey lines."
    )
    draw = partial(result.correlation_figure, chosen)
    chart(result, draw, key="geometry-rho", alt="correlation of error and effect by block", on_pick=_pick_layer)
    if here.layer in result.layers:
        draw = partial(result.scatter_figure, here.layer, chosen)
        chart(result, draw, key="geometry-scatter", alt="error against effect, a point a token")
    else:
        st.info(f"Block {here.layer} was not reached before the run was cancelled.")
with directions:
    if here.layer in result.layers:
        draw = partial(result.spectrum_figure, here.layer)
        chart(result, draw, key="geometry-spectrum", alt="share of the updates in the first directions")
    else:
        st.info(f"Block {here.layer} was not reached before the run was cancelled.")
with table:
    st.dataframe(result.to_frame().groupby(["layer", "map"], sort=False).mean().reset_index(), hide_index=True)
    st.caption("Means over the judged tokens; the export has every token.")
footer(result)
