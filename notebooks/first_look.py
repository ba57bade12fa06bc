# %% [markdown]
# # A first look inside a recurrence
#
# What does a state-space model carry from one token to the next, and what happens if you change it?
# Everything here runs on a bundled model, on a CPU, without a download.

# %%
import torch

import strobe

model = strobe.load("mamba2-python")
text = "def area(radius):\n    return 3.14 * radius *"
tokens, _ = model.tokenize(text)
print(model.model_name, "layers:", model.config.layers, "tokens:", tokens.shape[1])

# %% [markdown]
# ## Look: the carry at any position, at the cost of the positions asked for
# `states` are positions. The carry at position t is what crosses from token t to token t+1.

# %%
logits, cache = model.run_with_cache(tokens, states=[0, 5, -1])
state = cache["blocks.1.mixer.hook_state"]
print("S of layer 1 at three positions:", tuple(state.shape), "= [batch, positions, heads, state, head_dim]")
print("its norm per head at the last:", [round(x, 2) for x in state[0, -1].flatten(1).norm(dim=-1).tolist()])


# %% [markdown]
# ## Change it, and let the model go on from it
# A hook on `hook_carry` is called at the looked positions and what it returns propagates: nothing up to the position
# moves, everything after does. The same edit as data gives the same numbers.


# %%
def forget(carry, hook):
    return carry._replace(S=torch.zeros_like(carry.S))


position = 5
edited = model.run_with_hooks(tokens, fwd_hooks=[("blocks.1.mixer.hook_carry", forget)], states=[position])
as_data = model.run_with_edits(tokens, [strobe.StateEdit(layer=1, position=position, kind="scale", value=0.0)])
moved = (edited - logits).abs().amax((0, 2))
assert torch.equal(edited, as_data)
assert moved[: position + 1].max() == 0 and moved[position + 1 :].min() > 0
print("largest change of a logit, token by token:", [round(x, 3) for x in moved.tolist()])

# %% [markdown]
# ## Keep a state, splice it, go on from it

# %%
state = model.state_after(text)
other = model.state_after("class Circle:\n    def __init__(self, radius):\n        self.radius =")
spliced = state.splice(other, layers=[2, 3])
for name, start in {"as it was": state, "layers 2 and 3 of the other text": spliced}.items():
    probabilities = model(" ", state=start)[0, -1].softmax(-1)
    top = probabilities.topk(4)
    likely = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    print(f"{name:>34}:", [(model.to_string([token]), round(p, 3)) for token, p in likely])

# %% [markdown]
# ## Generate, with the same hook at every new token
# The draw depends on the seed alone, so the two continuations differ by the intervention and nothing else.


# %%
def halve(carry, hook):
    return carry._replace(S=carry.S * 0.5)


for name, hooks in {"untouched": [], "layer 1 halved at every token": [("blocks.1.mixer.hook_carry", halve)]}.items():
    print(f"--- {name}\n{model.generate(text, 40, fwd_hooks=hooks, temperature=0.7, seed=0)}")
