"""What a language model has to beat on a held-out split: a compressor and counting.

- ``gzip``: every file of the split by path, joined without separators, as one gzip stream at level 9. Nothing of the
  training part is shown to it first (its window is 32 kB, so that would hardly matter). Bits of the whole stream,
  its 18 bytes of header and trailer included, per byte of source.
- ``gzip_per_file``: the same with one stream for each file, so that no file helps another.
- ``witten_bell_5``: the 5-gram of `WittenBell` over this corpus's tokens, counted on the training part only.
- ``unigram``: the same with no history.
- ``uniform_token``: every token equally likely; the control that shows the scale.

All are bits per byte of source on the same split. Separators cost bits and have no bytes, as for a model.
"""

import gzip
from math import log

from strobe.models.corpus.ngram import WittenBell
from strobe.models.corpus.python_corpus import PythonCorpus
from strobe.models.corpus.source import Document, Split


def baselines(corpus: PythonCorpus, split: Split = "valid") -> dict[str, float]:
    """Bits per byte of each baseline above on `split`."""
    documents = corpus.documents(split)
    train, held_out = corpus.tokens("train"), corpus.tokens(split)
    bits = len(held_out) / corpus.n_bytes(split) / log(2)
    five = WittenBell(train, order=5, vocab=corpus.vocab_size)
    one = WittenBell(train, order=1, vocab=corpus.vocab_size)
    return {
        "gzip": gzip_bits_per_byte(documents),
        "gzip_per_file": gzip_bits_per_byte(documents, per_file=True),
        "witten_bell_5": five.nats_per_token(held_out) * bits,
        "unigram": one.nats_per_token(held_out) * bits,
        "uniform_token": log(corpus.vocab_size) * bits,
    }


def gzip_bits_per_byte(documents: list[Document], *, per_file: bool = False) -> float:
    """Bits of the gzip stream (level 9) per byte of `documents`, joined or each alone."""
    contents = [d.text.encode() for d in documents]
    streams = contents if per_file else [b"".join(contents)]
    compressed = sum(len(gzip.compress(s, compresslevel=9, mtime=0)) for s in streams)
    return 8 * compressed / sum(map(len, contents))
