"""`layer_activity`: the carry of one recurrent layer at every position of a text, as a series for any method here."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float64

from strobe.core.provenance import Provenance
from strobe.probes.dynamics.driven import _sequence
from strobe.probes.fixed_points.held import recurrent_layer
from strobe.probes.provenance import provenance_of


def layer_activity(
    model: Any, inputs: Any, *, layer: int | None = None, most: int = 512
) -> tuple[Float64[np.ndarray, "one time units"], Provenance]:
    """(activity [1, time, units], provenance) of the state that `layer` carries while it reads `inputs`.

    `inputs`: a text, token ids, or real inputs [time, d_input]. A matrix memory is flattened; of more than `most` units
    those that move most are kept, in their order, which the provenance says. Raises ValueError for a layer without a
    recurrence.
    """
    layer = recurrent_layer(model, layer)
    tokens = _sequence(model, inputs)
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, states="all", names_filter=f"blocks.{layer}.mixer.hook_state")
    activity = cache[f"blocks.{layer}.mixer.hook_state"].flatten(2).double().cpu().numpy()
    units = activity.shape[2]
    if units > most:
        kept = np.sort(np.argsort(-activity[0].std(0), kind="stable")[:most])
        activity = activity[:, :, kept]
    settings = {"layer": layer, "positions": tokens.shape[1], "units": units, "kept": min(units, most)}
    return activity, provenance_of(model, settings=settings)
