# %% [markdown]
# # Exact methods of dynamics
#
# Where a recurrence can be solved, it is solved: a network of ReLUs is affine inside each pattern of open and closed
# units, so that its fixed points and cycles come from linear equations. Where it cannot, its exponents say how fast two
# carries part or meet.

# %%
import numpy as np
import torch

import strobe
from strobe.probes.dynamics import (
    autocorrelation_timescales,
    driven_lyapunov_spectrum,
    dynamic_modes,
    lyapunov_spectrum,
    piecewise_linear_cycles,
    plrnn,
    travelling_waves,
)
from strobe.probes.dynamics.activity import layer_activity
from strobe.probes.dynamics.known_systems import henon

# %% [markdown]
# ## Fixed points and cycles, exactly
# A network of two ReLUs whose two 16-cycles are published (Eisenmann et al. 2023).

# %%
W = np.array([[0, -0.6437499999999996], [0.52505308, 0]])
network = plrnn(np.array([0.8377689000000008, 0.96461297]), W, np.array([0.37298253000000087, -0.97931491]))
cycles = piecewise_linear_cycles(network, 16)
print(cycles.summary())
cycles.figure().show()

# %% [markdown]
# ## Exponents of a map whose answer is known
# Henon's map: the largest is .419, and the two sum to ln .3 = -1.204 exactly.

# %%
start = 0.1 + 0.05 * torch.rand(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
spectrum = lyapunov_spectrum(henon(), initial=start, steps=2000)
print(spectrum.summary())

# %% [markdown]
# ## Exponents of a layer along a text
# Two carries that read the same text: does the layer forget where it started?

# %%
text = "def area(r):\n    return 3.14159 * r * r\n\n\nclass Circle:\n    def __init__(self, r):\n        self.r = r\n"
language = strobe.load("mamba2-python")
for layer in (0, 3):
    print(driven_lyapunov_spectrum(language, text, layer=layer).summary().splitlines()[1])
gru = strobe.load("flipflop-gru64")
pulses = np.random.default_rng(0).choice([-1, 0, 1], size=(200, 3)).astype(np.float32)
driven = driven_lyapunov_spectrum(gru, pulses)
print(driven.summary())
driven.figure().show()

# %% [markdown]
# ## Timescales, modes and waves of a carry

# %%
activity, where = layer_activity(gru, pulses)
print(autocorrelation_timescales(activity, provenance=where).summary())
modes = dynamic_modes(activity, rank=12, provenance=where)
print(modes.summary())
modes.figure().show()
print(travelling_waves(activity[0], provenance=where).summary())

# %% [markdown]
# ## Case studies
# Experiments of the literature, trained here, with what was found and where the effect did not appear.

# %%
from strobe.probes.dynamics.case_studies import CASES, bundled

for name in CASES:
    print(bundled(name).found, "\n")
bundled("words").figure().show()
