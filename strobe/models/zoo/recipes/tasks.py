"""Small networks that hold bits."""

from strobe.models.config import ModelConfig
from strobe.models.training import TrainingConfig
from strobe.models.zoo.recipes.recipe import Recipe

_TASK = {"batch_size": 128, "learning_rate": 3e-3, "weight_decay": 0.0, "final_lr": 0.05, "warmup": 20, "threads": 1}


def _flip_flop(name: str, about: str, cell: str, hidden: int, steps: int, learning_rate: float) -> Recipe:
    config = ModelConfig(
        d_model=hidden,
        d_vocab=3,
        d_input=3,
        layers=[cell],
        mixer_options={cell: {"hidden": hidden, "project_out": False}},
        mlp="none",
        norm="none",
        residual=False,
        tie_embeddings=False,
        task="flip_flop",
    )
    training = TrainingConfig(steps=steps, context=64, **(_TASK | {"learning_rate": learning_rate}))
    return Recipe(name=name, config=config, training=training, about=about, task_options={"time": 64, "p": 0.5})


def _parity(name: str, about: str, hidden: int, steps: int) -> Recipe:
    config = ModelConfig(
        d_model=hidden,
        d_vocab=2,
        layers=["gru"],
        mixer_options={"gru": {"hidden": hidden, "project_out": False}},
        mlp="none",
        norm="none",
        residual=False,
        tie_embeddings=False,
        task="cumulative_parity",
    )
    training = TrainingConfig(steps=steps, context=40, **_TASK)
    return Recipe(name=name, config=config, training=training, about=about, task_options={"time": 40})


RECIPES = (
    _flip_flop("flipflop-elman16", "Three bits held by sixteen tanh units.", "elman", 16, 1500, 1e-2),
    _flip_flop("flipflop-gru64", "Three bits held by 64 gated recurrent units.", "gru", 64, 1500, 3e-3),
    _flip_flop("flipflop-lstm64", "Three bits held by 64 LSTM cells.", "lstm", 64, 1500, 3e-3),
    _parity("parity-gru", "One bit, flipped by every one.", 32, 1000),
)
