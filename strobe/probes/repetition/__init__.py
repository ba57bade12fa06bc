"""Repetition: measured in a text, in probabilities, in heads and in code; found in features; followed as a loop.

Sources: Welleck et al. 2020 (rep-n), Xu et al. 2022 (self-reinforcement), Olsson et al. 2022 (induction), Yao et al.
2025 (repetition features), Dong et al. 2025 (repetition in code). What is ours is said to be where it is.
"""

from importlib import import_module as _import_module
from typing import Any as _Any

_EXPORTS = {
    "GreedyLoop": "strobe.probes.repetition.loop_result",
    "HeadScores": "strobe.probes.repetition.head_result",
    "RepetitionFeatures": "strobe.probes.repetition.feature_result",
    "SelfReinforcement": "strobe.probes.repetition.reinforcement_result",
    "StructuralRepetition": "strobe.probes.repetition.structure",
    "TextRepetition": "strobe.probes.repetition.text",
    "find_repetition_features": "strobe.probes.repetition.finding",
    "greedy_loop": "strobe.probes.repetition.loops",
    "head_scores": "strobe.probes.repetition.heads",
    "rank_features": "strobe.probes.repetition.ranking",
    "rep_n": "strobe.probes.repetition.metrics",
    "rep_score": "strobe.probes.repetition.metrics",
    "repetition_features": "strobe.probes.repetition.features",
    "self_reinforcement": "strobe.probes.repetition.reinforcement",
    "structural_repetition": "strobe.probes.repetition.structure",
    "text_repetition": "strobe.probes.repetition.text",
}
__all__ = [*_EXPORTS]


def __getattr__(name: str) -> _Any:
    if name in _EXPORTS:
        return getattr(_import_module(_EXPORTS[name]), name)
    raise AttributeError(
        f"module 'strobe.probes.repetition' has no attribute {name!r}; it exports {', '.join(__all__)}"
    )


def __dir__() -> list[str]:
    return sorted(__all__)
