# %% [markdown]
# # The tuned lens: what would the model say if it stopped here?
#
# A lens reads the residual stream after each layer as a distribution over the next token. The logit lens uses the
# model's own readout; the tuned lens (Belrose et al. 2023, arXiv:2303.08112) first applies an affine map, trained per
# layer to match the model's output. Everything runs on a bundled model, on a CPU, without a download.

# %%
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import strobe
from strobe.models.corpus import PythonCorpus
from strobe.probes.lens import Looped, coda_lens, iterative_inference

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
# ## Does each block go downhill?
# If a model infers iteratively (Jastrzębski et al. 2018; Belrose et al. 2023, appendix C), each block moves the
# residual stream along minus the gradient of the loss. Which gradient decides the answer: against what the model would
# predict if it stopped there, most updates go downhill; against the loss of the trained model as it is, they are like
# another token's, in grey. And no single block is missed much but the first.

# %%
iterative = iterative_inference(model, n_tokens=1024)
assert (iterative.downhill[1, 0] > iterative.downhill[1, 1] + 0.1).all(), "more often than another token's update"
assert iterative.deleted.argmax() == 0, "the first block is missed the most"
print(iterative.summary())
iterative.figure()

# %%
iterative.deletion_figure()

# %% [markdown]
# ## Depth-recurrent models
# A model that applies the same core blocks again and again can be read after each of them, at once or through the
# coda, the blocks after the core (Lu et al. 2025). None is bundled, so here is a small one of functions, untrained; the
# blocks of a loaded model are given as `LoopedBlocks(model, prelude, core, coda)`.

# %%
generator = torch.Generator().manual_seed(0)
draw = lambda rows: torch.randn(rows, 16, generator=generator)
embedding, w, v, unembedding = draw(100), draw(16) / 4, draw(16) / 4, draw(100)
toy = Looped(
    prelude=lambda ids: embedding[ids],
    initial=torch.zeros_like,
    core=[lambda x, e: x + 0.5 * (torch.tanh(x @ w + e) - x), lambda x, e: x + torch.tanh(x @ v)],
    coda=lambda x: torch.tanh(x @ v.T),
    readout=lambda x: x @ unembedding.T,
    steps=12,
)
ranks = coda_lens(toy, torch.arange(24))
assert (ranks.rank[1, 0, -2] == 1).all(), "after the last block the coda lens is the model"
ranks.figure()

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
