"""Lenses: what a model would predict if it stopped after layer l (logit lens, tuned lens, causal basis extraction).

Layer l is ``resid[l]``: l = 0 the embedding output, l = 1..L the output of block l; a lens has translators for l =
0..L-1, and l = L is the model's own output. The results need no torch; the lenses do.
"""

from importlib import import_module as _import_module
from typing import Any as _Any

_EXPORTS = {
    "CausalBasis": "strobe.probes.lens.causal_basis",
    "CodaLens": "strobe.probes.lens.coda_result",
    "IterativeInference": "strobe.probes.lens.iterative_result",
    "LensEvaluation": "strobe.probes.lens.evaluation",
    "LensFit": "strobe.probes.lens.fit_report",
    "LensTrajectory": "strobe.probes.lens.trajectory",
    "LensTransfer": "strobe.probes.lens.transfer",
    "LogitLens": "strobe.probes.lens.logit_lens",
    "Looped": "strobe.probes.lens.looped",
    "LoopedBlocks": "strobe.probes.lens.looped",
    "PredictionDepth": "strobe.probes.lens.prediction_depth",
    "Readout": "strobe.probes.lens.readout",
    "TrajectoryAnomaly": "strobe.probes.lens.anomaly_result",
    "TunedLens": "strobe.probes.lens.tuned_lens",
    "UndertrainedLensWarning": "strobe.probes.lens.fit_report",
    "coda_lens": "strobe.probes.lens.coda",
    "extract_causal_basis": "strobe.probes.lens.causal_basis_extraction",
    "iterative_inference": "strobe.probes.lens.iterating",
    "load_tuned_lens_format": "strobe.probes.lens.tuned_lens_format",
    "model_readout": "strobe.probes.lens.readout",
    "residuals": "strobe.probes.lens.readout",
    "save_tuned_lens_format": "strobe.probes.lens.tuned_lens_format",
    "trajectory_anomaly": "strobe.probes.lens.anomaly",
}
__all__ = [*_EXPORTS]


def __getattr__(name: str) -> _Any:
    if name in _EXPORTS:
        return getattr(_import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'strobe.probes.lens' has no attribute {name!r}; it exports {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
