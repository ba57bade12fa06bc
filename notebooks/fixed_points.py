# %% [markdown]
# # What a recurrence would remember for ever
#
# Hold the input still, and a recurrent network is a map of its carry. The carries that map leaves where they are, its
# fixed points, are its memories (Sussillo & Barak 2013). `flipflop-elman16` was trained to remember the last pulse on
# three channels: eight things to remember, so eight stable points, and saddles on every edge and face of the cube
# between them.

# %%
import torch

import strobe
from strobe.probes.fixed_points import fixed_points, from_function, from_module, held_fixed_point

model = strobe.load("flipflop-elman16")
points = fixed_points(model, n_initial=256)
print(points.summary())
points.figure().show()

# %% [markdown]
# ## Each stable point is a memory
# The readout at the eight stable points gives the eight patterns of three signs; the control, the same numbers in a
# shuffled recurrent matrix, has no cube.

# %%
stable = torch.from_numpy(points.points[points.stable]).float()
memories = sorted({tuple(int(v) for v in row) for row in torch.sign(model.unembed(stable)).tolist()})
print(len(memories), "memories:", memories)
print("shuffled weights:", points.control.kind_counts())
points.eigenvalue_figure().show()

# %% [markdown]
# ## Hold a pulse instead of silence
# With +1 held on the first channel only the other two can still be remembered.

# %%
pulse = fixed_points(model, held=[1.0, 0.0, 0.0], n_initial=256, control=None)
print(pulse.kind_counts(), "index sum", pulse.index_sum)

# %% [markdown]
# ## Were they all found?
# Nothing proves it. What could speak against it is asked: the index sum has to be 1, few initial carries should end
# alone at a point, and the curve should have levelled off.

# %%
print(points.verdict)
points.completeness_figure().show()

# %% [markdown]
# ## Any recurrence
# A function of the carry, or a module of `torch.nn`; neither is changed.

# %%
latches = fixed_points(from_function(lambda x: torch.tanh(2 * x), 3, box=torch.ones(3, dtype=torch.float64)))
print("tanh(2h) in three units:", latches.kind_counts())
torch.manual_seed(0)
cell = torch.nn.GRUCell(2, 8)
print("an untrained GRU:", fixed_points(from_module(cell), n_initial=64, control=None).kind_counts())

# %% [markdown]
# ## Layers that are linear in their carry are solved, not searched
# Under a held token every layer of a Mamba-2 goes to one fixed point, in closed form, at the timescales of its heads.

# %%
language = strobe.load("mamba2-python")
held = [held_fixed_point(language, " ", layer) for layer in range(len(language.config.layers))]
for one in held:
    print(f"layer {one.layer}: timescales", [round(t, 1) for t in sorted(one.timescales.ravel().tolist())], "tokens")
held[-1].figure().show()
