"""Features of a sparse autoencoder: when they fire, on what, what they do to the next token, and what turning them up
writes."""

from typing import TYPE_CHECKING, Any

import streamlit as st

from strobe.core.errors import ResultFileError
from strobe.dashboards import features_work, loading, selection, store
from strobe.dashboards.components import chart, footer, job_panel, say_if_partial
from strobe.dashboards.components.feature_view import activity, in_text, passages, search_box
from strobe.dashboards.components.sae_training import sae_training
from strobe.dashboards.components.state_edit import continuation_html
from strobe.dashboards.jobs import runner
from strobe.dashboards.plain import code, plain

if TYPE_CHECKING:
    from strobe.probes.sae import FeatureAtlas, SparseAutoencoder

TITLE = "Features"
ICON = ":material/auto_awesome_mosaic:"
ORDER = 50
QUESTION = "Which sparse features does the model compute with, when do they fire, and what do they do?"


@st.cache_resource(max_entries=4, show_spinner="Opening the autoencoder")
def _open(_loaded: loading.Loaded, name: str, stamp: str, folder: str, sae_stamp: float) -> Any:
    from pathlib import Path

    try:
        with _loaded.lock:
            return features_work.open_sae(_loaded, features_work.SaeFile("", Path(folder))), ""
    except (ValueError, IndexError) as error:
        return None, str(error)


@st.cache_resource(max_entries=2, show_spinner=False)
def _reopen(key: str, stamp: float) -> Any:
    try:
        return store.reopen(key)
    except ResultFileError as error:
        return error


@st.cache_resource(max_entries=8, show_spinner="Reading the text")
def _text(
    _loaded: loading.Loaded, _sae: Any, name: str, stamp: str, sae: str, ids: tuple[int, ...], feature: int
) -> Any:
    from strobe.probes.sae import feature_text

    with _loaded.lock:
        return feature_text(_loaded.model, _sae, list(ids), [feature])


def _kept(key: str) -> Any:
    path = store.path_of(key)
    found = _reopen(key, path.stat().st_mtime) if path.is_file() else None
    if isinstance(found, ResultFileError):
        st.warning(f"A kept result could not be opened and will be computed again when you run it: {plain(str(found))}")
        return None
    return found


def _chosen(loaded: loading.Loaded) -> "tuple[SparseAutoencoder, str] | None":
    """The autoencoder that is looked at and its folder; None where there is none that can be used."""
    files = {f.label: str(f.path) for f in features_work.sae_files(loaded)}
    typed = st.session_state.get("sae") or st.query_params.get("sae")
    labels = [*files, *([typed] if typed and typed not in files else [])]
    label = st.selectbox(
        "Autoencoder", labels, index=0 if labels else None, accept_new_options=True, key="sae", bind="query-params",
        placeholder="a SAELens directory", help="A bundled one, one trained here, or the path of a SAELens directory.",
    )  # fmt: skip
    if not label:
        st.info("No autoencoder of this model is here yet. Train one below, or type the path of a SAELens directory.")
        return None
    folder = files.get(label, str(label))
    sae, problem = _open(loaded, loaded.source.name, loaded.source.stamp, folder, features_work.stamp_of(folder))
    if sae is None:
        st.error(plain(f"{label} cannot be used here: {problem}"), icon=":material/error:")
        return None
    active = f", {sae.k} active a token" if sae.k else ""
    reads = f"reads {code(sae.hook_name, 60)} · {plain(features_work.judged(folder))}"
    st.caption(f"{sae.kind} · {sae.d_sae} features{active} · {reads}")
    return sae, folder


def _atlas(loaded: loading.Loaded, sae: "SparseAutoencoder", folder: str) -> "FeatureAtlas | None":
    n_tokens = int(
        st.number_input("Held-out tokens to read", 512, 1_000_000, 32_768, 512, key="atlas_tokens", bind="query-params")
    )
    key = features_work.atlas_key(loaded.source, sae.weights_hash(), n_tokens)
    atlas, job = _kept(key), runner().get(key)
    name = loaded.source.name
    st.button(
        "Read again" if atlas is not None else "Read the features off held-out text",
        type="secondary" if atlas is not None else "primary",
        icon=":material/play_arrow:",
        key="atlas-run",
        on_click=features_work.start,
        args=(
            key,
            f"Features of {name}",
            lambda tick: features_work.make_atlas(key, name, folder, n_tokens, tick),
        ),
        disabled=(job is not None and not job.finished) or loaded.model.tokenizer is None,
    )
    if job_panel(key) or atlas is None:
        return None
    say_if_partial(atlas)
    return atlas


