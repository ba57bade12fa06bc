"""The axis of layers: integers, labelled with the layer l and its depth l/L, the last one being the model's output."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import plotly.graph_objects


def strided_layers(n_layers: int, limit: int) -> list[int]:
    """At most `limit` of the layers 0..n_layers, evenly spaced, with 0 and n_layers among them.

    >>> strided_layers(4, 10), strided_layers(48, 5)
    ([0, 1, 2, 3, 4], [0, 12, 24, 36, 48])
    """
    if limit < 2:
        raise ValueError(
            f"at most {limit} layers were asked for; the first and the last are always shown; give 2 or more"
        )
    if n_layers + 1 <= limit:
        return list(range(n_layers + 1))
    return sorted({round(i * n_layers / (limit - 1)) for i in range(limit)})


def layer_axis(
    fig: "plotly.graph_objects.Figure", n_layers: int, layers: list[int], axis: Literal["x", "y"], title: str = "layer"
) -> None:
    """Label an axis of `fig` on which layer l is at the number l; only `layers` get a label."""
    update = fig.update_xaxes if axis == "x" else fig.update_yaxes
    separator = "<br>" if axis == "x" else "  "
    labels = [f"{layer}{separator}{layer / n_layers:.2f}" for layer in layers]
    labels[-1] = f"output{separator}1.00" if layers[-1] == n_layers else labels[-1]
    update(
        title_text=f"{title} l, and l/L",
        tickmode="array",
        tickvals=layers,
        ticktext=labels,
        showgrid=False,
        zeroline=False,
        range=[-0.5, n_layers + 0.5],
    )
