"""Every family of transformers that is taken over: its model_type, and where its adoption is."""

from importlib import import_module

from strobe.models.huggingface.seam import Family

_FAMILIES = {
    "mamba": "mamba",
    "falcon_mamba": "mamba",
    "jamba": "mamba",
    "mamba2": "mamba2",
    "bamba": "mamba2",
    "nemotron_h": "mamba2",
    "qwen3_next": "qwen3_next",
    "qwen3_5_text": "qwen3_5",
    "olmo_hybrid": "olmo_hybrid",
    "recurrent_gemma": "recurrent_gemma",
    "rwkv": "rwkv",
    "gpt2": "transformers",
    "gpt_neox": "transformers",
    "llama": "transformers",
    "mistral": "transformers",
    "qwen2": "transformers",
    "qwen3": "transformers",
    "gemma": "transformers",
    "gemma2": "transformers",
}


def names() -> list[str]:
    """Every model_type that loads."""
    return list(_FAMILIES)


def get(model_type: str) -> Family | None:
    """The family of `model_type`, or None if there is none."""
    if model_type not in _FAMILIES:
        return None
    module = import_module(f"strobe.models.huggingface.families.{_FAMILIES[model_type]}")
    return next(family for family in module.FAMILIES if family.model_type == model_type)
