"""Models: native ones that train, Hugging Face ones whose recurrences are ours, and one contract for both."""

from strobe.models.checkpoint import load_checkpoint, save_checkpoint
from strobe.models.config import ModelConfig
from strobe.models.hooked import StateContract, StateEdit
from strobe.models.loading import available, load
from strobe.models.native import HookedLM
from strobe.models.state import ModelState

__all__ = [
    "HookedLM",
    "ModelConfig",
    "ModelState",
    "StateContract",
    "StateEdit",
    "available",
    "load",
    "load_checkpoint",
    "save_checkpoint",
]
