"""Language-model data that every machine already has: the source of Python's own standard library."""

from strobe.models.corpus.baselines import baselines
from strobe.models.corpus.ngram import WittenBell
from strobe.models.corpus.python_corpus import PythonCorpus, Split
from strobe.models.corpus.source import (
    Document,
    regression_test_documents,
    split_of,
    standard_library_documents,
)
from strobe.models.corpus.tokenizer import SEPARATOR, load_tokenizer, train_tokenizer

__all__ = [
    "SEPARATOR",
    "Document",
    "PythonCorpus",
    "Split",
    "WittenBell",
    "baselines",
    "load_tokenizer",
    "regression_test_documents",
    "split_of",
    "standard_library_documents",
    "train_tokenizer",
]
