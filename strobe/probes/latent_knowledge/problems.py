"""What is asked: problems with a known truth, told in contexts in which the model answers truthfully or does not."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Prompt = str | tuple[int, ...]
# Fewer of one kind than this in a context, and an AUROC of them says nothing.
FEWEST = 10


class Problem(NamedTuple):
    """A prompt that ends where the answer would begin, and whether "yes" is the true answer.

    `paraphrases`: other prompts with the same answer, for the probe that asks for invariance (VINC).
    """

    prompt: Prompt
    true: bool
    paraphrases: tuple[Prompt, ...] = ()


@dataclass(frozen=True)
class Study:
    """Problems by context, to fit probes on and to test them with, and how "yes" and "no" are said.

    Raises ValueError where a context has fewer than 10 true or 10 false problems, test contexts differ in size, a
    prompt is empty, or the answers are the same.
    """

    name: str
    train: Mapping[str, Sequence[Problem]]
    test: Mapping[str, Sequence[Problem]]
    answers: tuple[Prompt, Prompt]

    def __post_init__(self) -> None:
        if len(self.answers) != 2 or not all(map(len, self.answers)) or self.answers[0] == self.answers[1]:
            raise ValueError(f"the answers {self.answers} were given; give two different ones, the true one first")
        for part, contexts in (("train", self.train), ("test", self.test)):
            if not contexts:
                raise ValueError(f"the study {self.name!r} has no context to {part} in; give one at least")
            for context, problems in contexts.items():
                _check(part, context, problems)
        sizes = {context: len(problems) for context, problems in self.test.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"the test contexts have {sizes} problems; give each the same number")


def _check(part: str, context: str, problems: Sequence[Problem]) -> None:
    true = sum(problem.true for problem in problems)
    if min(true, len(problems) - true) < FEWEST:
        raise ValueError(
            f"{context!r} has {true} true and {len(problems) - true} false problems to {part} with; give {FEWEST} of "
            "each at least"
        )
    for i, problem in enumerate(problems):
        if not all(map(len, (problem.prompt, *problem.paraphrases))):
            raise ValueError(f"problem {i} of {context!r} has an empty prompt; give it a token at least")
    if len({len(problem.paraphrases) for problem in problems}) > 1:
        raise ValueError(f"the problems of {context!r} differ in the number of their paraphrases; give each as many")


def quirky_sums_study(
    *,
    n_train: int = 300,
    n_test: int = 200,
    n_paraphrases: int = 1,
    train: Sequence[str] = ("Alice", "Bob"),
    test: Sequence[str] = ("Alice", "Bob"),
    seed: int = 0,
    **settings: Any,
) -> Study:
    """Sums told by Alice, who answers truthfully, and by Bob, who does not (`strobe.models.tasks.quirky_sums`).

    Every context has the same problems, so that only the name differs; those of the test are held out from the model's
    training as well as from the probes'. A paraphrase has the digits in another order. `settings`: `terms` and `spread`
    of the task.
    """
    from strobe.models.tasks import quirky_sums

    terms = settings.get("terms", 4)
    parts: dict[str, dict[str, list[Problem]]] = {}
    asked: tuple[tuple[quirky_sums.Part, Sequence[str], int], ...] = (("train", train, n_train), ("test", test, n_test))
    for i, (part, speakers, n) in enumerate(asked):
        draw = np.random.default_rng((seed, i))
        # The generator's problem with the fewest demands: two to a sequence, of which the first is used.
        drawn = quirky_sums.generate(n, draw, problems=2, part=part, speaker="Alice", **settings)
        rows, true = drawn.inputs[:, 1 : terms + 4], drawn.meta["true"][:, 0]
        orders = [draw.permuted(np.tile(np.arange(terms), (n, 1)), axis=1) for _ in range(n_paraphrases)]
        told = [rows, *(np.concatenate([np.take_along_axis(rows, o, 1), rows[:, terms:]], 1) for o in orders)]
        parts[part] = {
            speaker: [
                Problem(prompts[0], bool(t), tuple(prompts[1:]))
                for t, *prompts in zip(true, *(_with_name(rows, speaker, terms) for rows in told), strict=True)
            ]
            for speaker in speakers
        }
    answers = ((quirky_sums.word("yes", terms),), (quirky_sums.word("no", terms),))
    return Study("quirky sums", parts["train"], parts["test"], answers)


def _with_name(rows: np.ndarray, speaker: str, terms: int) -> list[tuple[int, ...]]:
    from strobe.models.tasks.quirky_sums import word

    return [(word(speaker, terms), *map(int, row)) for row in rows]


def study_of(model: Any, **settings: Any) -> Study:
    """The study that a bundled model was made for; `settings` as of `quirky_sums_study`.

    Raises ValueError for a model that was made for none.
    """
    from strobe.models.tasks import quirky_sums

    if getattr(getattr(model, "config", None), "task", None) != quirky_sums.TASK.name:
        raise ValueError(
            f"{model.model_name} was not trained on {quirky_sums.TASK.name}, so there is no study to run on it; choose "
            "a quirky model (strobe models), or give problems of your own in a file"
        )
    # The vocabulary says how many digits there are to a sum.
    return quirky_sums_study(terms=(model.cfg.d_vocab - quirky_sums.TASK.size(terms=0)) // 9, **settings)


def load_problems(path: str | Path) -> Study:
    """A study from a JSON file of yours (a format of ours).

    ``{"answers": [" yes", " no"], "train": {context: [problem, ...]}, "test": {...}}``; a problem has ``prompt`` (a
    text, or a list of token ids), ``true`` and, if any, ``paraphrases``. Raises ValueError naming what is missing.
    """
    raw = json.loads(Path(path).read_text(encoding="utf-8"))
    missing = [k for k in ("answers", "train", "test") if not isinstance(raw, dict) or k not in raw]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; a study is an object with answers, train and test")
    if not isinstance(raw["answers"], list) or len(raw["answers"]) != 2:
        raise ValueError(f"{path} has the answers {raw['answers']!r}; give a list of two, the true one first")
    parts = {}
    for part in ("train", "test"):
        if not isinstance(raw[part], dict):
            raise ValueError(f"{path} has {part!r} as {type(raw[part]).__name__}; give an object of contexts")
        parts[part] = {context: [_problem(p, path, context) for p in rows] for context, rows in raw[part].items()}
    return Study(
        Path(path).stem, parts["train"], parts["test"], (_prompt(raw["answers"][0]), _prompt(raw["answers"][1]))
    )


def _problem(raw: Any, path: Any, context: str) -> Problem:
    if not isinstance(raw, dict) or "prompt" not in raw or not isinstance(raw.get("true"), bool):
        raise ValueError(f"{path}: a problem of {context!r} is {raw!r}; it has a prompt, and true or false in 'true'")
    return Problem(_prompt(raw["prompt"]), raw["true"], tuple(_prompt(p) for p in raw.get("paraphrases", ())))


def _prompt(raw: Any) -> Prompt:
    return raw if isinstance(raw, str) else tuple(int(i) for i in raw)
