"""Word problems of S3 and S5 by one layer of each kind, and the eigenvalues of its transitions.

Merrill, Petty & Sabharwal 2024, "The illusion of state in state-space models" (arXiv 2404.08819): a linear recurrence
with diagonal transitions cannot follow the words of a group that does not commute; one nonlinear layer can. Grazzi et
al. 2024, "Unlocking state-tracking in linear RNNs through negative eigenvalues" (arXiv 2411.12537): transitions whose
eigenvalues all lie in [0, 1] cannot even follow parity.
"""

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from strobe.core.provenance import Provenance
from strobe.models import HookedLM, ModelConfig
from strobe.models.tasks import task
from strobe.probes.dynamics.case_studies.result import CaseStudy
from strobe.probes.dynamics.driven import layer_jacobians
from strobe.probes.dynamics.kept_run import KeptRun

_LAYERS: dict[str, dict[str, Any]] = {
    "gru": {"hidden": 64, "project_out": False},
    "elman": {"hidden": 64, "project_out": False},
    "mamba2": {"heads": 4, "head_dim": 16, "state": 16},
    "gated_deltanet": {"heads": 4, "key": 16, "value": 16},
}


def make(
    *,
    updates: int = 500,
    batch: int = 128,
    problems: tuple[str, ...] = ("s3", "s5"),
    length: int = 12,
    layers: tuple[str, ...] = tuple(_LAYERS),
    seeds: int = 3,
    run: KeptRun | None = None,
) -> CaseStudy:
    """Train one layer of each kind with `seeds` seeds on each problem and read accuracy by position, to four times the
    training length. `run`: where trainings are kept and go on from.
    """
    run = run or KeptRun(None)
    run.total = len(problems) * len(layers) * seeds * updates
    rows, curves, weights = [], {}, {}
    by: dict[tuple[str, str], np.ndarray] = {}
    for problem in problems:
        for layer in layers:
            models = [_train(problem, layer, updates, batch, length, seed, run) for seed in range(seeds)]
            run.tick("measuring")
            accuracy = np.array([_by_position(m, problem, 4 * length, s) for s, m in enumerate(models)])
            eigenvalues = [_eigenvalues(m, problem, length, s) for s, m in enumerate(models)]
            by[problem, layer] = np.stack([accuracy[:, :length].mean(1), accuracy[:, -length:].mean(1)])
            rows.append([problem, layer, *map(_spread, by[problem, layer]), *_of_eigenvalues(eigenvalues)])
            curves[f"{problem}, {layer}"] = np.stack([np.arange(1, 4 * length + 1), accuracy.mean(0)], 1)
            if layer == "gru":
                weights |= {f"{problem} {k}": v.detach().numpy() for k, v in models[0].named_parameters()}
    longest = 4 * length
    for problem in problems:
        chance = task(problem).chance(time=length)
        curves[f"{problem}, guessing (control)"] = np.array([[1, chance], [longest, chance]])
    return CaseStudy(
        name="words",
        title=f"Word problems by one layer, trained on {length} tokens",
        paper="Merrill, Petty & Sabharwal 2024, arXiv 2404.08819; Grazzi et al. 2024, arXiv 2411.12537",
        claim="One nonlinear layer follows the words of S3 and S5 at any length; one layer linear in its carry with "
        "transitions whose eigenvalues lie in [0, 1] does not.",
        found=_finding(by, rows, problems, layers),
        ours=f"One layer of width 64, {updates} updates of {batch} words, AdamW 3e-3, {seeds} seeds; S5 by "
        "its generators (01) and (01234) only, as all 120 elements are out of reach of minutes on a CPU. Eigenvalues "
        "are of the carry's Jacobian at each token of one word; for layers linear in their carry that is the "
        "transition A_t.",
        tables=[
            {
                "title": "Accuracy and eigenvalues",
                "columns": [
                    "problem",
                    "layer",
                    f"accuracy, tokens 1-{length}",
                    f"tokens {3 * length + 1}-{longest}",
                    "smallest real part",
                    "share below -.05",
                    "share turning (|imag| > .05)",
                ],
                "rows": rows,
                "note": "Accuracy: mean over seeds (smallest to largest); the smallest real part is of all seeds, "
                "shares are means. Control: the best constant answer, drawn as a line in the figure.",
            }
        ],
        curves=curves,
        x_title="position (tokens)",
        y_title="share of words right, mean over seeds",
        weights=weights,
        seconds=run.seconds,
        provenance=Provenance(
            model="one layer, four kinds",
            seed=0,
            settings={
                "updates": updates,
                "batch": batch,
                "problems": list(problems),
                "length": length,
                "layers": list(layers),
                "seeds": seeds,
            },
            control="guessing",
        ),
    )


