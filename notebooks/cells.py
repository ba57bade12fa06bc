# %% [markdown]
# # Interpretable cells
#
# Karpathy, Johnson and Fei-Fei (2015, arXiv:1506.02078) coloured text by single LSTM cells and found, by looking, ones
# that follow quotes, depth and line length. Here every number that a GRU carries is tried, against labels that Python's
# `tokenize` makes; the search, the labels and the controls are ours. Few files, to be quick.

# %%
import numpy as np

import strobe
from strobe.probes.cells import cell_text, search_cells

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
