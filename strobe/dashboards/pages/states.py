"""What a recurrent layer carries along the text, and what happens to the predictions when it is changed."""

from functools import partial

import streamlit as st

from strobe.dashboards import asks, selection
from strobe.dashboards.components import chart, footer, token_strip
from strobe.dashboards.components.state_edit import state_edit

TITLE = "States"
ICON = ":material/memory:"
ORDER = 20
QUESTION = "What does a layer carry from token to token, and what changes when its carry is changed?"

st.title("States", anchor=False)
loaded, here = selection.require()
if not loaded.recurrent:
    st.info(
        f"{here.model_name} has no recurrent layer: attention keeps every key and value instead of a carry. "
        "Choose a recurrent or hybrid model to look at states.",
        icon=":material/info:",
    )
    st.stop()
if here.layer not in loaded.recurrent:
    st.info(f"Block {here.layer} is {loaded.mixers[here.layer]}, which has no recurrent carry. Recurrent blocks:")
    with st.container(horizontal=True):
        for layer in loaded.recurrent:
            label = f"{layer} · {loaded.mixers[layer]}"
            st.button(label, key=f"layer-{layer}", on_click=st.session_state.update, args=({"layer": layer},))
    st.stop()

st.markdown(
    "The **carry** at a token is what crosses from it to the next one: taken after the token was written, seen by "
    "every later token. **Click a token** to select it."
)
trace = asks.state_trace(loaded, here.subject, here.layer)
token_strip(
    trace.tokens,
    trace.norm_changes,
    label="change of the carry's norm at this token",
    unit="",
    chosen=here.position,
    key="state-tokens",
    on_pick=selection.pick_position,
)

norm, channels, attention = st.tabs(["Norm", "Channels", "Effective attention"])
with norm:
    per_head = trace.norms.shape[1] > 1 and st.toggle("A line for each head", key="per_head", bind="query-params")
    draw = partial(trace.figure, per_head=bool(per_head))
    chart(trace, draw, key="state-norm", alt="norm of the carry along the text", on_pick=selection.pick_point)
with channels:
    what = "channels"
    if trace.norms.shape[1] > 1:
        what = (
            st.segmented_control(
                "Rows", ["heads", "channels"], default="heads", required=True, key="rows", bind="query-params"
            )
            or "heads"
        )
    chart(trace, partial(trace.channel_figure, what=what), key="state-channels", alt=f"{what} of the carry by token")
with attention:
    if trace.attention is None:
        st.info(f"No effective attention: {trace.attention_note}.", icon=":material/info:")
    else:
        st.caption(
            "How much of what token *s* wrote is in the read of token *t*: exact, as the layer is linear in its carry."
            + (f" {trace.attention_note}." if trace.attention_note else "")
        )
        heads = trace.attention.shape[0]
        chosen = st.number_input(
            f"Head (empty: mean of |E| over {heads} heads)",
            0,
            heads - 1,
            None,
            key="head",
            bind="query-params",
            width=320,
        )
        head = None if chosen is None else selection.within(chosen, 0, heads - 1, "head")[0]
        chart(
            trace,
            partial(trace.attention_figure, head),
            key="state-attention",
            alt="effective attention, token by token",
        )

edit = state_edit(loaded, here)
footer(trace, *([edit] if edit is not None else []))
