"""SAELens directories, read and written without SAELens: ``cfg.json`` and ``sae_weights.safetensors``.

The format of sae-lens 6.54: architectures "standard" (our relu), "topk" and "jumprelu" (our jumprelu and batchtopk).
What SAELens has no word for is under ``metadata.strobe``, which it keeps and ignores. Rank-1 atoms are an architecture
of our own, which SAELens refuses by name; `SparseAutoencoder.flattened` gives the same features in a form it reads.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from strobe.core.atomic import replacing_directory
from strobe.probes.sae.autoencoder import Factors, SparseAutoencoder

CONFIG_FILE, WEIGHTS_FILE = "cfg.json", "sae_weights.safetensors"
FORMAT_VERSION = "6.54.12"
"""The release of SAELens whose directories these are; `docs/saelens.md` says what was run against it."""

_KIND_OF = {"standard": "relu", "topk": "topk", "jumprelu": "jumprelu"}
_ARCHITECTURE_OF = {"relu": "standard", "topk": "topk", "jumprelu": "jumprelu", "batchtopk": "jumprelu"}
_RANK_ONE = "strobe_rank1_"
_NORMS = ("none", "layer_norm", "constant_norm_rescale")


def write_directory(sae: SparseAutoencoder, folder: str | Path, *, dtype: torch.dtype = torch.float32) -> Path:
    """Write `sae` with its weights stored as `dtype` (SAELens computes in float32 all the same); returns the folder.

    Raises ValueError if `dtype` does not hold the numbers exactly, FileExistsError if `folder` holds other files.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    if folder.is_dir() and (strange := sorted({p.name for p in folder.iterdir()} - _OURS)):
        raise FileExistsError(
            f"asked to write an autoencoder in {folder}, which holds {', '.join(strange[:3])}; give a folder of its own"
        )
    if dtype != torch.float32 and sae.rounded(dtype).weights_hash() != sae.weights_hash():
        raise ValueError(
            f"asked to store an autoencoder as {dtype}, which would round its numbers; make sae.rounded({dtype}), "
            "measure that one, and save it"
        )
    tensors: dict[str, Tensor] = {"b_enc": sae.b_enc, "b_dec": sae.b_dec}
    if sae.factors is not None:
        tensors |= sae.factors._asdict()
    else:
        tensors |= {"W_enc": sae.W_enc, "W_dec": sae.W_dec}
    if sae.threshold is not None:
        tensors["threshold"] = sae.threshold
    with replacing_directory(folder) as draft:
        save_file({n: t.detach().cpu().to(dtype).contiguous() for n, t in tensors.items()}, draft / WEIGHTS_FILE)
        (draft / CONFIG_FILE).write_text(json.dumps(_config(sae, dtype), indent=1) + "\n", encoding="utf-8")
    return folder


_OURS = {CONFIG_FILE, WEIGHTS_FILE, "card.json"}


def _config(sae: SparseAutoencoder, dtype: torch.dtype) -> dict[str, Any]:
    architecture = _ARCHITECTURE_OF[sae.kind]
    ours = {
        "kind": sae.kind,
        "model_hash": sae.model_hash,
        "head": sae.head,
        "state_shape": None if sae.state_shape is None else list(sae.state_shape),
        "stored_as": str(dtype).removeprefix("torch."),
        "weights_hash": sae.weights_hash(),
        "info": sae.info,
    }
    return {
        "architecture": architecture if sae.factors is None else _RANK_ONE + architecture,
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.subtract_b_dec,
        "normalize_activations": sae.normalize,
        "reshape_activations": "none",
        **({"k": sae.k, "rescale_acts_by_decoder_norm": sae.scale_by_decoder_norm} if architecture == "topk" else {}),
        "metadata": {
            "sae_lens_version": FORMAT_VERSION,
            "sae_lens_training_version": None,
            "model_name": sae.model,
            "hook_name": sae.hook_name,
            "hook_head_index": sae.head,
            "strobe": ours,
        },
    }


