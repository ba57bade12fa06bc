# %% [markdown]
# # Sparse autoencoders: features of a residual stream, and of a state
#
# A sparse autoencoder writes an activation as a few of many directions. Here: the bundled one of a Mamba-2 (TopK, Gao
# et al. 2024), what it keeps of the model beside PCA and an untrained dictionary, one of its features, what the model
# writes with that feature turned up or truly ablated, and a small one trained on a matrix *carry*.

# %%
import strobe
from strobe.models import zoo
from strobe.models.corpus import PythonCorpus
from strobe.probes.sae import (
    SaeConfig,
    SparseAutoencoder,
    evaluate_sae,
    feature_atlas,
    feature_hooks,
    feature_play,
    feature_text,
    train_sae,
)

name = "mamba2-python"
model = strobe.load(name)
corpus = PythonCorpus.build(tokenizer=zoo.folder(name) / "tokenizer.json")
sae = SparseAutoencoder.bundled(name)
sae.check(model)
print(f"{sae.kind}, {sae.d_sae} features of {sae.hook_name}, {sae.k} active a token")

# %% [markdown]
# ## What it keeps
# In place of the activation, on files that it was not trained on. 1 is the model as it is.

# %%
measured = evaluate_sae(model, sae, corpus, n_tokens=1024)
print(measured.summary())
measured.figure()

# %%
assert measured.explained_variance[0] > measured.explained_variance[1] + 0.3, "no better than PCA"
assert measured.recovered()[0] > 0.9 > measured.recovered()[2], "an untrained dictionary does as well"

# %% [markdown]
# ## Every feature, from one pass over held-out text
# Found by a token it fires on; then the passages where it fires, and the next tokens that it raises.

# %%
atlas = feature_atlas(model, sae, corpus, n_tokens=4096)
print(atlas.summary())
feature, token, strength = atlas.search("return")[0]
print(f"feature {feature} fires on {token!r}, {strength:.2f} on average; it raises {atlas.logits(feature)[0][:5]}")
for passage in atlas.passages(feature)[:4]:
    print(f"{passage.values[passage.at]:6.2f}  {''.join(passage.tokens)!r}")
atlas.figure(feature)

# %%
feature_text(model, sae, "def area(self, r):\n    return 3.14159 * r ** 2", [feature]).figure()

# %% [markdown]
# ## Turned up, ablated, and a control
# The control is a feature of equal activity, turned up as much. Ablating keeps the autoencoder's error, so a feature
# that is silent changes nothing, to the bit.

# %%
twin = atlas.twin(feature)
values = [1.5 * float(atlas.maximum[i]) for i in (feature, twin)]
play = feature_play(model, sae, "def area(r):", feature, values[0], (twin, values[1]), max_new_tokens=8)
print(play.summary())

# %%
prompt = model.tokenize("def area(r):")[0]
silent = [i for i in range(sae.d_sae) if not sae.encode(sae.site.read(model, prompt))[..., i].any()][:5]
plain = model.generate(prompt, 1, temperature=0)
same = model.generate(prompt, 1, temperature=0, fwd_hooks=feature_hooks(sae, silent, "ablate"))
assert (same == plain).all()

# %% [markdown]
# ## A dictionary of a matrix carry
# One head of the state, each atom an outer product $v w^T$, in the manner of WriteSAE. Its card is honest: it explains
# more of the variance than as many principal components do, and recovers less of the loss.

# %%
states = SparseAutoencoder.bundled(name, "sae-state-2-head-2")
states.check(model)
assert states.state_shape is not None and states.factors is not None
print(f"{states.d_sae} atoms of shape {states.state_shape}, {sum(f.numel() for f in states.factors)} numbers")
feature_text(model, states, "def area(self, r):\n    return 3.14159 * r ** 2").figure()

# %% [markdown]
# ## Training one
# At any hook point of any model; a few seconds here, so only enough to see it learn.

# %%
config = SaeConfig(d_sae=128, k=8, tokens=12_288, batch=256, buffer=4096, learning_rate=5e-3)
trained, training = train_sae(model, corpus, "blocks.0.hook_resid_post", config=config)
print(training.summary())
assert training.unexplained[-1] < 0.7 * training.unexplained[0]
training.figure()
