"""Contrast sets that suit models of Python source, made from held-out files of the standard library; and CAA's files.

Ours, not a paper's. Files of the corpus's validation part give the pairs that a vector is fitted on, those of its test
part the questions it is judged by; a model of the zoo has seen neither (`strobe.models.corpus`).

``indentation``  the same lines indented by two spaces, against four
``naming``       the same lines with snake_case names, against camelCase
``comments``     lines of code, against the comment that stands above them
``tests``        lines of the library's tests, against lines of the library

``tests`` takes its pairs and questions from held-out files of both parts, never the same file for both. Its tests are
those that packages bring with them (ctypes, distutils, idlelib, ...) and those of the library's large ``test`` folder,
of which the corpus has nothing. Python 3.12 moved most tests there: where it is not installed, fewer than a hundred
pairs can be had, and are refused.
"""

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from strobe.models.corpus import Document, regression_test_documents, split_of, standard_library_documents
from strobe.probes.steering.contrast import Pair
from strobe.probes.steering.questions import Question

SetName = Literal["indentation", "naming", "comments", "tests"]
_LINES = 8
_SNAKE = re.compile(r"(?<![\w\"'])[a-z]{2,}(?:_[a-z]{2,})+\b")
_CLASS = re.compile(r"class \w+(?:\([\w., ]*\))?:")
_METHOD = re.compile(r" {4}def ([a-z]\w*)\(self")
_TEST_FOLDERS = frozenset({"test", "tests", "idle_test"})


@dataclass(frozen=True)
class ContrastSet:
    """Pairs to fit a vector on and questions to judge it by; steering is towards `positive`, away from `negative`."""

    name: str
    positive: str
    negative: str
    pairs: tuple[Pair, ...]
    questions: tuple[Question, ...]
    source: str


class _Made(NamedTuple):
    positive: str
    negative: str
    pairs: Callable[[list[Document], random.Random], list[Pair]]
    questions: Callable[[list[Document], random.Random], list[Question]]


def contrast_set(
    name: SetName, *, n_pairs: int = 100, n_questions: int = 50, seed: int = 0, source: Path | None = None
) -> ContrastSet:
    """The bundled contrast set `name`. `source`: a folder of Python files in place of the running Python's library.

    Raises ValueError for another name, or where the held-out files have fewer pairs or questions than asked for.
    """
    if name not in get_args(SetName):
        raise ValueError(f"contrast set {name!r} does not exist; there are {', '.join(get_args(SetName))}")
    documents, _ = standard_library_documents(source)
    held_out = [d for d in documents if split_of(d.path) != "train"]
    if name == "tests":
        held_out += regression_test_documents(source)
    fit, judge = _files(name, held_out)
    made, draw = _SETS[name], random.Random(seed)
    pairs, questions = made.pairs(fit, draw), made.questions(judge, draw)
    for what, found, asked in (("pairs", pairs, n_pairs), ("questions", questions, n_questions)):
        if len(found) < asked:
            raise ValueError(
                f"{asked} {what} of {name!r} were asked for; the held-out files of this Python have {len(found)}; ask "
                "for fewer, install this Python's own tests, or give the sources of another Python in `source`"
            )
        draw.shuffle(found)
    origin = f"held-out files of Python's standard library: {len(fit)} for pairs, {len(judge)} others for questions"
    return ContrastSet(
        name, made.positive, made.negative, tuple(pairs[:n_pairs]), tuple(questions[:n_questions]), origin
    )


def load_caa(path: str | Path, template: str = "{question}\n\nAnswer: (") -> ContrastSet:
    """A behaviour in the JSON format of contrastive activation addition (Rimsky et al. 2023).

    A list of records with ``question``, ``answer_matching_behavior`` and ``answer_not_matching_behavior``, the answers
    being "(A)" and "(B)" (or "(1)" and "(2)"). Each gives a pair and a question, so fit on one file and judge by
    another. `template` ends with the opening bracket; the default is plain and ours, the published ones are the chat
    formats of the models used. Raises ValueError for a record without a field, naming it, or for no record.
    """
    records = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(records, list) or not records:
        raise ValueError(f"{path} holds no list of records; CAA's files are lists of questions with two answers")
    if "{question}" not in template:
        raise ValueError(f"the template {template!r} has no place for the {{question}}")
    pairs, questions = [], []
    for i, record in enumerate(records):
        fields = ("question", "answer_matching_behavior", "answer_not_matching_behavior")
        if missing := [f for f in fields if not isinstance(record, dict) or f not in record]:
            raise ValueError(f"record {i} of {path} lacks {', '.join(missing)}")
        prompt = template.replace("{question}", record["question"])
        matching, other = (record[f].strip().strip("()") for f in fields[1:])
        if not matching or not other or matching == other:
            raise ValueError(
                f"record {i} of {path} has the answers {matching!r} and {other!r}; give two different ones"
            )
        pairs.append(Pair(prompt + matching, prompt + other))
        questions.append(Question(prompt, matching + ")", other + ")"))
    name = Path(path).stem
    return ContrastSet(name, "matching behaviour", "other", tuple(pairs), tuple(questions), f"CAA file {name}")


def _files(name: str, documents: list[Document]) -> tuple[list[Document], list[Document]]:
    """Files for pairs and files for questions, none in both."""
    if name != "tests":
        return [d for d in documents if split_of(d.path) == "valid"], [
            d for d in documents if split_of(d.path) == "test"
        ]
    # Every test goes to the pairs, with as much library code as there is of it; the rest has the classes to ask about.
    library = [d for d in documents if not _is_test(d)]
    return [d for d in documents if _is_test(d)] + library[::4], [d for i, d in enumerate(library) if i % 4]


