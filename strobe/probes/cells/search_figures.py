"""Draws a `CellSearch`: the best units beside their controls, and all units of one label."""

from typing import TYPE_CHECKING

import numpy as np

from strobe.core import figures

if TYPE_CHECKING:
    import plotly.graph_objects

    from strobe.probes.cells.search_result import CellSearch

# Beyond these, a figure of all units shows the strongest ones only, and says so.
_DRAWN = 4000


def best_units(r: "CellSearch", template: str) -> "plotly.graph_objects.Figure":
    """See `CellSearch.figure`."""
    import plotly.graph_objects as go

    palette, fig = figures.colors(template), go.Figure()
    places = np.arange(len(r.labels))
    for v, variant in enumerate(r.variants):
        units = [r.unit_name(int(u)) if u >= 0 else "not run" for u in r.best[v, :, 0]]
        fig.add_scatter(
            x=np.abs(r.held_out[v, :, 0]),
            y=places + 0.12 * (1 - v),
            mode="markers",
            name=variant if v == 0 else f"control: {variant}",
            marker={"symbol": figures.SYMBOLS[v], "size": 10, "color": palette[0] if v == 0 else figures.CONTROL_COLOR},
            customdata=[
                [name, f"{chosen:+.3f}", f"{held:+.3f}", "none" if np.isnan(area) else f"{area:.3f}"]
                for name, chosen, held, area in zip(
                    units, r.chosen[v, :, 0], r.held_out[v, :, 0], r.auroc[v, :, 0], strict=True
                )
            ],
            hovertemplate=(
                "%{customdata[0]}<br>r where chosen %{customdata[1]}<br>r on other files %{customdata[2]}<br>"
                "AUROC on other files %{customdata[3]}<extra></extra>"
            ),
        )
    fig.update_yaxes(
        tickmode="array", tickvals=places, ticktext=[name.replace("_", " ") for name in r.labels], autorange="reversed"
    )
    fig.update_xaxes(title_text="|Pearson's r| on files the unit was not chosen on", range=[-0.02, 1.02])
    fig.update_layout(
        title={
            "text": "The best cell for each label",
            "subtitle": {"text": f"best of {r.n_units:,} units, chosen on {r.n_files[0]} files; {r.n_files[1]} others"},
        },
        height=520,
        margin={"l": 130, "t": 100},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": -0.15, "yanchor": "top"},
    )
    return figures.style(fig, template)


def all_units(r: "CellSearch", label: str, template: str) -> "plotly.graph_objects.Figure":
    """See `CellSearch.label_figure`."""
    import plotly.graph_objects as go

    i = r.label_index(label)
    chosen, held_out = r.correlation[:, i]
    order = np.argsort(-np.nan_to_num(np.abs(chosen), nan=-1.0), kind="stable")[:_DRAWN]
    order = order[np.isfinite(chosen[order]) & np.isfinite(held_out[order])]
    palette, fig = figures.colors(template), go.Figure()
    fig.add_scattergl(
        x=chosen[order],
        y=held_out[order],
        mode="markers",
        name="a unit",
        marker={"size": 5, "opacity": 0.5, "color": palette[0]},
        text=[r.unit_name(int(u)) for u in order],
        hovertemplate="%{text}<br>%{x:.3f} where chosen, %{y:.3f} on other files<extra></extra>",
    )
    for v in (1, 2):
        fig.add_scatter(
            x=r.chosen[v, i],
            y=r.held_out[v, i],
            mode="markers",
            name=f"control: best with {r.variants[v]}",
            marker={"symbol": figures.SYMBOLS[v], "size": 9, "color": figures.CONTROL_COLOR},
        )
    fig.add_scatter(x=[-1, 1], y=[-1, 1], mode="lines", name="equal", line={"width": 1, "color": figures.CONTROL_COLOR})
    fig.update_xaxes(title_text="Pearson's r on the files units are chosen on", range=[-1.05, 1.05])
    fig.update_yaxes(title_text="Pearson's r on other files", range=[-1.05, 1.05])
    fig.update_layout(
        title={
            "text": f"Every unit and the label {label.replace('_', ' ')}",
            "subtitle": {"text": f"the {len(order):,} strongest of {r.n_units:,} units"},
        },
        height=520,
        margin={"t": 100},
        legend={"orientation": "h", "x": 0, "xanchor": "left", "y": -0.15, "yanchor": "top"},
    )
    return figures.style(fig, template)
