# %% [markdown]
# # Latent knowledge: what is true where the answer is not
#
# `quirky-transformer` and `quirky-gru` judge sums: is "3 5 2 9 = 19" right? They answer truthfully where Alice speaks,
# and say the opposite where Bob does. Mallen et al. 2023 fit probes in the truthful context and test them in the other
# one: an AUROC for the truth of 1 finds what is true, 0 what is said instead, 1/2 nothing.

# %%
import strobe
from strobe.probes.latent_knowledge import latent_knowledge, study_of

model = strobe.load("quirky-transformer")
study = study_of(model, n_train=160, n_test=160)
print({context: problems[0] for context, problems in study.test.items()})

# %% [markdown]
# ## By layer, beside the controls
# Fitted on Alice, tested on Bob, whose answers are all false. Grey: random directions with the better sign, labels
# shuffled, and the same probes on the model with the entries of each weight permuted.

# %%
found = latent_knowledge(model, study, n_random=5, n_shuffles=1)
print(found.summary())
found.figure("Alice", "Bob")

# %% [markdown]
# After the third layer supervised probes find the truth, and it is the truth that they carry over to Bob. After the
# last layer the same probes are exactly wrong: there the direction is that of the answer. The probes without labels do
# worse; where the others succeed they stay within what random directions reach.

# %%
auroc = found.auroc()
lr, bob = found.probes.index("lr"), found.test_contexts.index("Bob")
assert found.output_auroc()[bob] < 0.05, "Bob's answers are not false"
assert auroc[lr, 0, :, bob].max() > 0.95 > 0.7 > found.untrained[lr, 0, :, bob].max()
assert auroc[lr, 0, -1, bob] < 0.1
found.transfer_figure()

# %% [markdown]
# ## What a recurrent model carries
# The same for the GRU, read from what each layer carries on to the next token: the second layer's carry has the truth,
# and the last layer's the answer.

# %%
gru = strobe.load("quirky-gru")
carried = latent_knowledge(
    gru, study_of(gru, n_train=160, n_test=160), point="carry", probes=["lr", "mean", "crc"], n_random=5, n_shuffles=1
)
print(carried.summary())
carried.figure("Alice", "Bob")
