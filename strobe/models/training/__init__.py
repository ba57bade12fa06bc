"""Training of any model from token ids to logits (or from inputs to outputs), to the same weights every time."""

from strobe.models.training.batches import Batch, Batches, random_windows
from strobe.models.training.checkpointing import CHECKPOINT_FILE
from strobe.models.training.config import TrainingConfig, learning_rate_at
from strobe.models.training.evaluation import evaluate_bits_per_byte, held_out_nats_per_token
from strobe.models.training.loop import TrainingReport, train
from strobe.models.training.losses import IGNORED, cross_entropy, mean_squared_error
from strobe.models.training.nonfinite import NonFiniteError

__all__ = [
    "CHECKPOINT_FILE",
    "IGNORED",
    "Batch",
    "Batches",
    "NonFiniteError",
    "TrainingConfig",
    "TrainingReport",
    "cross_entropy",
    "evaluate_bits_per_byte",
    "held_out_nats_per_token",
    "learning_rate_at",
    "mean_squared_error",
    "random_windows",
    "train",
]
