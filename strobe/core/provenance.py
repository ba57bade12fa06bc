"""Where a result came from: enough to make it again, and to tell whether two results may be compared."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from strobe import __version__
from strobe.core import codec

# Distribution names of what the numbers depend on besides ourselves.
_PACKAGES = ("torch", "transformers", "transformer-lens", "numpy")


def versions() -> dict[str, str]:
    """Versions of strobe and of what its numbers depend on, from the packages' metadata: nothing is imported."""
    return dict(_versions())


# Reading the metadata of four packages takes as long as a small analysis, and none changes while we run.
@cache
def _versions() -> dict[str, str]:
    found = {"strobe": __version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a result was computed from and with.

    `model`
        The name or path it was loaded by.
    `weights_hash`, `revision`
        A hash of the weights, and the hub's or the zoo's revision; None where unknown.
    `seed`
        What the random choices were seeded with; None if there were none.
    `settings`
        The arguments that change the numbers, as plain values.
    `backend`
        What ran for each mixer: ``{"mamba2": "chunked"}``.
    `control`
        What the result is compared with, in words ("random direction of equal norm, 20 draws"); None if it has no
        control.
    `versions`, `created`
        Package versions and the UTC time in ISO 8601; filled in.

    Raises TypeError when made with settings that cannot be written to a file, not after the computation.
    """

    model: str
    weights_hash: str | None = None
    revision: str | None = None
    seed: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    backend: dict[str, str] = field(default_factory=dict)
    control: str | None = None
    versions: dict[str, str] = field(default_factory=versions)
    created: str = field(default_factory=_now)

    def __post_init__(self) -> None:
        codec.encode(asdict(self), "provenance")

    def __hash__(self) -> int:
        return hash(self.key())

    def to_json(self) -> str:
        """All fields as strict JSON on one line."""
        return codec.dumps(codec.encode({f.name: getattr(self, f.name) for f in fields(self)}, "provenance"))

    @classmethod
    def from_json(cls, text: str) -> "Provenance":
        """The provenance that `to_json` wrote. Raises ValueError if `text` is not one, or has unknown fields."""
        values = codec.decode(json.loads(text))
        known = {f.name for f in fields(cls)}
        if not isinstance(values, dict) or "model" not in values:
            raise ValueError("this JSON is not a provenance: it has no field 'model'")
        if unknown := sorted(values.keys() - known):
            raise ValueError(
                f"the provenance has fields {', '.join(unknown)}, which this version of strobe does not know"
            )
        # What an old file does not say is unknown, not what is installed now.
        return cls(**{"versions": {}, "created": "unknown", **values})

    def key(self) -> str:
        """A hash of what decides the numbers (not versions, time or control): for caches, and to tell runs apart."""
        decides = (self.model, self.weights_hash, self.revision, self.seed, self.settings, self.backend)
        return hashlib.sha256(codec.dumps(codec.encode(decides, "provenance")).encode()).hexdigest()[:16]

    def summary(self) -> str:
        """One line per fact that is known, for a footer."""
        facts = {
            "model": f"{self.model}{f', revision {self.revision}' if self.revision else ''}",
            "weights": self.weights_hash,
            "settings": ", ".join(f"{k}={v!r}" for k, v in self.settings.items()),
            "seed": self.seed,
            "backend": ", ".join(f"{mixer}: {ran}" for mixer, ran in self.backend.items()),
            "control": self.control or "none",
            "made": f"{self.created} with {', '.join(f'{k} {v}' for k, v in self.versions.items())}",
        }
        return "\n".join(f"{name}: {fact}" for name, fact in facts.items() if fact not in (None, ""))
