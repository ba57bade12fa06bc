"""Native checkpoints: a folder with config.json, model.safetensors and, where there is text, tokenizer.json.

Weights may be stored in bfloat16 and are loaded as float32 unless asked otherwise. Nothing here unpickles anything.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from strobe.core.atomic import replacing, replacing_directory
from strobe.core.errors import CheckpointError
from strobe.models.config import ModelConfig
from strobe.models.native import HookedLM

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"


def save_checkpoint(model: HookedLM, path: str | Path, *, dtype: torch.dtype | None = None) -> None:
    """Write `model` as a folder (temporary folder, then rename); `dtype` is that of the stored weights."""
    from safetensors.torch import save_file

    with replacing_directory(path) as folder:
        (folder / CONFIG).write_text(model.config.to_json())
        save_file(_stored(model, dtype), folder / WEIGHTS, metadata={"format": "pt"})
        if model.tokenizer is not None:
            (folder / TOKENIZER).write_text(_backend_json(model.tokenizer))


def replace_weights(model: HookedLM, path: str | Path, *, dtype: torch.dtype | None = None) -> None:
    """Write only the weights of `model` into the checkpoint folder `path`."""
    from safetensors.torch import save_file

    with replacing(Path(path) / WEIGHTS) as temporary:
        save_file(_stored(model, dtype), temporary, metadata={"format": "pt"})


def load_checkpoint(
    path: str | Path, *, device: Any = None, dtype: torch.dtype | None = None, name: str | None = None
) -> HookedLM:
    """The model in the folder `path`, in evaluation mode, float32 unless `dtype` says otherwise.

    Raises CheckpointError for a missing, truncated or foreign file, unknown configuration keys, missing, left-over or
    wrongly shaped tensors, and weights that are not finite; each by name.
    """
    folder = Path(path)
    model = HookedLM(read_config(folder), tokenizer=_load_tokenizer(folder), name=name or folder.name)
    tensors = read_safetensors(folder / WEIGHTS)
    _check_tensors(folder, model, tensors)
    model.load_state_dict(tensors, strict=False)
    return model.to(device=device, dtype=dtype or torch.float32).eval().requires_grad_(False)


def read_config(folder: Path) -> ModelConfig:
    """The configuration in `folder`. Raises CheckpointError saying what is wrong with it."""
    file = folder / CONFIG
    if not file.is_file():
        raise CheckpointError(f"asked to load {folder}: it has no {CONFIG}; give the folder that holds one")
    try:
        return ModelConfig.from_dict(json.loads(file.read_text()))
    except (json.JSONDecodeError, ValueError, TypeError) as error:
        raise CheckpointError(f"{file} cannot be used: {error}") from error


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """Every tensor in `file`. Raises CheckpointError for one that is missing, damaged or something else."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not file.is_file():
        raise CheckpointError(
            f"asked to load {file.parent}: it has no {file.name}; the copy did not finish, or it is not one"
        )
    with file.open("rb") as opened:
        head = opened.read(64)
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{file} is a Git LFS pointer, not the weights; run `git lfs pull`")
    if head.lstrip()[:1] == b"<":
        raise CheckpointError(f"{file} is a web page, not weights; the download link probably needed a login")
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged, cut short or not safetensors ({error}); copy it again") from error


def _stored(model: HookedLM, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Each parameter once: the tied unembedding is the embedding."""
    tied = {"unembed.weight"} if model.config.tie_embeddings else set()
    return {
        name: x.detach().to("cpu", dtype or x.dtype).contiguous()
        for name, x in model.state_dict().items()
        if name not in tied
    }


def _check_tensors(folder: Path, model: HookedLM, tensors: dict[str, Tensor]) -> None:
    expected = _stored(model, None)
    missing, extra = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
    if missing or extra:
        raise CheckpointError(
            f"{folder / WEIGHTS} does not fit its {CONFIG}: missing {missing[:3] or 'nothing'}, left over "
            f"{extra[:3] or 'nothing'}; the two files are of different models"
        )
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{folder / WEIGHTS}: {name} is {tuple(tensor.shape)}, {CONFIG} says {tuple(expected[name].shape)}"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{folder / WEIGHTS}: {name} holds NaN or infinity; the run that wrote it diverged")


def _load_tokenizer(folder: Path) -> Any:
    if not (folder / TOKENIZER).is_file():
        return None
    from strobe.models.corpus import load_tokenizer

    return load_tokenizer(folder / TOKENIZER)


def _backend_json(tokenizer: Any) -> str:
    return tokenizer.backend_tokenizer.to_str(pretty=False)
