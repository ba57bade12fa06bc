"""`load_huggingface`: from a folder or a hub id to a `HuggingFaceLM`."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from strobe.core.errors import CheckpointError
from strobe.models.huggingface import families, files
from strobe.models.huggingface.bridging import build_bridge
from strobe.models.huggingface.model import HuggingFaceLM
from strobe.models.huggingface.seam import Family, transplant


def load_huggingface(
    path_or_id: str | Path,
    *,
    device: Any = None,
    dtype: torch.dtype | None = None,
    backend: str = "auto",
    trust_remote_code: bool = False,
) -> HuggingFaceLM:
    """The transformers model in a folder or on the hub, in evaluation mode, float32 unless `dtype` says otherwise.

    A folder is read without asking the network, with or without a tokenizer in it. Code shipped with a checkpoint
    runs only with `trust_remote_code`; pickled weights are read as tensors only.

    Raises CheckpointError for a folder without a whole, readable checkpoint, an architecture that is not supported
    (with those that are), missing or left-over tensors, and weights that are not finite; SeamError if the installed
    transformers does not fit our mixers.
    """
    folder = Path(path_or_id).expanduser()
    local = folder.is_dir()
    if local:
        files.check_folder(folder)
    elif folder.exists() or not files.is_hub_id(str(path_or_id)):
        raise CheckpointError(
            f"asked to load {path_or_id}: there is no such folder; give one with config.json, or a hub id owner/name"
        )
    source = str(folder) if local else str(path_or_id)
    asking = {"local_files_only": local, "trust_remote_code": trust_remote_code}
    config = files.read_config(source, asking)
    family = family_of(config, source)
    model = files.read_model(source, config, family, dtype or torch.float32, asking).to(device)
    files.check_finite(source, model)
    return wrap(model, family, tokenizer=files.read_tokenizer(source, asking), name=Path(source).name, backend=backend)


def wrap(
    model: Any, family: Family, *, tokenizer: Any = None, name: str = "model", backend: str = "auto"
) -> HuggingFaceLM:
    """`model` (a transformers model, changed in place) behind the contract."""
    family.prepare(model)
    before = dict(model.named_parameters())
    transplant(model, family)
    names = _after_transplant(model, before)
    with warnings.catch_warnings():
        # TransformerLens lists the aliases of parts that a layer of another kind does not have.
        warnings.filterwarnings("ignore", message=".*did not resolve.*")
        bridge = build_bridge(model, family, tokenizer=tokenizer, name=name)
    wrapped = HuggingFaceLM(bridge, family, names, tokenizer=tokenizer, name=name).eval()
    wrapped.backend = backend
    return wrapped


def family_of(config: Any, source: str) -> Family:
    """The family of `config`. Raises CheckpointError with the families that load."""
    family = families.get(config.model_type)
    if family is None:
        raise CheckpointError(
            f"asked to load {source}: its model_type is {config.model_type!r}, which has no adoption here; "
            f"those that load: {', '.join(families.names())}"
        )
    return family


def _after_transplant(model: nn.Module, before: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """Checkpoint name -> the parameter that now holds it (in our mixers the same one, or a view of its memory)."""
    theirs: dict[int, str] = {parameter.data_ptr(): name for name, parameter in before.items()}
    return {theirs.get(p.data_ptr(), name): p for name, p in model.named_parameters()}
