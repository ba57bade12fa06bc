"""Files as rows of tokens with a label at each token: what cells are chosen on, and other files they are judged by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from strobe.probes.cells.labels import LABELS, source_labels

# Characters read for each token wanted: a token of code has one at least, and seldom more on average.
_ENOUGH = 6
# Characters beyond them, so that the last token wanted is not cut.
_MARGIN = 64


@dataclass(frozen=True)
class LabelledRows:
    """The first tokens [file, time] of files, and `labels` [file, time, label] after each token."""

    tokens: Int[np.ndarray, "file time"]
    labels: Float[np.ndarray, "file time label"]

    def of_other_files(self) -> Float[np.ndarray, "file time label"]:
        """The labels of the file before, at the same positions: as smooth and as usual at each position as the right
        ones, but of another text."""
        return np.roll(self.labels, 1, axis=0)


def token_ends(model: Any, text: str) -> tuple[list[int], Int[np.ndarray, " time"]]:
    """(token ids of `text`, how many characters each has read when it ends), as `model` reads a text.

    A token added in front has read nothing. Raises ValueError for a model without a tokenizer, for one that cannot say
    where its tokens are, and where the tokens leave out a part of the text.
    """
    if model.tokenizer is None:
        raise ValueError(f"labels of a text were asked for; {model.model_name} came without a tokenizer; give one")
    if not model.tokenizer.is_fast:
        raise ValueError(
            f"places of tokens were asked for; the tokenizer of {model.model_name} is written in Python and does not "
            "know them; load the model with its fast tokenizer (tokenizer.json)"
        )
    read = model.tokenizer(text, return_offsets_mapping=True, add_special_tokens=True)
    spans = np.array(read["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    ends = np.maximum.accumulate(spans[:, 1])
    begun = spans[:, 1] > spans[:, 0]
    if (spans[begun, 0] > np.append(0, ends[:-1])[begun]).any():
        raise ValueError(
            f"places of tokens were asked for; the tokenizer of {model.model_name} leaves parts of the text out of its "
            "offsets (trim_offsets), so labels would sit beside their tokens; set trim_offsets to false in it"
        )
    return list(read["input_ids"]), ends


def labelled_rows(
    model: Any, texts: Sequence[str], length: int, rng: np.random.Generator | None = None
) -> tuple[LabelledRows, int]:
    """(`length` tokens of each of `texts` with their labels, how many texts were left out).

    The first tokens, or with `rng` those from a random line that begins a statement of the file's outermost level: from
    there on the model needs to have read nothing. Left out is a text that is too short, or that `tokenize` cannot read.
    """
    rows, labels = [], []
    for text in texts:
        try:
            found = source_labels(text)
        except ValueError:
            continue
        start = 0 if rng is None else _beginning(text, found, _ENOUGH * length, rng)
        ids, ends = token_ends(model, text[start : start + _ENOUGH * length + _MARGIN] if rng is not None else text)
        if len(ids) < length:
            continue
        rows.append(ids[:length])
        labels.append(np.stack([found[name][start + ends[:length]] for name in LABELS], -1))
    if len(rows) < 2:
        raise ValueError(
            f"files of {length} tokens were asked for; found {len(rows)} of {len(texts)} that are so long and that "
            "tokenize can read; give two at least, or ask for fewer tokens"
        )
    return LabelledRows(np.array(rows, dtype=np.int64), np.stack(labels)), len(texts) - len(rows)


def _beginning(text: str, labels: dict[str, np.ndarray], room: int, rng: np.random.Generator) -> int:
    """Where a random line begins that is outside strings and brackets, is not indented, and has `room` characters
    after it; 0 where no other line does."""
    newline = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32) == ord("\n")
    starts = np.flatnonzero(newline) + 1
    starts = starts[starts < len(text) - room]
    free = (labels["in_string"][starts] == 0) & (labels["bracket_depth"][starts] == 0)
    starts = [int(at) for at in starts[free] if text[at] not in " \t\n#"]
    return starts[rng.integers(len(starts))] if starts else 0


def library_texts(n_files: int, length: int, seed: int) -> tuple[list[str], list[str]]:
    """(files to choose on, files to judge by) from the held-out files of Python's standard library, twice as many of
    each as asked for where there are so many, as some are left out; no file is in both. Only files that can be long
    enough."""
    from strobe.models.corpus import split_of, standard_library_documents

    texts = [d.text for d in standard_library_documents()[0] if split_of(d.path) != "train"]
    texts = [t for t in texts if len(t) >= _ENOUGH * length]
    order = np.random.default_rng(seed).permutation(len(texts))
    half = min(len(order) // 2, 2 * n_files)
    return [texts[i] for i in order[:half]], [texts[i] for i in order[half : 2 * half]]