def _play(loaded: loading.Loaded, sae: "SparseAutoencoder", folder: str, atlas: "FeatureAtlas", feature: int) -> Any:
    """Stimulate and deactivate: settings, job, continuations side by side; the result, if there is one."""
    st.subheader("Turn it up, take it out", anchor=False)
    st.markdown(
        "The page's text is continued four ways with the same noise. **Ablating** takes out what the feature "
        "contributes and keeps the autoencoder's error; the **control** is a feature of equal activity, turned up as "
        "much. Which control, and the units, are ours."
    )
    first, second, third = st.columns(3, vertical_alignment="bottom")
    times = first.number_input("Times its maximum", 0.1, 20.0, 1.5, 0.1, key="feature_by", bind="query-params")
    new = second.number_input("New tokens", 1, 200, 32, key="feature_new", bind="query-params")
    heat = third.number_input("Temperature (0: greedy)", 0.0, 5.0, 0.7, 0.1, key="feature_heat", bind="query-params")
    twin = atlas.twin(feature)
    settings = {
        "feature": feature, "value": float(times * atlas.maximum[feature]), "control": twin,
        "control_value": float(times * atlas.maximum[twin]), "new": int(new), "temperature": float(heat),
    }  # fmt: skip
    subject, name = selection.current().subject, loaded.source.name
    key = features_work.play_key(loaded.source, subject, sae.weights_hash(), settings)
    job, result = runner().get(key), _kept(key)
    st.button(
        "Run again" if result is not None else "Stimulate",
        type="secondary" if result is not None else "primary",
        icon=":material/play_arrow:",
        key="feature-run",
        on_click=features_work.start,
        args=(
            key,
            f"Feature {feature} of {name}",
            lambda tick: features_work.play(key, name, folder, subject, settings, tick),
        ),
        disabled=job is not None and not job.finished,
    )
    if job_panel(key) or result is None:
        return None
    say_if_partial(result)
    names = ("Unsteered", f"Feature {feature} up", f"Feature {feature} ablated", f"Control: feature {twin} up")
    for column, label, words, surprise in zip(st.columns(4), names, result.continuations, result.surprise, strict=True):
        with column, st.container(border=True, height="stretch"):
            st.caption(f"{label} · {float(surprise[: len(words)].mean()):.2f} nats per token to the model as it is")
            st.html(continuation_html(words, result.continuations[0]))
    chart(result, result.figure, key="feature-play", alt="surprise of the model as it is at each continuation")
    return result


st.title("Features", anchor=False)
loaded, here = selection.require()
st.markdown(
    "A **sparse autoencoder** writes an activation as a few of many directions (Bricken et al. 2023; TopK after Gao et "
    "al. 2024). Each is a feature: here is when it fires, on what text, and what it does to the next token."
)
found = _chosen(loaded)
atlas = _atlas(loaded, *found) if found is not None else None
if found is not None and atlas is not None:
    sae, folder = found
    left, right = st.columns([1, 3], vertical_alignment="bottom")
    with left:
        first = int(atlas.maximum.argmax())
        if "feature" in st.session_state:
            st.session_state["feature"], _ = selection.within(
                st.session_state["feature"], 0, atlas.n_features - 1, "feature"
            )
        asked = st.number_input("Feature", 0, atlas.n_features - 1, first, 1, key="feature", bind="query-params")
        feature, note = selection.within(asked, 0, atlas.n_features - 1, "feature")
    with right:
        search_box(atlas)
    if note:
        st.warning(note)
    activity(atlas, feature)
    if atlas.density[feature]:
        with st.expander("Where it fires, by strength", expanded=True, icon=":material/format_quote:"):
            passages(atlas, feature)
    st.subheader("In the page's text", anchor=False)
    text = _text(loaded, sae, loaded.source.name, loaded.source.stamp, sae.weights_hash(), here.ids, feature)
    in_text(text, feature, here.position)
    played = _play(loaded, sae, folder, atlas, feature) if atlas.density[feature] else None
    st.subheader("All features", anchor=False)
    chart(atlas, atlas.figure, key="feature-densities", alt="how many features fire how often")
    footer(atlas, text, *([played] if played is not None else []))
with st.expander("Train an autoencoder of this model", icon=":material/model_training:", expanded=found is None):
    sae_training(loaded, here.layer)
