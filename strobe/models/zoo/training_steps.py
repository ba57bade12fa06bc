"""A bundled model on its way: its weights after some of its training steps, in one small file beside them."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from strobe.core.atomic import replacing
from strobe.core.errors import CheckpointError
from strobe.models.checkpoint import load_checkpoint
from strobe.models.native import HookedLM

FILE = "training_steps.safetensors"


def save_steps(folder: Path, weights: Mapping[int, Mapping[str, Tensor]]) -> Path:
    """Write `weights`, by how many updates had been made, as float32 to `folder`; returns the file."""
    tensors = {
        f"{step}/{name}": x.detach().float().contiguous() for step, of in weights.items() for name, x in of.items()
    }
    path = folder / FILE
    with replacing(path) as temporary:
        save_file(
            tensors, temporary, metadata={"strobe": json.dumps({"format": "strobe-training-steps", "version": 1})}
        )
    return path


def has_steps(folder: str | Path) -> bool:
    """Whether the model in `folder` came with its training steps."""
    return (Path(folder) / FILE).is_file()


def load_steps(folder: str | Path) -> list[tuple[int, HookedLM]]:
    """(updates made, the model as it was then), in order. Raises CheckpointError where there are none."""
    path = Path(folder) / FILE
    if not path.is_file():
        raise CheckpointError(f"training steps were asked for; {path} does not exist: this model came without them")
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - safe_open is no dictionary
    found = []
    for step in sorted({int(key.split("/")[0]) for key in tensors}):
        model = load_checkpoint(folder)
        state = {key.split("/", 1)[1]: x for key, x in tensors.items() if key.startswith(f"{step}/")}
        model.load_state_dict({**model.state_dict(), **state})
        model.model_name = f"{model.model_name} after {step} steps"
        found.append((step, model.eval().requires_grad_(False)))
    assert all(torch.isfinite(p).all() for _, model in found for p in model.parameters())
    return found
