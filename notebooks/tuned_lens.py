# %% [markdown]
# # The tuned lens: what would the model say if it stopped here?
#
# A lens reads the residual stream of each layer as a distribution over the next token (Belrose et al. 2023,
# arXiv:2303.08112). The logit lens uses the model's own readout; the tuned lens first applies an affine map that was
# trained, per layer, to match the model's output.

# %%
from pathlib import Path
from tempfile import TemporaryDirectory

import strobe
from strobe.models.corpus import PythonCorpus

model = strobe.load("mamba2-python")
corpus = PythonCorpus.build(tokenizer=None)

# %% [markdown]
# ## Train one
# A few steps, to keep this notebook quick; the bundled one was trained for longer (`strobe lens mamba2-python --train`).

# %%
lens = strobe.TunedLens.fit(model, corpus.tokens("train"), steps=20, batch=4, context=128, seed=0)
print(lens)