def _is_test(document: Document) -> bool:
    return bool(_TEST_FOLDERS.intersection(Path(document.path).parts[:-1]))


def _windows(documents: Sequence[Document], start: str) -> list[list[str]]:
    """Up to eight lines from each line that begins with `start`, without strings of several lines, tabs or blanks."""
    found = []
    for document in documents:
        lines = document.text.split("\n")
        for i, line in enumerate(lines):
            block = [x.rstrip() for x in lines[i : i + _LINES] if x.strip()]
            text = "\n".join(block)
            if line.startswith(start) and len(block) > 3 and not any(s in text for s in ('"""', "'''", "\t", "\\")):
                found.append(block)
    return found


def _indentation_pairs(documents: list[Document], draw: random.Random) -> list[Pair]:
    pairs = []
    methods = [[line[4:] for line in block if line[:4].isspace()] for block in _windows(documents, "    def ")]
    for block in _windows(documents, "def ") + _windows(documents, "class ") + methods:
        depths = [len(line) - len(line.lstrip()) for line in block]
        if all(d % 4 == 0 for d in depths) and sum(d > 0 for d in depths) > 2:
            narrow = [" " * (d // 2) + line.lstrip() for d, line in zip(depths, block, strict=True)]
            pairs.append(Pair("\n".join(narrow), "\n".join(block)))
    return pairs


def _indentation_questions(documents: list[Document], draw: random.Random) -> list[Question]:
    heads = [
        line.strip()
        for document in documents
        for line in document.text.split("\n")
        if line.lstrip().startswith("def ") and line.rstrip().endswith("):")
    ]
    return [Question(head, "\n  return", "\n    return") for head in dict.fromkeys(heads)]


def _camel(text: str) -> str:
    return _SNAKE.sub(lambda m: re.sub("_([a-z])", lambda c: c[1].upper(), m[0]), text)


def _naming_pairs(documents: list[Document], draw: random.Random) -> list[Pair]:
    texts = ["\n".join(block) for block in _windows(documents, "def ") + _windows(documents, "    def ")]
    return [Pair(text, _camel(text)) for text in texts if len(_SNAKE.findall(text)) > 1]


def _naming_questions(documents: list[Document], draw: random.Random) -> list[Question]:
    questions = {}
    for document in documents:
        for line in document.text.split("\n"):
            match = _SNAKE.search(line)
            if match and match.start() > 3 and not line.lstrip().startswith("#"):
                first, _, rest = match[0].partition("_")
                prompt = line[: match.start()].lstrip() + first
                questions[prompt] = Question(prompt, "_" + rest, rest.title().replace("_", ""))
    return [q for q in questions.values() if len(q.prompt.split()) > 1]


def _comment_blocks(documents: Sequence[Document]) -> list[tuple[list[str], list[str], list[str]]]:
    """(lines above, comment, code below) for every comment of two lines or more that has all three at its depth."""
    found = []
    for document in documents:
        lines = document.text.split("\n")
        i = 0
        while i < len(lines):
            stop = i
            while stop < len(lines) and lines[stop].lstrip().startswith("# "):
                stop += 1
            if stop > i:
                above, below = [x for x in lines[max(i - 4, 0) : i] if x.strip()], lines[stop : stop + 3]
                code = [x for x in below if x.strip() and not x.lstrip().startswith("#")]
                depth = len(lines[i]) - len(lines[i].lstrip())
                same = bool(code) and len(code[0]) - len(code[0].lstrip()) == depth
                if above and same and len(" ".join(lines[i:stop]).split()) > 4:
                    found.append((above, lines[i:stop][:3], code))
            i = stop + 1
    return found


def _comment_pairs(documents: list[Document], draw: random.Random) -> list[Pair]:
    return [Pair("\n".join(code), "\n".join(comment)) for _, comment, code in _comment_blocks(documents)]


def _comment_questions(documents: list[Document], draw: random.Random) -> list[Question]:
    return [
        Question("\n".join(above), "\n" + code[0], "\n" + comment[0])
        for above, comment, code in _comment_blocks(documents)
    ]


def _test_pairs(documents: list[Document], draw: random.Random) -> list[Pair]:
    kinds = [[d for d in documents if _is_test(d)], [d for d in documents if not _is_test(d)]]
    tests, library = ([b for s in ("    def ", "def ") for b in _windows(docs, s)] for docs in kinds)
    # Of whichever there is more of, some of every file and not all of the first.
    draw.shuffle(tests)
    draw.shuffle(library)
    return [Pair("\n".join(a), "\n".join(b)) for a, b in zip(tests, library, strict=False)]


def _test_questions(documents: list[Document], draw: random.Random) -> list[Question]:
    questions = {}
    for document in documents:
        head = ""
        for line in document.text.split("\n"):
            if _CLASS.match(line):
                head = line.rstrip()
            method = _METHOD.match(line)
            if head and method and not method[1].startswith("test"):
                questions[head] = Question(f"{head}\n    def", f" test_{method[1]}(self", f" {method[1]}(self")
    return list(questions.values())


_SETS: dict[str, _Made] = {
    "indentation": _Made("two spaces", "four spaces", _indentation_pairs, _indentation_questions),
    "naming": _Made("snake_case", "camelCase", _naming_pairs, _naming_questions),
    "comments": _Made("code", "comments", _comment_pairs, _comment_questions),
    "tests": _Made("test code", "library code", _test_pairs, _test_questions),
}
