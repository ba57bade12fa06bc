"""The texts that updates are looked at in: rows of tokens that know which sequence they are of.

Neighbours of a token may not come from its own sequence, and tokens that judge a map may not come from a sequence it
was fitted on, so each row carries the number of its sequence. Position 0 is left out everywhere: first tokens often
have activations of another size than all others.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from strobe.probes.lens.token_rows import token_rows

# Characters read for each token wanted: more than any token of text has on average, less than a whole file.
_CHARACTERS = 12


@dataclass(frozen=True)
class Sequences:
    """Token ids `rows` [row, time] and, for each row, the number of the `sequence` it was cut from."""

    rows: Int[np.ndarray, "row time"]
    sequence: Int[np.ndarray, " row"]

    def __len__(self) -> int:
        return len(self.rows)

    def split(self, n_judge: int) -> tuple["Sequences", "Sequences"]:
        """(rows to fit on, the last `n_judge` rows or a few more to judge by), with no sequence in both.

        Raises ValueError if that leaves no row to fit on.
        """
        judged: set[int] = set()
        order = list(dict.fromkeys(self.sequence[::-1].tolist()))
        for sequence in order:
            if np.isin(self.sequence, list(judged)).sum() >= n_judge:
                break
            judged.add(sequence)
        held = np.isin(self.sequence, list(judged))
        if held.all() or held.sum() < n_judge:
            raise ValueError(
                f"{n_judge} rows to judge by were asked for, apart from those to fit on; found {len(self)} rows of "
                f"{len(order)} sequences; give more sequences, or ask for fewer tokens"
            )
        return Sequences(self.rows[~held], self.sequence[~held]), Sequences(self.rows[held], self.sequence[held])


def sequences_of(model: Any, tokens: Any, context: int) -> Sequences:
    """`tokens` as given by a caller: `Sequences` as they are, rows [n, time] of which each is a sequence of its own, or
    a text or stream [n_tokens], which is cut into rows of `context` (a shorter one is a row); raises ValueError as
    `token_rows`."""
    if isinstance(tokens, Sequences):
        return tokens
    rows = token_rows(model, tokens, None, context).in_order().numpy()
    return Sequences(rows, np.arange(len(rows)))


def library_sequences(model: Any, n_rows: int, context: int, seed: int = 0) -> Sequences:
    """`n_rows` rows of `context` tokens from held-out files of Python's standard library; a file is a sequence.

    Rows start at random lines. Files are used in turn, so that as many as there are take part. Raises ValueError for a
    model without a tokenizer, or where the files have too few tokens.
    """
    from strobe.models.corpus import split_of, standard_library_documents

    if model.tokenizer is None:
        raise ValueError(
            f"library text was asked for, and {model.model_name} came without a tokenizer; give token ids, or add "
            "tokenizer.json to its folder"
        )
    texts = [d.text for d in standard_library_documents()[0] if split_of(d.path) != "train"]
    rng = np.random.default_rng(seed)
    texts = [texts[i] for i in rng.permutation(len(texts))]
    order = list(range(len(texts)))
    rows: list[list[int]] = []
    sequence: list[int] = []
    seen: set[tuple[int, ...]] = set()
    while order and len(rows) < n_rows:
        left = []
        for index in order:
            row = _row(model, texts[index], context, rng)
            if row is None or tuple(row) in seen:
                continue
            seen.add(tuple(row))
            rows.append(row)
            sequence.append(index)
            left.append(index)
        order = left
    if len(rows) < n_rows:
        raise ValueError(
            f"{n_rows} rows of {context} tokens were asked for; held-out library files gave {len(rows)}; ask for fewer "
            "tokens or a shorter context"
        )
    # In the order of the sequences, so that rows of one file stay together when the end is split off.
    keep = np.argsort(np.array(sequence[:n_rows]), kind="stable")
    return Sequences(np.array(rows[:n_rows], dtype=np.int64)[keep], np.array(sequence[:n_rows])[keep])


def _row(model: Any, text: str, context: int, rng: np.random.Generator) -> list[int] | None:
    """The first `context` tokens after a random line start of `text`, or None where it has too few."""
    room = len(text) - _CHARACTERS * context
    at = int(rng.integers(max(room, 0) + 1))
    start = text.rfind("\n", 0, at) + 1
    ids = model.tokenizer.encode(text[start : start + 2 * _CHARACTERS * context], add_special_tokens=False)[:context]
    return ids if len(ids) == context else None
