"""The bundled models: small, really trained, each with a card that says from what, how and how well."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
"""One folder a model: config.json, model.safetensors, card.json, and where there is text tokenizer.json."""


def available() -> list[str]:
    """Names of the bundled models."""
    return sorted(p.name for p in WEIGHTS.iterdir() if (p / "card.json").is_file()) if WEIGHTS.is_dir() else []


def folder(name: str) -> Path:
    """The folder of the bundled model `name`. Raises ValueError with the nearest names."""
    from strobe.core.errors import nearest

    if name not in available():
        close = nearest(name, available()) or available()
        raise ValueError(f"there is no bundled model {name!r}; did you mean {' or '.join(map(repr, close))}?")
    return WEIGHTS / name
