# %% [markdown]
# # Repetition: what looks back, what is reinforced, what makes a model loop
#
# The same questions of a small transformer and of a Mamba-2, both bundled. First the measures, on texts whose answer is
# known: rep-1 of one word said seven times is 6/7, and five copies of a unit of three are a run of period three.

# %%
import strobe
from strobe.probes.attribution import direct_logit_attribution
from strobe.probes.repetition import (
    RepetitionFeatures,
    greedy_loop,
    head_scores,
    rep_score,
    self_reinforcement,
    structural_repetition,
)
from strobe.probes.repetition.tandem import tandem_repeats

print(round(rep_score("repeat " * 7), 3), tandem_repeats("ABC" * 5))
code = "import os\n" + "".join(f"a{i} = {i}\nprint(a{i})\n" for i in range(5))
print(structural_repetition(code).summary())

# %% [markdown]
# ## What a repeat is worth
# Random tokens, repeated once. The loss of the second copy against that of the first needs no attention; heads are
# scored by their pattern, or by the effective attention of a mixer that is linear in its carry.

# %%
models = {name: strobe.load(name) for name in ("transformer-python", "mamba2-python")}
heads = {name: head_scores(model, n_rows=4) for name, model in models.items()}
for name, scores in heads.items():
    print(name, scores.summary(), sep="\n")
heads["transformer-python"].figure()

# %%
gaps = {name: scores.gap - scores.control_gap for name, scores in heads.items()}
assert gaps["transformer-python"] > 1 and gaps["transformer-python"] > gaps["mamba2-python"]

# %% [markdown]
# ## Self-reinforcement
# A line is repeated. Does it become likelier each time (Xu et al. 2022)? Beside it: random tokens repeated, and the
# line's own tokens in another order in each copy.

# %%
reinforced = {
    name: self_reinforcement(model, ["    return self.name\n"], prefix="def f(self):\n", copies=30)
    for name, model in models.items()
}
for name, result in reinforced.items():
    print(name, result.summary(), sep="\n")
reinforced["transformer-python"].figure()

# %% [markdown]
# ## Which component writes the repeat?
# The logit of the token that would repeat, less the mean of the vocabulary, shared out with the final norm's scale
# held. The parts add up to the model's own difference; without the scale they do not.

# %%
prompt = "import os\nimport sys\nimport os\nimport"
attribution = direct_logit_attribution(models["transformer-python"], prompt, " sys")
print(attribution.summary())
assert abs(attribution.total - attribution.logit_difference).max() < 1e-3
attribution.figure()

# %% [markdown]
# ## A greedy loop is a cycle of the carry
# Fed its own most likely token the model repeats itself; the carry comes back to where it was one period before, and
# the spectral radius of one turn, below 1, says that the cycle attracts.

# %%
loop = greedy_loop(models["mamba2-python"], "import os\nimport", max_new_tokens=60)
print(loop.summary())
loop.figure()

# %%
assert not loop.period or loop.spectral_radius.max() < 1

# %% [markdown]
# ## Features that make it repeat itself
# Found beforehand (`strobe repetition features`) and bundled: each candidate was turned up and the text that came was
# scored, beside an ordinary feature of equal activity. The summary says how many would clear the bar by chance.

# %%
from strobe.models import zoo

for name in models:
    print(name, RepetitionFeatures.load(zoo.folder(name) / "repetition.safetensors").summary(), sep="\n")
found = RepetitionFeatures.load(zoo.folder("transformer-python") / "repetition.safetensors")
found.figure()

# %%
found.ablation_figure()
