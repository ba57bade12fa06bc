"""State collapse, forgetting and capacity: what a carry does along long inputs, and what changing it does."""

from strobe.probes.memory.capacity import Asked, Capacity, capacity, dense_recall, text_passkey
from strobe.probes.memory.comparison import compare_mitigations, training_norms
from strobe.probes.memory.comparison_result import MitigationComparison
from strobe.probes.memory.diagnostics import diagnose
from strobe.probes.memory.diagnostics_result import CarryDiagnostics
from strobe.probes.memory.family import FamilySettings, bundled_family, train_family
from strobe.probes.memory.family_result import MemoryFamily
from strobe.probes.memory.laws import MemoryLaw, fit_law
from strobe.probes.memory.memory_curve import MemoryCurve, memory_curve
from strobe.probes.memory.mitigations import Insertion, Mitigation, NormLimit, Planted, Reset, SlidingWindow, Swap
from strobe.probes.memory.position_loss import PositionLoss, position_loss
from strobe.probes.memory.remembrance import EffectiveRemembrance, effective_remembrance

__all__ = [
    "Asked",
    "Capacity",
    "CarryDiagnostics",
    "EffectiveRemembrance",
    "FamilySettings",
    "Insertion",
    "MemoryCurve",
    "MemoryFamily",
    "MemoryLaw",
    "Mitigation",
    "MitigationComparison",
    "NormLimit",
    "Planted",
    "PositionLoss",
    "Reset",
    "SlidingWindow",
    "Swap",
    "bundled_family",
    "capacity",
    "compare_mitigations",
    "dense_recall",
    "diagnose",
    "effective_remembrance",
    "fit_law",
    "memory_curve",
    "position_loss",
    "text_passkey",
    "train_family",
    "training_norms",
]
