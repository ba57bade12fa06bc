"""A hash of a model's weights, so that a lens, a state or a result can say which model it belongs to."""

import hashlib

import torch
from torch import nn


def weights_hash(model: nn.Module) -> str:
    """SHA-256 over every parameter's name, shape, dtype and bytes; tied parameters count once."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        raw = parameter.detach().cpu().contiguous().view(torch.uint8)
        digest.update(raw.numpy().tobytes() if raw.numel() else b"")
    return digest.hexdigest()
