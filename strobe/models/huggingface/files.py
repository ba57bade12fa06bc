"""Reading a transformers checkpoint, with every way it can be broken said in words instead of a traceback."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from strobe.core.errors import CheckpointError
from strobe.models.huggingface.seam import Family

_SAFE = ("model.safetensors", "model.safetensors.index.json")
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def is_hub_id(name: str) -> bool:
    """Whether `name` has the form of a hub id: owner/name, or one word for the oldest models."""
    return not name.startswith((".", "~", "/")) and 1 <= len(name.split("/")) <= 2 and all(name.split("/"))


def check_folder(folder: Path) -> None:
    """Raise CheckpointError unless `folder` holds a whole checkpoint: a configuration, and weights that can be
    opened."""
    config = folder / "config.json"
    if not config.is_file():
        raise CheckpointError(f"asked to load {folder}: it has no config.json; give the folder that holds one")
    _check_text(config)
    try:
        raw = json.loads(config.read_text())
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{config} is not JSON ({error}); copy it again") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{config} holds a {type(raw).__name__}, not settings by name; copy it again")
    if raw.get("format") == "strobe-model":
        raise CheckpointError(f"{folder} is a native strobe checkpoint; load it with strobe.load")
    if "model_type" not in raw:
        raise CheckpointError(
            f"{config} has no model_type, so it is not a transformers configuration; give the folder of one"
        )
    found = next((name for name in (*_SAFE, *_PICKLED) if (folder / name).is_file()), None)
    if found is None:
        raise CheckpointError(f"asked to load {folder}: it has no weights ({_SAFE[0]} or {_PICKLED[0]}); copy them too")
    for file in _shards(folder, found):
        _check_weights(file)


def _shards(folder: Path, found: str) -> list[Path]:
    if not found.endswith(".index.json"):
        return [folder / found]
    index = folder / found
    _check_text(index)
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is not an index of weights ({error}); copy it again") from error
    if absent := [name for name in names if not (folder / name).is_file()]:
        raise CheckpointError(f"{index} lists {', '.join(absent)}, not in the folder; the copy did not finish")
    return [folder / name for name in names]


def _check_text(file: Path) -> None:
    with file.open("rb") as opened:
        head = opened.read(64)
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{file} is a Git LFS pointer, not the file itself; run `git lfs pull`")
    if head.lstrip()[:1] == b"<":
        raise CheckpointError(f"{file} is a web page; the download link probably needed a login")


def _check_weights(file: Path) -> None:
    from safetensors import SafetensorError, safe_open

    _check_text(file)
    if file.suffix != ".safetensors":
        return
    try:
        with safe_open(file, framework="pt") as opened:
            opened.keys()
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is not a whole safetensors file ({error}); copy it again") from error


def read_config(source: str, asking: Mapping[str, Any]) -> Any:
    """The configuration at `source`. Raises CheckpointError if transformers cannot make one."""
    from transformers import AutoConfig

    from strobe.models.huggingface import families

    try:
        return AutoConfig.from_pretrained(source, **asking)
    except (ValueError, OSError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"asked to load {source}: transformers makes no configuration of it ({_first_line(error)}); "
            f"model types that load: {', '.join(families.names())}"
        ) from error


def read_model(source: str, config: Any, family: Family, dtype: torch.dtype, asking: Mapping[str, Any]) -> Any:
    """The transformers model, its own. Raises CheckpointError for unreadable, missing, left-over or misshapen
    tensors."""
    import pickle

    import transformers
    from safetensors import SafetensorError

    kind = getattr(transformers, family.architecture)
    report = logging.getLogger("transformers.modeling_utils")
    level = report.level
    # What its loading report says in a warning is raised below.
    report.setLevel(logging.ERROR)
    try:
        model, info = kind.from_pretrained(
            source, config=config, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **asking
        )
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"asked to load {source}: its pickled weights hold more than tensors, and running what they hold is "
            "refused; take the checkpoint's safetensors file"
        ) from error
    except (SafetensorError, OSError, ValueError, RuntimeError, EOFError) as error:
        raise CheckpointError(
            f"asked to load {source}: transformers cannot read its weights ({_first_line(error)}); copy them again"
        ) from error
    finally:
        report.setLevel(level)
    wrong = {
        "missing": sorted(info["missing_keys"]),
        "left over": sorted(info["unexpected_keys"]),
        "of another shape": sorted(str(k[0] if isinstance(k, tuple) else k) for k in info["mismatched_keys"]),
    }
    if any(wrong.values()):
        told = "; ".join(f"{what}: {', '.join(names[:8])}" for what, names in wrong.items() if names)
        raise CheckpointError(
            f"the weights of {source} do not fit {family.architecture}: {told}; give a checkpoint saved from that class"
        )
    return model.eval()


def check_finite(source: str, model: Any) -> None:
    """Raise CheckpointError naming the parameters that hold NaN or infinity."""
    bad = [name for name, parameter in model.named_parameters() if not bool(torch.isfinite(parameter).all())]
    if bad:
        raise CheckpointError(
            f"{source} has weights that are NaN or infinite: {', '.join(bad[:8])}; take a sound checkpoint"
        )


def read_tokenizer(source: str, asking: Mapping[str, Any]) -> Any:
    """The tokenizer at `source`, or None for a folder without one."""
    from transformers import AutoTokenizer

    if asking["local_files_only"] and not any((Path(source) / name).is_file() for name in _TOKENIZERS):
        return None
    try:
        return AutoTokenizer.from_pretrained(source, **asking)
    except (ValueError, OSError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"asked to load {source}: its tokenizer cannot be read ({_first_line(error)}); copy its files again, or "
            "remove them to load the model for token ids only"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
