# %% [markdown]
# # Layer-update geometry, and depth as time
#
# Does a block move each token by itself? A *tokenwise map* sees one token's vector and no other; what it leaves over of
# a block's output is the residual (Yoo 2026, arXiv:2604.02459). The published cosine is of the state, which a block
# hardly changes. The same of the **update**, the sizes and the controls are ours. Here on a bundled Mamba-2, with few
# tokens, to be quick.

# %%
import numpy as np

import strobe
from strobe.probes.geometry import layer_geometry

model = strobe.load("mamba2-python")
found = layer_geometry(
    model, layers=[1, 3], n_bank=1024, n_judged=96, k=32, maps=("low_rank", "diagonal", "constant", "identity"),
    n_bootstrap=200,
)  # fmt: skip
print(found.summary())

# %% [markdown]
# The state makes every map look good, the identity among them. The update does not.

# %%
found.figure()

# %%
state, update = (values.mean(axis=2) for values in found.pair("cosine"))
low_rank, identity = found.map_index("low_rank"), found.map_index("identity")
assert (state[:, low_rank] - update[:, low_rank] > 0.1).all(), "the state flatters the map"
assert np.isnan(update[:, identity]).all(), "the identity has no update"

# %% [markdown]
# ## What the residual does to the output
# One token's vector is replaced by what the map predicts. A larger residual changes the output more; so does a
# random direction of the same length, which is why it stands beside it.

# %%
found.correlation_figure("low_rank")

# %%
found.scatter_figure(3, "low_rank")

# %% [markdown]
# ## Depth as time
# The blocks as steps of one process: where is a token heading, how fast does it turn, which blocks do alike?

# %%
from strobe.probes.depth import block_recurrence, depth_dynamics

motion = depth_dynamics(model, n_tokens=512)
print(motion.summary())
motion.figure()

# %%
motion.similarity_figure("state", k=2)

# %% [markdown]
# Two shared blocks in the place of four, trained to retrace the model's path; the control shares blocks at random. With
# few steps this shows how it is done, not how well it can be done.

# %%
surrogate = block_recurrence(model, k=(2,), steps=8, batch=4, n_rows=40, n_held_out=8, rate=2e-3)
print(surrogate.summary())
assert surrogate.loss[0, 0, -1] < surrogate.loss[0, 0, 0], "training brings it nearer to the model's path"
surrogate.figure()
