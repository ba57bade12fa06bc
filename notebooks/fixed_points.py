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
from strobe.models import zoo
from strobe.models.zoo.training_steps import load_steps
from strobe.probes.fixed_points import (
    basins,
    continua,
    cycles,
    depth_orbit,
    fixed_points,
    fixed_points_over_training,
    from_function,
    from_module,
    held_fixed_point,
    held_stack,
    layer_exponents,
    unstable_manifolds,
)

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
# ## Between the points
# Each saddle on an edge of the cube has one direction that grows; its two ends are the two memories that it parts,
# which differ in one bit. Which memory a carry comes to is often, and not always, the nearest one: the control.

# %%
ways = unstable_manifolds(model, points)
print(ways.summary().splitlines()[1])
ways.figure().show()
ends = basins(model, points, n_initial=512)
print(f"{ends.agreement:.0%} of 512 carries end at the nearest memory")

# %% [markdown]
# ## How they came about
# The same network on its way: one fixed point for its first 48 steps, 27 from step 60 on.

# %%
learned = fixed_points_over_training(load_steps(zoo.folder("flipflop-on-its-way"))[2:9], n_initial=64, rounds=2)
print(learned.summary())
learned.counts_figure().show()

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

# %% [markdown]
# The layers settle one after the other, so the spectrum of the whole model is that of its layers together. Tokens that
# come in turn for ever make a cycle, solved in the same way.

# %%
whole = held_stack(language, " ")
print(whole.summary())
turn = held_fixed_point(language, [ord("a") % 64, 10, 20], 0)
print(f"a turn of {turn.turn} tokens moves layer 0's cycle by {turn.speed:.1g}")

# %% [markdown]
# ## Cycles and rings
# The map need not come to rest: it may come back after k steps, or have a whole ring of carries it leaves alone.

# %%
print("tanh(-2x):", cycles(from_function(lambda x: torch.tanh(-2 * x), 1), (1, 2), n_initial=32).counts())
circle = from_function(lambda x: x * (1 + 0.1 * (1 - x.norm(dim=-1, keepdim=True) ** 2)), 2)
curves = continua(circle, fixed_points(circle, torch.tensor([[0.9, 0.5]]), rounds=0))
print(curves.summary().splitlines()[1])

# %% [markdown]
# ## Depth as time
# Blocks with weights of their own have no fixed points. How disturbances grow on their way through them can be asked of
# any model; what one block would do if it were applied for ever is a thought experiment here.

# %%
print(layer_exponents(language, "def area(r):", draws=4).summary())
print(depth_orbit(language, "def area(r):", layers=1, steps=60).summary())

# %% [markdown]
# A depth-recurrent model applies one block again and again by design, each time with the embedded input e beside the
# stream: s <- R(e, s). Any such block of yours is a module or a function of the stream. Here it is a random transformer
# layer, with small weights and with large ones.

# %%
for gain in (0.5, 3.0):
    torch.manual_seed(0)
    block = torch.nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True).eval()
    embedded, first = torch.randn(5, 16), torch.randn(5, 16)
    with torch.no_grad():
        for p in block.parameters():
            p.mul_(gain)
    seen = depth_orbit(lambda s, R=block, e=embedded: R(s + e), first, dtype=torch.float32)
    print(f"weights times {gain}: {seen.summary().splitlines()[0]}; exponents {seen.exponents.round(3)}")
seen.figure().show()
