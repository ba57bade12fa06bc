"""Training an autoencoder from a page: the settings and the job."""

import streamlit as st

from strobe.dashboards import features_work
from strobe.dashboards.components.job_panel import job_panel
from strobe.dashboards.jobs import runner
from strobe.dashboards.loading import Loaded
from strobe.dashboards.plain import plain


def sae_training(loaded: Loaded, layer: int) -> None:
    """Settings of a training at the residual stream of block `layer`, its start, and how far it is."""
    st.markdown(
        "Trained on the source of Python's standard library, in the background and on a copy of the model; files that "
        "it has not seen judge it. What is cancelled goes on from there when it is started again, and what it has by "
        "then can be looked at."
    )
    first, second, third, fourth = st.columns([1, 1, 1.4, 1], vertical_alignment="bottom")
    width = first.number_input("Features", 16, 16384, 1024, 16, key="sae_width", persist_state="session")
    k = second.number_input("Active a token", 1, 256, 16, key="sae_k", persist_state="session")
    vectors = third.number_input("Tokens", 2000, 50_000_000, 300_000, 1000, key="sae_tokens", persist_state="session")
    settings = {
        "d_sae": int(width),
        "k": min(int(k), int(width)),
        "tokens": int(vectors),
        "batch": min(1024, int(vectors)),
        "learning_rate": 2e-3,
        "dead_after": max(1, int(vectors) // 4),
    }
    hook_name = f"blocks.{layer}.hook_resid_post"
    key = features_work.train_key(loaded.source, hook_name, settings)
    folder = features_work.sae_home(loaded) / f"resid-post-{layer}-{settings['d_sae']}-k{settings['k']}"
    job = runner().get(key)
    fourth.button(
        f"Train at block {layer}",
        icon=":material/model_training:",
        key="sae-train",
        on_click=features_work.start,
        args=(
            key,
            f"Autoencoder at block {layer} of {loaded.source.name}",
            lambda tick: features_work.train_for_page(loaded.source.name, hook_name, settings, folder, tick),
        ),
        disabled=job is not None and not job.finished,
    )
    job_panel(key, kept=folder.is_dir())
    if job is not None and job.state == "done":
        st.success(f"Trained; it is in {plain(str(folder))} and can be chosen above.")
