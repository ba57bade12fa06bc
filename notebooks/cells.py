# %% [markdown]
# # Interpretable cells
#
# Karpathy, Johnson and Fei-Fei (2015, arXiv:1506.02078) coloured text by single LSTM cells and found, by looking, ones
# that follow quotes, depth and line length. Here every number that a GRU carries is tried, against labels that Python's
# `tokenize` makes; the search, the labels and the controls are ours. Few files, to be quick.

# %%
import numpy as np

import strobe
from strobe.probes.cells import (
    cell_text,
    error_types,
    gate_saturation,
    search_cells,
    token_importance,
    transition_view,
)

model = strobe.load("gru-python")
found = search_cells(model, n_files=12, length=256)
print(found.summary())

# %% [markdown]
# The best of hundreds of units looks good wherever it is chosen, so each was judged on files it was not chosen on, and
# the whole search was done again where there is nothing to find.

# %%
found.figure()

# %%
string = found.label_index("in_string")
assert abs(found.held_out[0, string, 0]) > 0.6, "a cell that knows strings"
assert abs(found.held_out[1, string, 0]) < 0.3, "labels of another file give nothing"
found.label_figure("in_string")

# %% [markdown]
# That cell along a text. A quote in a comment opens nothing.

# %%
TEXT = "def greet(name):\n    # the user's name\n    return 'hello, ' + name + '!'\n"
layer, field, number = found.place(int(found.best[0, string, 0]))
shown = cell_text(model, TEXT, layer, field, number)
assert np.isfinite(shown.values).all()
shown.figure()

# %% [markdown]
# Gate saturation (figure 2 of that paper): how often each gate is nearly shut or nearly open along the text. A gate of
# permuted weights, in grey, is hardly ever either.

# %%
gates = gate_saturation(model, TEXT)
print(gates.summary())
gates.figure()

# %% [markdown]
# Which tokens does the model get right that counting does not? Its loss in classes of held-out tokens, beside that of a
# 5-gram. The classes are ours, and so is the n-gram's small training text here; with more it is stronger.

# %%
errors = error_types(model, n_files=4, length=128, n_train=50_000)
assert errors.loss[0] < errors.ngram_loss[0]
errors.figure()

# %% [markdown]
# What each token wrote into a layer's carry, taken out again: how much does the last prediction change, and how far is
# one important token from the next? For a GRU there is no such write, and the memory is put back.

# %%
importance = token_importance(model, TEXT, layer)
print(importance.summary())
importance.figure()

# %%
importance.interval_figure(0.3)

# %% [markdown]
# Mixers that are linear in their carry are the same dynamical system with other matrices, M = A M + B. Two of them side
# by side, and the first with its weights permuted. A mixer that is not linear is linearised along the text.

# %%
pair = [(strobe.load("mamba2-python"), 0), (strobe.load("gated-deltanet-python"), 0)]
transitions = transition_view(pair, TEXT)
print(transitions.summary())
transitions.figure()
