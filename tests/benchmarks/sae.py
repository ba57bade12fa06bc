"""Training an autoencoder: tokens a second of ours against SAELens's trainer, on the same vectors and of the same size.

SAELens does not install beside strobe. ``STROBE_SAELENS_PYTHON`` names a python that has it (sae-lens 6.54 and the same
torch); without it the table says that the comparison was not run.
"""

import json
import os
import statistics
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file

import strobe
from strobe.models import zoo
from strobe.models.corpus import PythonCorpus
from strobe.probes.lens.token_rows import token_rows
from strobe.probes.sae import SaeConfig, Site
from strobe.probes.sae.fitting import DictionaryFit
from strobe.probes.sae.stream import ActivationStream

_PYTHON = "STROBE_SAELENS_PYTHON"
_MODEL, _SITE = "mamba2-python", "blocks.1.hook_resid_post"


def section(steps: int = 100, turns: int = 3, d_sae: int = 1024, k: int = 16, batch: int = 2048) -> str:
    """A table of vectors a second for `steps` updates, ours and SAELens's by turns."""
    torch.set_num_threads(1)
    vectors = _vectors(20 * batch + 2048)
    theirs = os.environ.get(_PYTHON)
    ours, others = [], []
    with TemporaryDirectory() as folder:
        file = Path(folder) / "vectors.safetensors"
        save_file({"vectors": vectors}, file)
        for _ in range(turns):
            ours.append(_ours(vectors, steps, d_sae, k, batch))
            if theirs:
                others.append(_theirs(theirs, str(file), d_sae, k, batch, steps, 2e-3))
    lines = [
        "## Sparse autoencoders",
        "",
        f"TopK {k} of {d_sae}, {vectors.shape[1]} wide, batches of {batch} of the same vectors of {_MODEL}, {steps} "
        f"updates on one CPU thread; model passes not counted. CPU seconds, medians of {turns} turns, one after the "
        "other. Unexplained: of the variance of 2,048 vectors that were not trained on, after those updates; the "
        "initialisations and losses differ. SAELens runs in an environment of its own.",
        "",
        "| trainer | vectors a second | against ours | unexplained |",
        "|---|---|---|---|",
        _row("strobe", ours, ours, steps * batch),
    ]
    if not theirs:
        lines.append(f"| SAELens | not run: {_PYTHON} names no python | | |")
    if others:
        lines.append(_row("SAELens", others, ours, steps * batch))
    return "\n".join(lines) + "\n"


def _row(name: str, runs: list[tuple[float, float]], ours: list[tuple[float, float]], n: int) -> str:
    seconds, base = (statistics.median(s for s, _ in r) for r in (runs, ours))
    return f"| {name} | {n / seconds:,.0f} | {base / seconds:.2f}x | {statistics.median(u for _, u in runs):.3f} |"


def _vectors(n: int) -> torch.Tensor:
    model = strobe.load(_MODEL)
    corpus = PythonCorpus.build(tokenizer=zoo.folder(_MODEL) / "tokenizer.json")
    config = SaeConfig(batch=n, buffer=n, tokens=n)
    rows = token_rows(model, corpus.tokens("train"), config.context)
    return ActivationStream(model, Site(_SITE), rows, config)(0).clone()


def _ours(vectors: torch.Tensor, steps: int, d_sae: int, k: int, batch: int) -> tuple[float, float]:
    """(CPU seconds, unexplained variance)."""
    train, judged = vectors[:-2048], vectors[-2048:]
    batches = train.split(batch)[: len(train) // batch]
    config = SaeConfig(d_sae=d_sae, k=k, batch=batch, tokens=steps * batch, buffer=batch, learning_rate=2e-3)
    fit = DictionaryFit(lambda step: batches[step % len(batches)], config, (vectors.shape[1],))
    start = time.process_time()
    while not fit.done:
        fit.advance()
    spent = time.process_time() - start
    w = fit.weights()
    pre = (judged - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    features = torch.relu(pre) * (pre >= pre.topk(k, dim=1).values[:, -1:])
    left = judged - w["b_dec"] - features @ w["W_dec"]
    return spent, float(left.square().sum() / (judged - judged.mean(0)).square().sum())


def _theirs(python: str, *arguments: object) -> tuple[float, float]:
    script = Path(__file__).with_name("saelens_trainer.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [python, str(script), *map(str, arguments)], capture_output=True, text=True, check=True, env=environment
    )
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return found["seconds"], found["unexplained"]


if __name__ == "__main__":
    print(section())
