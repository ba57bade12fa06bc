"""What decides a training run, and the learning rate it implies at each step."""

from dataclasses import dataclass
from math import cos, pi
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Settings of a run. Two runs with equal settings, weights and batches end in equal weights on one machine.

    Raises ValueError for a setting outside its range.
    """

    steps: int
    """number of updates"""
    batch_size: int
    """sequences in a batch"""
    context: int
    """tokens in a sequence"""
    learning_rate: float
    """at the end of the warm-up, the highest of the run"""
    warmup: int = 0
    """updates over which the learning rate grows linearly from nothing"""
    final_lr: float = 0.1
    """learning rate of the last update as a fraction of `learning_rate`; a cosine leads to it"""
    weight_decay: float = 0.1
    """of parameters with two axes or more that are not marked ``_no_weight_decay`` (as Mamba marks its A and D)"""
    betas: tuple[float, float] = (0.9, 0.95)
    """of AdamW"""
    clip: float | None = 1.0
    """largest global norm of the gradient; None for no limit"""
    seed: int = 0
    """of the batches, and of torch during training"""
    eval_every: int | None = None
    """updates between evaluations; None for one at the end only"""
    checkpoint_every: int | None = None
    """updates between checkpoints; None for one at the end only"""
    autocast: Literal["bfloat16"] | None = None
    """number format of the forward pass where torch considers it safe; the weights stay as they are"""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """"muon": Muon (Jordan 2024) for the weights of hidden `torch.nn.Linear` layers, AdamW for all else"""
    adamw_modules: tuple[str, ...] = ("embed", "unembed", "head", "lm_head", "readout")
    """with "muon": a layer with one of these words in its dotted name is left to AdamW"""
    threads: int | None = None
    """torch's CPU threads during the run; None for what is set"""

    def __post_init__(self) -> None:
        at_least = {"steps": 1, "batch_size": 1, "context": 1, "warmup": 0, "final_lr": 0, "weight_decay": 0}
        for name, least in {**at_least, "eval_every": 1, "checkpoint_every": 1, "threads": 1}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}={value!r} was asked for; it must be at least {least}")
        for name in ("learning_rate", "clip"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}={value!r} was asked for; it must be above 0")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas={self.betas!r} was asked for; each must be in [0, 1)")
        if self.warmup >= self.steps and self.warmup:
            raise ValueError(
                f"a warm-up of {self.warmup} updates was asked for in a run of {self.steps}; "
                "the full learning rate would never be reached; make it shorter"
            )
        if self.autocast not in (None, "bfloat16"):
            raise ValueError(f"autocast={self.autocast!r} was asked for; use None or 'bfloat16'")
        if self.optimizer not in ("adamw", "muon"):
            raise ValueError(f"optimizer={self.optimizer!r} was asked for; use 'adamw' or 'muon'")


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Learning rate of update `step` (from 0): linear warm-up, then half a cosine down to the final fraction.

    >>> config = TrainingConfig(steps=11, batch_size=1, context=1, learning_rate=1.0, warmup=2, final_lr=0.5)
    >>> [round(learning_rate_at(step, config), 3) for step in (0, 1, 2, 6, 10)]
    [0.5, 1.0, 1.0, 0.75, 0.5]
    """
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(config.steps - 1 - config.warmup, 1)
    fraction = config.final_lr + (1 - config.final_lr) * (1 + cos(pi * progress)) / 2
    return config.learning_rate * fraction
