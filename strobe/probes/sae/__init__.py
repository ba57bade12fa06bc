"""Sparse autoencoders: features of an activation or of a matrix carry, trained, measured beside PCA, and intervened on.

TopK and its auxiliary loss after Gao et al. 2024 (arXiv:2406.04093), BatchTopK after Bussmann et al. 2024
(arXiv:2412.06410), JumpReLU after Rajamanoharan et al. 2024 (arXiv:2407.14435), ReLU with L1 after Bricken et al. 2023.
Directories are SAELens's.
"""

from importlib import import_module as _import_module
from typing import Any as _Any

_EXPORTS = {
    "FeatureAtlas": "strobe.probes.sae.atlas",
    "FeaturePlay": "strobe.probes.sae.play",
    "SaeConfig": "strobe.probes.sae.config",
    "FeatureText": "strobe.probes.sae.text_features",
    "SaeEvaluation": "strobe.probes.sae.evaluation",
    "Site": "strobe.probes.sae.site",
    "SparseAutoencoder": "strobe.probes.sae.autoencoder",
    "ablate_features": "strobe.probes.sae.intervening",
    "bundled_saes": "strobe.probes.sae.autoencoder",
    "evaluate_sae": "strobe.probes.sae.evaluating",
    "feature_atlas": "strobe.probes.sae.atlas_making",
    "feature_hooks": "strobe.probes.sae.intervening",
    "feature_play": "strobe.probes.sae.play",
    "feature_text": "strobe.probes.sae.text_features",
    "make_sae": "strobe.probes.sae.making",
    "train_sae": "strobe.probes.sae.training",
    "unfinished_sae": "strobe.probes.sae.training",
}
__all__ = [*_EXPORTS]


def __getattr__(name: str) -> _Any:
    if name in _EXPORTS:
        return getattr(_import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'strobe.probes.sae' has no attribute {name!r}; it exports {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
