"""A byte-level BPE tokenizer: 256 byte tokens, one separator, and the merges that pay most on the training part.

Byte-level (Radford et al. 2019, section 2.2) because then every string has an encoding and decodes to itself: there
is no unknown token, so bits per byte are defined for any text.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

SEPARATOR = "<|endoftext|>"
"""Stands before every document, token id 0: the beginning of one is the end of the last."""

_SMALLEST_VOCABULARY = 257


def train_tokenizer(texts: Iterable[str], vocab_size: int = 1024) -> "Tokenizer":
    """A byte-level BPE of `vocab_size` tokens, a deterministic function of `texts`.

    Raises ValueError where `vocab_size` leaves no room for the 256 bytes and the separator, or where `texts` has too
    few different pairs to fill it.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if vocab_size < _SMALLEST_VOCABULARY:
        raise ValueError(
            f"a vocabulary of {vocab_size} was asked for; 256 bytes and {SEPARATOR} already take "
            f"{_SMALLEST_VOCABULARY}; ask for {_SMALLEST_VOCABULARY} or more"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[SEPARATOR],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(
            f"a vocabulary of {vocab_size} was asked for; the texts have pairs for only {tokenizer.get_vocab_size()}; "
            "train on more text or ask for fewer"
        )
    return tokenizer


def load_tokenizer(path: Path) -> "PreTrainedTokenizerFast":
    """The tokenizer saved at `path` (a ``tokenizer.json``), as transformers and TransformerLens expect it.

    ``decode(encode(text)) == text`` for every string that has a UTF-8 encoding. The separator is the beginning and
    the end of a text as well as the padding; it is not added by `encode` unless the caller writes it.
    """
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_file=str(path),
        bos_token=SEPARATOR,
        eos_token=SEPARATOR,
        pad_token=SEPARATOR,
        unk_token=None,
        clean_up_tokenization_spaces=False,
    )
