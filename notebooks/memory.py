# %% [markdown]
# # Memory: collapse, its cause, the causal test, the cure
#
# Two bundled Mamba-2 layers of 36,000 parameters know one task, *segmented recall*: each segment of 64 tokens has a
# key/value map of its own. `recall-t64` was trained on single segments and never had to forget; `recall-t128`, on
# windows of two, had to. Every answer lies within the query's own segment, so what has to be recalled is equally far
# back at every position. It is a synthetic overwrite task: nothing here says that a language model collapsed, and in
# this task a larger state collapsed *less*, unlike in the paper that the diagnostics follow (Chen et al. 2024).

# %%
import numpy as np

import strobe
from strobe.models.tasks import task
from strobe.probes.memory import (
    Insertion,
    NormLimit,
    Planted,
    Reset,
    SlidingWindow,
    bundled_family,
    compare_mitigations,
    diagnose,
    effective_remembrance,
    training_norms,
)

collapsed, healthy = strobe.load("recall-t64"), strobe.load("recall-t128")
drawn = task("segmented_recall").generate(8, np.random.default_rng(0), segments=16)

# %% [markdown]
# ## The carry, far beyond training
# The norm grows in both; what tells them apart is **retention**, the share of a write that is left a segment later.

# %%
results = {model.model_name: diagnose(model, drawn.inputs, targets=drawn.targets, train_length=64, stride=16)
           for model in (collapsed, healthy)}  # fmt: skip
for name, result in results.items():
    print(name, "retention per segment, by head:", result.retention_per(64)[0].round(3))
    print(result.summary().splitlines()[1])
results["recall-t64"].figure("retention")

# %%
kept = {name: result.retention_per(64)[0] for name, result in results.items()}
assert kept["recall-t64"].min() > 0.8 > 0.1 > kept["recall-t128"].max()

# %% [markdown]
# ## Behaviour, and the causal test
# A norm is no collapse. Accuracy by segment is behaviour; zeroing the memory at each boundary is the intervention; the
# convolution's window, and a memory as large and as old of another sequence, are its controls.

# %%
limits = training_norms(collapsed, drawn.inputs, train_length=64, every=16)
mitigations = [
    Reset(every=64),
    Reset(every=64, part="windows"),
    NormLimit(limits=limits, every=64),
    Insertion(decay=0.97, write=1.0),
    SlidingWindow(window=64),
]
comparison = compare_mitigations(collapsed, drawn.inputs, mitigations, targets=drawn.targets, train_length=64)
print(comparison.summary())
comparison.figure()

# %%
assert comparison.verdict.startswith("collapse")
same = compare_mitigations(healthy, drawn.inputs, [Reset(every=64)], targets=drawn.targets, train_length=128, window=64)
assert same.verdict.startswith("no collapse"), same.verdict
print(same.verdict)

# %% [markdown]
# ## Does the prediction depend on the far past?
# Effective remembrance (Buitrago & Gu 2025): the total variation between the prediction after a whole context and after
# its last tokens alone. The contexts end on a query of the eighth segment; 64 tokens hold all that answers it.

# %%
contexts = drawn.inputs[:, : 7 * 64 + 34]
for model in (collapsed, healthy):
    remembrance = effective_remembrance(model, contexts, lengths=[34, 64, 128, 256, 447])
    print(model.model_name, dict(zip(remembrance.lengths.tolist(), remembrance.mean.round(3).tolist(), strict=True)))

# %% [markdown]
# ## Is there a law in the size of the state?
# Chen et al. 2024 find that T_forget, the training length from which a model learns to forget, grows in proportion to
# its state, and T_recall exponentially. A family of small models, trained by ``strobe memory-laws --train FOLDER`` and
# bundled, says what comes of it in this task; the published fit is drawn beside it, labelled as the paper's.

# %%
family = bundled_family()
print(family.summary())
family.figure("behaviour")

# %%
# Trained on one segment, all of them fail far beyond it, and an emptied memory repairs them: collapse at every size.
assert family.windows[0] == family.segment and family.collapsed[:, 0].all()
family.figure("forget")

# %% [markdown]
# ## The positive control
# One head that never forgets and whose write has a mean: its carry grows by as much every token, and the diagnostics
# say so. This is what they must find before their silence means anything.

# %%
language = strobe.load("mamba2-python")
tokens = np.random.default_rng(1).integers(language.cfg.d_vocab, size=(2, 2048))
plain = diagnose(language, tokens, train_length=512, layers=[0])
planted = diagnose(language, tokens, train_length=512, layers=[0], under=Planted(layers=(0,), heads=(2,), mean=1.0))
print("explosion ratio by head, plain  ", plain.explosion_ratio()[0].round(2))
print("explosion ratio by head, planted", planted.explosion_ratio()[0].round(2))
assert 2 in planted.exploded()[0] and not plain.exploded()
planted.figure("norm")
