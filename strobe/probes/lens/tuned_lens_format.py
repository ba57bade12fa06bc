"""Reads and writes the directories of the tuned-lens package: ``config.json`` and ``params.pt``.

``config.json``: base_model_name_or_path, base_model_revision, d_model, num_hidden_layers, bias, unembed_hash, lens_type
("linear_tuned_lens"). ``params.pt``: ``{"0.weight": [d, d], "0.bias": [d], ...}``, one residual translator a layer;
translator i reads ``resid[i]``. params.pt is a pickle: it is read by ``torch.load(weights_only=True)``, which runs no
code in it.
"""

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from strobe.core import CheckpointError
from strobe.core.atomic import replacing, write_text
from strobe.probes.lens.fitting import Translators
from strobe.probes.lens.readout import Readout, model_readout
from strobe.probes.lens.tuned_lens import TunedLens

_CONFIG, _PARAMS, _TYPE = "config.json", "params.pt", "linear_tuned_lens"


def unembed_hash(read: Readout) -> str:
    """The package's hash of an unembedding: SHA-256 of numpy's own printout of it, to one digit.

    It survives a change of dtype, and tells models apart only as far as the printed corner of the matrix does.
    """
    with np.printoptions(threshold=1000, edgeitems=3, linewidth=75, suppress=False, floatmode="maxprec", sign="-"):
        return hashlib.sha256(np.array_str(read.W_U.float().cpu().numpy(), precision=1).encode()).hexdigest()


def save_tuned_lens_format(lens: TunedLens, path: str | Path, model: Any) -> Path:
    """Write `lens` of `model` as a directory that the tuned-lens package reads; returns the directory.

    What the format has no place for is not in it: the weights' hash, the fit's report, the control's distribution.
    Raises ValueError for a lens of another model.
    """
    lens.check_model(model)
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    weight, bias = (t.detach().cpu() for t in lens.translators)
    config = {
        "base_model_name_or_path": lens.model_name,
        "d_model": weight.shape[-1],
        "num_hidden_layers": lens.n_layers,
        # The package breaks on lenses without a bias, so there always is one.
        "bias": True,
        "base_model_revision": getattr(model, "revision", None),
        "unembed_hash": unembed_hash(model_readout(model)),
        "lens_type": _TYPE,
    }
    state: dict[str, Tensor] = {}
    for i in range(lens.n_layers):
        state |= {f"{i}.weight": weight[i].clone(), f"{i}.bias": bias[i].clone()}
    with replacing(folder / _PARAMS) as temporary:
        torch.save(state, temporary)
    write_text(folder / _CONFIG, json.dumps(config, indent=2))
    return folder


def load_tuned_lens_format(path: str | Path, model: Any, *, verify: bool = True) -> TunedLens:
    """The lens in a tuned-lens directory, for `model`, in float32 and on its device.

    Such a directory says which unembedding it was made for, not which weights. Raises CheckpointError for a directory
    that is not whole, holds another kind of lens or a pickle with code; ValueError for a lens of another shape, and
    where `verify`, of another unembedding (or, where the directory does not say, of a model by another name).
    """
    folder = Path(path)
    config = _config(folder)
    read = model_readout(model)
    shape = (config["num_hidden_layers"], config["d_model"])
    if shape != (read.n_layers, read.d_model):
        raise ValueError(
            f"the lens in {folder} was to be used on {model.model_name}; it has {shape[0]} layers of width {shape[1]}, "
            f"the model {read.n_layers} of {read.d_model}; load it with {config['base_model_name_or_path']}"
        )
    if verify:
        _verify(folder, config, read, model)
    state = _params(folder / _PARAMS)
    device = next(model.parameters()).device
    return TunedLens(
        _translators(folder, state, config, read, device),
        model_name=model.model_name,
        weights_hash=model.weights_hash(),
        readout_hash=read.hash,
    )


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"a tuned-lens directory was to be read; {folder} has no {_CONFIG}; give the folder with both files"
        ) from error
    except ValueError as error:
        raise CheckpointError(
            f"a tuned-lens directory was to be read; {folder / _CONFIG} is not JSON ({error}); fetch it again"
        ) from error
    needed = ("base_model_name_or_path", "d_model", "num_hidden_layers")
    missing = [key for key in needed if not isinstance(config, dict) or key not in config]
    if missing:
        raise CheckpointError(
            f"a tuned-lens directory was to be read; {folder / _CONFIG} lacks {missing}; fetch it again"
        )
    if config.get("lens_type", _TYPE) != _TYPE:
        raise CheckpointError(
            f"a lens of type {_TYPE!r} was to be read from {folder}; it is a {config['lens_type']!r}, not supported"
        )
    return config


def _verify(folder: Path, config: dict[str, Any], read: Readout, model: Any) -> None:
    said, base = config.get("unembed_hash"), config["base_model_name_or_path"]
    if said is not None and said != unembed_hash(read):
        raise ValueError(
            f"the lens in {folder} was made for the unembedding {said[:12]} of {base}; that of {model.model_name} is "
            f"{unembed_hash(read)[:12]}; load it with {base}, or pass verify=False if you know that they are the same"
        )
    if said is None and base != model.model_name:
        raise ValueError(
            f"the lens in {folder} was made for {base} and has no hash to compare; the model is {model.model_name}; "
            f"load it with {base}, or pass verify=False if you know that they are the same"
        )


def _params(file: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"a tuned-lens directory was to be read; {file} is not there; give the folder with both files"
        ) from error
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(
            f"{file} was to be read as plain tensors, without running code in it; torch refused it "
            f"({type(error).__name__}: {str(error).splitlines()[0][:160]}); do not load it in any other way unless you "
            "trust its author"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise CheckpointError(f"{file} was to hold named tensors; found {type(state).__name__}; fetch the lens again")
    return state


def _translators(
    folder: Path, state: dict[str, Tensor], config: dict[str, Any], read: Readout, device: torch.device
) -> Translators:
    n, d = read.n_layers, read.d_model
    has_bias = bool(config.get("bias", True))
    wanted = {f"{i}.weight": (d, d) for i in range(n)} | ({f"{i}.bias": (d,) for i in range(n)} if has_bias else {})
    found = {name: tuple(t.shape) for name, t in state.items()}
    if found != wanted:
        wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise CheckpointError(
            f"{folder / _PARAMS} was to hold {len(wanted)} tensors of {n} translators; {wrong[0]} is "
            f"{found.get(wrong[0], 'missing')}, wanted {wanted.get(wrong[0], 'nothing of that name')}; fetch it again"
        )
    weight = torch.stack([state[f"{i}.weight"] for i in range(n)])
    bias = torch.stack([state[f"{i}.bias"] for i in range(n)]) if has_bias else weight.new_zeros(n, d)
    return Translators(weight.to(device, read.dtype), bias.to(device, read.dtype))
