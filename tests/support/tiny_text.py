"""A GRU of six units with a tokenizer of its own, untrained, in a folder as `strobe.load` takes it."""

from pathlib import Path


def save_tiny_gru(folder: Path, text: str, d_vocab: int) -> Path:
    """`folder`, with the checkpoint of one whose tokenizer of `d_vocab` tokens was trained on `text`."""
    from strobe.models import HookedLM, ModelConfig, save_checkpoint
    from strobe.models.corpus import load_tokenizer, train_tokenizer

    file = folder.parent / "tokenizer.json"
    train_tokenizer([text], d_vocab).save(str(file))
    config = ModelConfig(d_model=8, d_vocab=d_vocab, layers=["gru"], mixer_options={"gru": {"hidden": 6}}, mlp="none")
    save_checkpoint(HookedLM(config, tokenizer=load_tokenizer(file), name="tiny"), folder)
    return folder
