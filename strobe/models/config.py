"""What a native model is made of, as one flat record that can be read and written as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A native language model: embed, blocks (norm, mixer, norm, mlp), norm, unembed.

    `layers`
        One mixer name a block (`strobe.models.mixers.names()`), so that a hybrid is a list.
    `mixer_options`
        By mixer name, the keyword arguments of that mixer's `Config`; d_model is filled in. A name may carry a label,
        ``"attention:wide"``: then the options under that label are used, so one model can hold two kinds of attention.
    `mlp`
        "gated" (SwiGLU), "plain" (GELU) or "none"; `d_mlp` is its width.
    `norm`, `residual`
        "rms" and True for a language model. "none" and False leave the bare cell, input map, recurrence, readout: the
        networks whose fixed points the literature draws.
    `task`
        None for a language model. Otherwise the name of a task in `strobe.models.tasks`; `d_input` > 0 then means
        real-valued inputs [batch, time, d_input] instead of token ids.
    """

    d_model: int
    d_vocab: int
    layers: Sequence[str]
    mixer_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    mlp: str = "gated"
    d_mlp: int = 0
    n_ctx: int = 1024
    norm: str = "rms"
    norm_eps: float = 1e-5
    residual: bool = True
    tie_embeddings: bool = True
    task: str | None = None
    d_input: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        from strobe.models import mixers

        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers:
            raise ValueError("a model needs at least one layer; `layers` is empty")
        for name in self.layers:
            mixers.get(name)
        unknown = set(self.mixer_options) - set(self.layers)
        if unknown:
            raise ValueError(f"mixer_options names {sorted(unknown)}, but the layers are {sorted(set(self.layers))}")
        if self.mlp not in ("gated", "plain", "none"):
            raise ValueError(f"mlp is {self.mlp!r}; it can be 'gated', 'plain' or 'none'")
        if self.mlp != "none" and self.d_mlp <= 0:
            raise ValueError(f"mlp {self.mlp!r} needs a width: d_mlp is {self.d_mlp}")
        if self.norm not in ("rms", "none"):
            raise ValueError(f"norm is {self.norm!r}; it can be 'rms' or 'none'")
        if self.d_input and self.tie_embeddings:
            raise ValueError("real-valued inputs (d_input > 0) have no embedding to tie: set tie_embeddings=False")

    def to_json(self) -> str:
        """This configuration as JSON, with the format's name."""
        return json.dumps({"format": "strobe-model", "version": 1, **asdict(self)}, indent=2)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "ModelConfig":
        """Read what `to_json` wrote. Raises ValueError for unknown or missing keys, by name, and a newer version."""
        raw = dict(raw)
        if raw.pop("format", None) != "strobe-model":
            raise ValueError("config.json is not a strobe model's: its 'format' is not 'strobe-model'")
        version = raw.pop("version", None)
        if version != 1:
            raise ValueError(f"config.json has version {version!r}; this strobe reads version 1")
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(raw) - known):
            raise ValueError(f"config.json has unknown keys {unknown}; the known ones are {sorted(known)}")
        if missing := sorted({"d_model", "d_vocab", "layers"} - set(raw)):
            raise ValueError(f"config.json lacks {missing}")
        return cls(**raw)
