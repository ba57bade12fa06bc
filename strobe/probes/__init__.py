"""Probes: one analysis a folder or file; each fits or asks, and answers with a `Result`. Names load on first use."""

from importlib import import_module as _import_module
from typing import Any as _Any

_EXPORTS = {
    "FixedPoints": "strobe.probes.fixed_points",
    "LogitLens": "strobe.probes.lens",
    "SparseAutoencoder": "strobe.probes.sae",
    "SteeringVector": "strobe.probes.steering",
    "TunedLens": "strobe.probes.lens",
    "block_recurrence": "strobe.probes.depth",
    "depth_dynamics": "strobe.probes.depth",
    "direct_logit_attribution": "strobe.probes.attribution",
    "greedy_loop": "strobe.probes.repetition",
    "head_scores": "strobe.probes.repetition",
    "held_fixed_point": "strobe.probes.fixed_points",
    "held_stack": "strobe.probes.fixed_points",
    "layer_exponents": "strobe.probes.fixed_points",
    "layer_swaps": "strobe.probes.fixed_points",
    "layer_geometry": "strobe.probes.geometry",
    "LatentKnowledge": "strobe.probes.latent_knowledge",
    "provenance_of": "strobe.probes.provenance",
    "repetition_features": "strobe.probes.repetition",
    "self_reinforcement": "strobe.probes.repetition",
    "structural_repetition": "strobe.probes.repetition",
    "text_repetition": "strobe.probes.repetition",
    "coda_lens": "strobe.probes.lens",
    "iterative_inference": "strobe.probes.lens",
    "trajectory_anomaly": "strobe.probes.lens",
    "cell_text": "strobe.probes.cells",
    "error_types": "strobe.probes.cells",
    "gate_saturation": "strobe.probes.cells",
    "search_cells": "strobe.probes.cells",
    "token_importance": "strobe.probes.cells",
    "transition_view": "strobe.probes.cells",
    "capacity": "strobe.probes.memory",
    "compare_mitigations": "strobe.probes.memory",
    "diagnose": "strobe.probes.memory",
    "effective_remembrance": "strobe.probes.memory",
    "memory_curve": "strobe.probes.memory",
    "position_loss": "strobe.probes.memory",
    "autocorrelation_timescales": "strobe.probes.dynamics",
    "driven_lyapunov_spectrum": "strobe.probes.dynamics",
    "dynamic_modes": "strobe.probes.dynamics",
    "lyapunov_spectrum": "strobe.probes.dynamics",
    "piecewise_linear_cycles": "strobe.probes.dynamics",
    "travelling_waves": "strobe.probes.dynamics",
}
__all__ = [*_EXPORTS]


def __getattr__(name: str) -> _Any:
    if name in _EXPORTS:
        return getattr(_import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'strobe.probes' has no attribute {name!r}; it exports {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