def read_directory(folder: str | Path) -> SparseAutoencoder:
    """The autoencoder in `folder`, in float32.

    Raises ValueError for a folder that is not such a directory, is damaged, or needs what we do not have (by name).
    """
    folder = Path(folder)
    config = _read_config(folder)
    tensors = _read_tensors(folder / WEIGHTS_FILE)
    architecture = str(config["architecture"])
    rank_one = architecture.startswith(_RANK_ONE)
    kind = _KIND_OF.get(architecture.removeprefix(_RANK_ONE))
    if kind is None:
        raise ValueError(
            f"{folder} holds the architecture {architecture!r}; strobe reads {', '.join(_KIND_OF)}; convert it, or use "
            "SAELens"
        )
    norm = config.get("normalize_activations", "none")
    # SAELens folds this scale into the weights before it saves them, and then does nothing at run time.
    norm = "none" if norm == "expected_average_only_in" else norm
    if norm not in _NORMS or config.get("reshape_activations", "none") != "none":
        raise ValueError(
            f"{folder} normalizes its input by {norm!r} and reshapes it by {config.get('reshape_activations')!r}; "
            f"strobe reads {', '.join(_NORMS)}, and no reshaping; use SAELens for this one"
        )
    metadata = config.get("metadata") or {}
    ours = metadata.get("strobe") or {}
    factors = Factors(*(_tensor(tensors, n, folder) for n in Factors._fields)) if rank_one else None
    W_enc, W_dec = factors.weights() if factors else (_tensor(tensors, n, folder) for n in ("W_enc", "W_dec"))
    made = SparseAutoencoder(
        W_enc=W_enc,
        b_enc=_tensor(tensors, "b_enc", folder),
        W_dec=W_dec,
        b_dec=_tensor(tensors, "b_dec", folder),
        kind=ours.get("kind", kind),
        hook_name=metadata.get("hook_name") or config.get("hook_name") or _nowhere(folder),
        model=metadata.get("model_name") or "unknown",
        model_hash=ours.get("model_hash", ""),
        k=config.get("k"),
        threshold=_tensor(tensors, "threshold", folder) if kind == "jumprelu" else None,
        head=ours.get("head", metadata.get("hook_head_index")),
        state_shape=tuple(ours["state_shape"]) if ours.get("state_shape") else None,
        normalize=norm,
        subtract_b_dec=bool(config.get("apply_b_dec_to_input", True)),
        scale_by_decoder_norm=bool(config.get("rescale_acts_by_decoder_norm", False)),
        factors=factors,
        info=ours.get("info") or {},
    )
    if ours.get("weights_hash") not in (None, made.weights_hash()):
        raise ValueError(f"the weights in {folder} are not those that were saved there; restore or train them again")
    return made


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG_FILE
    if not file.is_file():
        raise ValueError(f"an autoencoder was to be read from {folder}, which has no {CONFIG_FILE}; give its folder")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not JSON ({error}); save the autoencoder again") from error
    if not isinstance(config, dict) or "architecture" not in config:
        raise ValueError(
            f"{file} names no architecture, which SAELens 6 always writes; load it there once and save it again"
        )
    return config


def _read_tensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not file.is_file():
        raise ValueError(f"an autoencoder was to be read, and there is no {file}; give the whole folder")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is not a whole safetensors file ({error}); save the autoencoder again") from error


def _tensor(tensors: dict[str, Tensor], name: str, folder: Path) -> Tensor:
    if name not in tensors:
        raise ValueError(f"{folder} lacks the tensor {name!r}; it has {', '.join(sorted(tensors))}; save it again")
    return tensors[name].float()


def _nowhere(folder: Path) -> str:
    raise ValueError(
        f"{folder} does not say at which hook point it reads (metadata.hook_name); add it to {CONFIG_FILE}"
    )
