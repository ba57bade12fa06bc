"""What a recurrent layer carries along a text, and what happens to the predictions when that carry is changed.

`state_trace` looks at the carry after every token; `state_intervention` scales it, zeroes it or takes it from another
text at one token, and compares the model that goes on from there with the untouched one and with random edits of the
same norm. Both know the state contract (`strobe.models.hooked`) and no architecture.

The carry at position t crosses from token t to t+1, so an edit there cannot reach the prediction made *at* token t: the
first prediction it can reach is the one made at token t+1. That one is called `first` here.
"""

# At once and not on first use: a saved result names the module its class was in, and older files name this one. None of
# these loads torch.
from strobe.probes.states.asked import Tick, recurrent_layers
from strobe.probes.states.intervention import state_intervention
from strobe.probes.states.intervention_result import StateIntervention
from strobe.probes.states.trace import state_trace
from strobe.probes.states.trace_result import StateTrace, total_norm

__all__ = [
    "StateIntervention",
    "StateTrace",
    "Tick",
    "recurrent_layers",
    "state_intervention",
    "state_trace",
    "total_norm",
]
