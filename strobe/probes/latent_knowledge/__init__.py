"""Latent knowledge: does what a model computes still say what is true where its answer does not?

After Mallen et al. 2023 (arXiv 2312.01037) and Paulo, Marshall and Belrose 2024 (arXiv 2404.05971), who fit probes in a
context in which a "quirky" model answers truthfully and test them in one in which it does not.
"""

from importlib import import_module as _import_module
from typing import Any as _Any

_EXPORTS = {
    "LatentKnowledge": "strobe.probes.latent_knowledge.result",
    "PROBES": "strobe.probes.latent_knowledge.directions",
    "Problem": "strobe.probes.latent_knowledge.problems",
    "Study": "strobe.probes.latent_knowledge.problems",
    "fit_direction": "strobe.probes.latent_knowledge.directions",
    "latent_knowledge": "strobe.probes.latent_knowledge.probe",
    "load_problems": "strobe.probes.latent_knowledge.problems",
    "quirky_sums_study": "strobe.probes.latent_knowledge.problems",
    "study_of": "strobe.probes.latent_knowledge.problems",
}
__all__ = [*_EXPORTS]


def __getattr__(name: str) -> _Any:
    if name in _EXPORTS:
        return getattr(_import_module(_EXPORTS[name]), name)
    raise AttributeError(
        f"module 'strobe.probes.latent_knowledge' has no attribute {name!r}; it exports {', '.join(__all__)}"
    )


def __dir__() -> list[str]:
    return sorted(__all__)
