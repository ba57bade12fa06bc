# %% [markdown]
# # Steering, by the residual stream and by the state
#
# A contrast vector is what differs, on average, between texts that show a behaviour and texts that do not
# (Rimsky et al. 2023). Paulo et al. 2024 add it to the residual stream of recurrent models, and, as an experiment, to
# what they *carry*. Here: two-space against four-space indentation, on a bundled Mamba-2, with files it has never seen.

# %%
import strobe
from strobe.probes.steering import Steering, SteeringVector, Where, contrast_set, contrast_vector, steering_sweep

model = strobe.load("mamba2-python")
contrast = contrast_set("indentation", n_pairs=100, n_questions=16)
print(f"{contrast.positive} against {contrast.negative}: {len(contrast.pairs)} pairs ({contrast.source})")
print("--- positive\n" + contrast.pairs[0].positive + "\n--- negative\n" + contrast.pairs[0].negative)

# %% [markdown]
# ## Two vectors from the same pairs
# The first has a direction in the residual stream after each block; the second one for every field of every layer's
# carry: the memory `S` and the convolution's window.

# %%
pairs = contrast.pairs[:40]
vectors = {
    "residual": contrast_vector(model, pairs, point="resid_post", layers=[2, 3]),
    "state": contrast_vector(model, pairs, point="carry", layers=[2, 3]),
}
for name, vector in vectors.items():
    print(name, {place: round(size, 2) for place, size in vector.norms.items()})

# %% [markdown]
# ## A sweep beside its controls
# Behaviour is p(two spaces) / p(either answer). A model that is only broken must look broken, so the probability
# outside the answers, the divergence from the unsteered model and the perplexity of what it writes stand beside it,
# and so do random directions of equal norm.

# %%
sweep = steering_sweep(
    model,
    vectors,
    contrast.questions,
    labels=(contrast.positive, contrast.negative),
    multipliers=(-2, -1, 0, 1, 2),
    n_random=2,
    n_continued=2,
    continuation=8,
)
print(sweep.summary())
sweep.figure(3)

# %% [markdown]
# Every setting on one pair of axes, whatever space its vector is in: what is gained, against what it costs.

# %%
sweep.trade_figure()

# %%
unchanged = sweep.multipliers == 0
assert abs(sweep.mean("effect")[..., unchanged]).max() < 1e-6
chance = sweep.mean("effect")[:, 1:].max()
assert sweep.mean("effect")[0, 0].max() > chance, "the vector does no more than a random direction"

# %% [markdown]
# ## Play: unsteered, steered, and the random control, from the same noise
# The residual vector is added at the last prompt token only, and the state is edited once, after the token before it;
# what was edited propagates. Sixteen continuations each: how deep is the first line of the body? The score above
# compares two answers with each other; where most of the probability is outside both, a vector can win there and
# something else be written.

# %%
import re
from collections import Counter

prompt = "def total(values):"
tokens = model.tokenize(prompt)[0].expand(16, -1)
last, before = Where("at", positions=(-1,)), Where("at", positions=(-2,))
shown = {
    "unsteered": None,
    "residual": Steering(model, vectors["residual"], 2.0, layers=3, where=last),
    "random, as residual": Steering(model, vectors["residual"].random(0), 2.0, layers=3, where=last),
    "state": Steering(model, vectors["state"], 1.0, layers=2, where=before),
    "random, as state": Steering(model, vectors["state"].random(0), 1.0, layers=2, where=before),
}
for name, steering in shown.items():
    texts = model.to_string((steering or model).generate(tokens, 12, temperature=0.7, seed=1, stop_at_eos=False))
    bodies = [re.match(r"\n( +)\S", text[len(prompt) :]) for text in texts]
    depths = Counter(f"{len(body[1])} spaces" if body else "no body below" for body in bodies)
    print(f"{name:>20}: {dict(depths.most_common())}")

# %% [markdown]
# ## Kept in a file that says what it is
# It comes back for this model and this hook point, and is refused for any other.

# %%
import tempfile
from pathlib import Path

with tempfile.TemporaryDirectory() as folder:
    path = vectors["state"].save(Path(folder) / "two_spaces.safetensors")
    print(path.with_suffix(".json").read_text()[:420], "...")
    SteeringVector.load(path, model, point="carry")
    try:
        SteeringVector.load(path, model, point="resid_post")
    except ValueError as refused:
        print("refused:", refused)
