# %% [markdown]
# # The tuned lens: what would the model say if it stopped here?
#
# A lens reads the residual stream after each layer as a distribution over the next token. The logit lens uses the
# model's own readout; the tuned lens (Belrose et al. 2023, arXiv:2303.08112) first applies an affine map, trained per
# layer to match the model's output. Everything runs on a bundled model, on a CPU, without a download.

# %%
from pathlib import Path
from tempfile import TemporaryDirectory

import strobe
from strobe.models.corpus import PythonCorpus

model = strobe.load("mamba2-python")
lens = strobe.TunedLens.bundled(model)
print(lens.report.summary())

# %% [markdown]
# ## One text, every layer
# Each cell is the lens's most likely next token; the colour is how far its distribution is from the model's own (nats).

# %%
text = "def area(radius):\n    return 3.14 * radius ** 2\n\nprint(area(2.0))\n"
trajectory = lens.trajectory(model, text)
figure = trajectory.figure(statistic="kl")
figure

# %%
# The control in this figure is a constant lens: the model's output averaged over the tokens the lens was fitted on. A
# layer that does no better says nothing about this text.
trajectory.curve_figure()

# %%
trajectory.to_frame().head()

# %% [markdown]
# ## On held-out text
# Cross-entropy by layer in bits per byte, tuned beside logit lens, and how early the final answer is there.

# %%
corpus = PythonCorpus.build(tokenizer=strobe.models.zoo.folder("mamba2-python") / "tokenizer.json")
tokens = corpus.tokens("test")[:8192].astype("int64")
n_bytes = len(model.to_string(tokens).encode())
evaluation = lens.evaluate(model, tokens, n_bytes=n_bytes)
print(evaluation.summary())

# %% [markdown]
# ## Train one
# A few steps, to keep this notebook quick. `strobe lens mamba2-python --text ... --train --steps 600` fits the bundled
# one.

# %%
short = strobe.TunedLens.fit(model, corpus, steps=60, batch=8, context=64, seed=0)
print(short.report.summary())

# %% [markdown]
# ## Keep it
# A result is one file, with its provenance; a figure is HTML or JSON anywhere, PNG, SVG or PDF where a browser is.

# %%
with TemporaryDirectory() as folder:
    trajectory.save(Path(folder) / "trajectory.safetensors")
    again = type(trajectory).load(Path(folder) / "trajectory.safetensors")
    again.export(Path(folder) / "lens.html")
    print(sorted(p.name for p in Path(folder).iterdir()))
print(again.provenance.summary())
