"""`load`: one door for bundled models, native checkpoints, and Hugging Face folders and hub ids."""

import json
from pathlib import Path
from typing import Any

import torch

from strobe.core.errors import CheckpointError, nearest
from strobe.models import zoo
from strobe.models.hooked import StateContract


def load(
    name_or_path: str | Path,
    *,
    device: Any = None,
    dtype: torch.dtype | None = None,
    backend: str = "auto",
    trust_remote_code: bool = False,
) -> StateContract:
    """A model with hooks and the state contract, in evaluation mode, float32 unless `dtype` says otherwise.

    `name_or_path`: a bundled name (`available()`), a folder with a native or a Hugging Face checkpoint, or a hub id
    (``owner/name``). A bundled name wins over a folder of that name. `backend`: the scan backend of every recurrent
    mixer; one asked for by name never falls back. Code shipped with a checkpoint runs only with `trust_remote_code`.

    Raises CheckpointError if there is nothing to load under that name (with the nearest bundled names), or if what is
    there is damaged or of an architecture that is not supported.

    >>> from strobe.models import load
    >>> model = load("mamba2-python")                                                             # doctest: +SKIP
    >>> logits, cache = model.run_with_cache("def area(r):", states=[-1])                         # doctest: +SKIP
    """
    from strobe.models.checkpoint import load_checkpoint

    name = str(name_or_path)
    path = Path(name_or_path).expanduser()
    if name in zoo.available():
        model: StateContract = load_checkpoint(zoo.folder(name), device=device, dtype=dtype, name=name)
    elif path.is_dir():
        if _is_native(path):
            model = load_checkpoint(path, device=device, dtype=dtype)
        else:
            model = _huggingface(name, device, dtype, trust_remote_code)
    elif path.exists():
        raise CheckpointError(f"asked to load {path}, which is a file; give the folder that holds config.json")
    elif _looks_like_hub_id(name):
        model = _huggingface(name, device, dtype, trust_remote_code)
    else:
        close = nearest(name, zoo.available())
        hint = (
            f"did you mean {' or '.join(map(repr, close))}?"
            if close
            else f"bundled models: {', '.join(zoo.available())}"
        )
        raise CheckpointError(f"asked to load {name!r}: it is neither a bundled model, a folder, nor a hub id; {hint}")
    return _with_backend(model, backend)


def _is_native(path: Path) -> bool:
    try:
        return json.loads((path / "config.json").read_text()).get("format") == "strobe-model"
    except (OSError, json.JSONDecodeError, AttributeError):
        return False


def _looks_like_hub_id(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 2 and all(parts) and not name.startswith((".", "~", "/"))


def _huggingface(name: str, device: Any, dtype: torch.dtype | None, trust_remote_code: bool) -> StateContract:
    from strobe.models.huggingface import load_huggingface

    return load_huggingface(name, device=device, dtype=dtype, trust_remote_code=trust_remote_code)


def _with_backend(model: StateContract, backend: str) -> StateContract:
    """Set the scan backend, refusing now rather than in the first run one that a mixer does not have."""
    from strobe.kernels.scan import choose_backend

    device = next(model.parameters()).device
    for mixer in model.mixers.values():
        choose_backend(mixer.family, backend, device)
    model.backend = backend
    return model
