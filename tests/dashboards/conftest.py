"""A tiny model in a folder, with a tokenizer of its own, and a home for what the app keeps: no zoo, no network."""

from pathlib import Path

import pytest


def make_model(folder: Path, *layers: str, seed: int = 0) -> Path:
    """An untrained model with 8 to 32 wide layers and a byte-level tokenizer, saved as a checkpoint in `folder`."""
    import torch

    from strobe.models import HookedLM, ModelConfig, save_checkpoint
    from strobe.models.corpus import load_tokenizer, train_tokenizer

    torch.manual_seed(seed)
    file = folder.parent / f"{folder.name}-tokenizer.json"
    train_tokenizer(["def area(radius):\n    return 3.14159 * radius ** 2\n"] * 3, 270).save(str(file))
    options = {"mamba2": {"heads": 3, "head_dim": 4, "state": 5}, "gru": {"hidden": 12}, "attention": {"n_heads": 2}}
    config = ModelConfig(
        d_model=16, d_vocab=270, layers=layers, mixer_options={k: options[k] for k in layers}, mlp="plain", d_mlp=24
    )
    save_checkpoint(HookedLM(config, tokenizer=load_tokenizer(file), name=folder.name), folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny", "mamba2", "gru", "attention")


@pytest.fixture(scope="session")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "plain-transformer", "attention")


@pytest.fixture(autouse=True)
def strobe_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STROBE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