def _spread(values: np.ndarray) -> str:
    return f"{values.mean():.3f} ({values.min():.3f} to {values.max():.3f})"


def _of_eigenvalues(eigenvalues: list[np.ndarray]) -> list[float]:
    """The smallest real part of all, and the mean shares below -.05 and turning."""
    below = [float((np.real(e) < -0.05).mean()) for e in eigenvalues]
    turning = [float((np.abs(np.imag(e)) > 0.05).mean()) for e in eigenvalues]
    return [min(float(np.real(e).min()) for e in eigenvalues), float(np.mean(below)), float(np.mean(turning))]


def _train(problem: str, layer: str, updates: int, batch: int, length: int, seed: int, run: KeptRun) -> HookedLM:
    chosen = task(problem)
    config = ModelConfig(
        d_model=64,
        d_vocab=chosen.size(),
        layers=[layer],
        mixer_options={layer: _LAYERS[layer]},
        mlp="none",
        norm="rms",
        residual=layer not in ("gru", "elman"),
        tie_embeddings=False,
        task=problem,
        seed=seed,
    )
    model = HookedLM(config, name=f"{problem}-{layer}")
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    name = f"{problem}, {layer}, seed {seed}"
    loop = run.loop(name, updates, {"batch": batch, "length": length}, model=model, optimizer=optimizer)
    for update in loop:
        drawn = chosen.generate(batch, np.random.default_rng((seed, update)), time=length)
        logits = model(torch.from_numpy(drawn.inputs))
        optimizer.zero_grad()
        loss = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(drawn.targets).flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loop.did(float(loss.detach()), name)
    return model.eval()


@torch.no_grad()
def _by_position(model: HookedLM, problem: str, length: int, seed: int) -> np.ndarray:
    drawn = task(problem).generate(256, np.random.default_rng((seed, 0, 1)), time=length)
    right = model(torch.from_numpy(drawn.inputs)).argmax(-1).numpy() == drawn.targets
    return right.mean(0)


@torch.no_grad()
def _eigenvalues(model: HookedLM, problem: str, length: int, seed: int) -> np.ndarray:
    drawn = task(problem).generate(1, np.random.default_rng((seed, 0, 2)), time=length)
    return np.concatenate([np.linalg.eigvals(J.numpy()).ravel() for J in layer_jacobians(model, drawn.inputs[0])])


def _finding(
    by: dict[tuple[str, str], np.ndarray], rows: list[list], problems: tuple[str, ...], layers: tuple[str, ...]
) -> str:
    said = []
    for problem in problems:
        solved, far = ([layer for layer in layers if by[problem, layer][i].min() > 0.95] for i in (0, 1))
        said.append(
            f"{problem}: {', '.join(solved) or 'no layer'} above 95 % at the training length with every seed, "
            f"{', '.join(far) or 'none'} also at four times it"
        )
    low = {row[1]: min(r[4] for r in rows if r[1] == row[1]) for row in rows}
    said.append("smallest real part of an eigenvalue: " + ", ".join(f"{k} {v:.2f}" for k, v in low.items()))
    return "; ".join(said) + "."
