"""The corpus: documents, their tokenizer, and their tokens kept in the user's cache folder.

The tokens of a split are its documents by path, each preceded by the separator, in one array. The cache folder is
named after everything that decides its content, so a cache is either right or absent.
"""

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from jaxtyping import UInt16

from strobe.core.atomic import replacing_directory
from strobe.models.corpus.source import Document, Split, digest_of, split_of, standard_library_documents
from strobe.models.corpus.tokenizer import SEPARATOR, load_tokenizer, train_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

SPLITS: tuple[Split, ...] = get_args(Split)
_LAYOUT = 1
"""Raised when the same sources and tokenizer are to give other files."""


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/strobe``, or ``~/.cache/strobe`` where that variable is not set."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "strobe"


@dataclass(frozen=True)
class PythonCorpus:
    """The standard library's source as tokens, in three splits. Made by `PythonCorpus.build`."""

    folder: Path
    """where the tokens and ``tokenizer.json`` are kept"""
    info: dict[str, Any]
    """Python version, digest, sizes: what a result should say about its data"""
    _documents: tuple[Document, ...]

    @classmethod
    def build(
        cls,
        *,
        vocab_size: int = 1024,
        tokenizer: Path | None = None,
        source: Path | None = None,
        cache: Path | None = None,
    ) -> "PythonCorpus":
        """Read the sources and tokenise them, or find that done in the cache.

        `tokenizer` is a ``tokenizer.json`` to use as it is (that of a trained model, say, whose Python was another);
        without it one of `vocab_size` is trained on the training part. `source` is a folder of Python files in place
        of the running interpreter's library.
        """
        documents, not_utf8 = standard_library_documents(source)
        digest = digest_of(documents)
        made_with = hashlib.sha256(tokenizer.read_bytes()).hexdigest() if tokenizer else f"bpe-{vocab_size}"
        key = hashlib.sha256(f"{_LAYOUT} {digest} {made_with}".encode()).hexdigest()[:16]
        folder = (cache_folder() if cache is None else cache) / "corpus" / f"python-{key}"
        if not folder.exists():
            info = {"python": platform.python_version(), "digest": digest, "not_utf8": not_utf8}
            _write(folder, documents, _tokenizer(documents, vocab_size, tokenizer), info)
        return cls(folder, json.loads((folder / "corpus.json").read_text()), tuple(documents))

    @property
    def digest(self) -> str:
        """SHA-256 of the paths and contents of every file used."""
        return self.info["digest"]

    @property
    def vocab_size(self) -> int:
        """Number of tokens, the separator included."""
        return self.info["vocab_size"]

    @property
    def tokenizer_path(self) -> Path:
        """The ``tokenizer.json``, to be copied beside a model that is trained on this corpus."""
        return self.folder / "tokenizer.json"

    def tokenizer(self) -> "PreTrainedTokenizerFast":
        """The tokenizer as transformers expects it."""
        return load_tokenizer(self.tokenizer_path)

    def documents(self, split: Split) -> list[Document]:
        """The files of `split`, by path."""
        _check(split)
        return [d for d in self._documents if split_of(d.path) == split]

    def tokens(self, split: Split) -> UInt16[np.ndarray, " n_tokens"]:
        """The tokens of `split`, read-only. Raises ValueError where the cached file is not what was written."""
        _check(split)
        path = self.folder / f"{split}.npy"
        tokens = np.load(path, allow_pickle=False)
        if hashlib.sha256(tokens.tobytes()).hexdigest() != self.info["splits"][split]["sha256"]:
            raise ValueError(
                f"the cached tokens at {path} are not those written there; "
                f"delete the folder {self.folder} and build again"
            )
        tokens.setflags(write=False)
        return tokens

    def n_bytes(self, split: Split) -> int:
        """Bytes of source in `split`; separators are not counted."""
        _check(split)
        return self.info["splits"][split]["n_bytes"]

    def n_tokens(self, split: Split) -> int:
        """Tokens in `split`, one separator per document included."""
        _check(split)
        return self.info["splits"][split]["n_tokens"]

    def bytes_per_token(self, split: Split) -> float:
        """Bytes of source per token, separators counted as tokens without bytes."""
        return self.n_bytes(split) / self.n_tokens(split)


def _check(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"split {split!r} was asked for; a corpus has {', '.join(SPLITS)}")


def _tokenizer(documents: Sequence[Document], vocab_size: int, given: Path | None) -> "Tokenizer":
    from tokenizers import Tokenizer

    if given is None:
        return train_tokenizer((d.text for d in documents if split_of(d.path) == "train"), vocab_size)
    tokenizer = Tokenizer.from_file(str(given))
    if tokenizer.token_to_id(SEPARATOR) is None:
        raise ValueError(f"the tokenizer {given} has no token {SEPARATOR}, which separates documents; use one that has")
    if tokenizer.get_vocab_size() > 2**16:
        raise ValueError(
            f"the tokenizer {given} has {tokenizer.get_vocab_size()} tokens; tokens are kept as uint16; "
            "use one of at most 65536"
        )
    return tokenizer


def _encode(documents: Sequence[Document], tokenizer: "Tokenizer") -> UInt16[np.ndarray, " n_tokens"]:
    # A source file that spells the separator out must not gain a document boundary.
    tokenizer.encode_special_tokens = True
    separator = np.array([tokenizer.token_to_id(SEPARATOR)], dtype=np.uint16)
    encodings = tokenizer.encode_batch([d.text for d in documents], add_special_tokens=False)
    parts = [part for e in encodings for part in (separator, np.array(e.ids, dtype=np.uint16))]
    return np.concatenate(parts) if parts else separator[:0]


def _write(folder: Path, documents: list[Document], tokenizer: "Tokenizer", info: dict[str, Any]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Another process sees all of the cache or none of it; two that build at once write the same content.
    with replacing_directory(folder) as draft:
        tokenizer.save(str(draft / "tokenizer.json"))
        splits = {}
        for split in SPLITS:
            chosen = [d for d in documents if split_of(d.path) == split]
            tokens = _encode(chosen, tokenizer)
            np.save(draft / f"{split}.npy", tokens)
            splits[split] = {
                "n_files": len(chosen),
                "n_bytes": sum(d.n_bytes for d in chosen),
                "n_tokens": len(tokens),
                "sha256": hashlib.sha256(tokens.tobytes()).hexdigest(),
            }
        whole = {**info, "vocab_size": tokenizer.get_vocab_size(), "splits": splits}
        (draft / "corpus.json").write_text(json.dumps(whole, indent=2) + "\n")
