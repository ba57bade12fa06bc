"""The long work of the memory page and command: an input far longer than training, and the analyses that read it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from strobe.dashboards import loading, store
from strobe.dashboards.jobs import Tick
from strobe.dashboards.partial import keep_what_is_found
from strobe.dashboards.work import LibraryTokens

if TYPE_CHECKING:
    from strobe.core.result import Result

ANALYSES = {
    "carry": "Norms and retention",
    "loss": "Loss by position",
    "mitigations": "Mitigations",
    "remembrance": "Remembrance",
    "capacity": "Capacity",
    "curve": "Memory curve",
}
"""What can be asked, in words; the keys are what commands and addresses say."""
RECURRENT_ONLY = ("carry", "mitigations", "curve")
"""Analyses of the carry; the others ask for predictions only."""

# Places a capacity heat map is measured at, and prompts a cell.
_DEPTHS, _PROMPTS = (0.0, 0.25, 0.5, 0.75, 1.0), 16


class LongInput(NamedTuple):
    """`inputs` [rows, time] ids or [rows, time, channels] numbers; `targets` [rows, time], or None for the next token;
    `words`: where it comes from."""

    inputs: np.ndarray
    targets: np.ndarray | None
    words: str


def family() -> Any:
    """The bundled family of models by state size and training length."""
    from strobe.probes.memory import bundled_family

    return bundled_family()


def memory_key(source: loading.Source, analysis: str, settings: dict[str, Any]) -> str:
    """The job's key and the result's name, from everything that decides it."""
    return store.key_of("memory", model=source.name, stamp=source.stamp, analysis=analysis, **settings)


def long_input(model: Any, rows: int, time: int, *, seed: int = 0, text: str | None = None) -> LongInput:
    """`rows` inputs of `time` tokens: of `text`, of the model's own task, or of held-out files of Python's library.

    A model without a task or a tokenizer gets uniform random tokens. Raises ValueError where there is too little text.
    """
    name = getattr(getattr(model, "config", None), "task", None)
    rng = np.random.default_rng((seed, 7))
    if text is None and name is not None:
        return _task_input(name, rows, time, rng)
    if model.tokenizer is None:
        if text is not None:
            raise ValueError(f"{model.model_name} came without a tokenizer, so it cannot be shown a text; leave it out")
        return LongInput(rng.integers(model.cfg.d_vocab, size=(rows, time)), None, "uniform random tokens")
    words = "the text given" if text is not None else "held-out files of Python's standard library"
    ids = LibraryTokens(model).tokens("valid") if text is None else np.asarray(model.tokenizer.encode(text))
    if len(ids) < rows * time:
        raise ValueError(
            f"{rows} rows of {time} tokens were asked for; {words} has {len(ids)}; ask for fewer or give a longer text"
        )
    starts = np.arange(rows) * (len(ids) // rows)
    return LongInput(np.stack([ids[s : s + time] for s in starts]).astype(np.int64), None, words)


def _task_input(name: str, rows: int, time: int, rng: np.random.Generator) -> LongInput:
    from strobe.models.tasks import task

    chosen = task(name)
    settings = {"segments": -(-time // 64)} if name == "segmented_recall" else {"time": time}
    try:
        drawn = chosen.generate(rows, rng, **settings)
    except TypeError as error:
        raise ValueError(
            f"an input of {time} tokens of the task {name!r} was asked for, whose sequences have a length of their own "
            f"({error}); choose a model of another task, or of text"
        ) from error
    targets = drawn.targets[:, :time] if chosen.kind == "tokens" else None
    return LongInput(drawn.inputs[:, :time], targets, f"fresh sequences of the task {name}")


def run_memory(key: str, name: str, analysis: str, settings: dict[str, Any], tick: Tick) -> Path:
    """Run `analysis` (a key of `ANALYSES`) on a model of its own as `settings` say, and keep the result under `key`; of
    a cancelled run what it had: the tokens read, the runs, suffixes, lengths or lags that were finished."""

    def probe(model: Any, *, progress: Tick, partial: Callable[["Result"], None]) -> "Result":
        return analyse(model, analysis, settings, progress, partial=partial)

    return keep_what_is_found(key, name, tick, probe)


def analyse(
    model: Any,
    analysis: str,
    settings: dict[str, Any],
    tick: Tick,
    *,
    text: str | None = None,
    seed: int = 0,
    partial: Callable[["Result"], None] | None = None,
) -> "Result":
    """The result of `analysis`. `settings`: rows, time, train_length, and layer and every where they apply. `partial`
    gets what there is so far, of the analyses that come in parts.

    Raises ValueError for an analysis that does not apply to the model, with the reason.
    """
    from strobe.probes import memory
    from strobe.probes.states import recurrent_layers

    if analysis in RECURRENT_ONLY and not recurrent_layers(model):
        rest = ", ".join(name for name in ANALYSES if name not in RECURRENT_ONLY)
        raise ValueError(
            f"{ANALYSES[analysis].lower()} of the carry of {model.model_name} was asked for, which has no recurrent "
            f"layer; {rest} apply to any model, and depth can be its time: strobe depth, strobe fixed-points --what "
            "exponents"
        )
    rows, time, length = settings["rows"], settings["time"], settings["train_length"]
    if analysis == "capacity":
        return _capacity(model, time, tick, seed, partial)
    if analysis == "curve":
        rng = np.random.default_rng((seed, 8))
        tokens = rng.integers(model.cfg.d_vocab, size=(64, 64))
        return memory.memory_curve(model, tokens, settings["layer"], lags=range(16), seed=seed, progress=tick,
                                   partial=partial)  # fmt: skip
    long = long_input(model, rows, time, seed=seed, text=text)
    if analysis == "remembrance":
        return memory.effective_remembrance(model, long.inputs, progress=tick, partial=partial)
    given: dict[str, Any] = {"targets": long.targets, "train_length": length, "progress": tick}
    if analysis == "carry":
        under = memory.Planted(layers=(settings["layer"],)) if settings.get("planted") else None
        return memory.diagnose(model, long.inputs, under=under, seed=seed, partial=partial, **given)
    if analysis == "loss":
        return memory.position_loss(model, long.inputs, partial=partial, **given)
    every = settings["every"]
    chosen = [*_resets(every), memory.NormLimit(limits=_limits(model, long, length), every=every)]
    chosen += [m for m in (memory.Insertion(), memory.SlidingWindow(window=length)) if m.applies(model)]
    return memory.compare_mitigations(model, long.inputs, chosen, partial=partial, **given)


def _resets(every: int) -> list[Any]:
    from strobe.probes.memory import Reset

    return [Reset(every=every), Reset(every=every, part="windows")]


def _limits(model: Any, long: LongInput, length: int) -> dict[int, np.ndarray]:
    from strobe.probes.memory import training_norms

    return training_norms(model, long.inputs, train_length=length, every=max(1, length // 16))


def _capacity(model: Any, time: int, tick: Tick, seed: int, partial: Callable[["Result"], None] | None) -> "Result":
    from strobe.probes.memory import capacity, dense_recall, text_passkey

    if getattr(getattr(model, "config", None), "task", None) == "segmented_recall":
        lengths = [4, 6, 10, 14, 18, 26, 34]
        return capacity(model, dense_recall(), lengths, task="dense recall, as many pairs as fit", depths=_DEPTHS,
                        n=64, seed=seed, progress=tick, partial=partial)  # fmt: skip
    if model.tokenizer is None:
        raise ValueError(
            f"the capacity of {model.model_name} was asked for, which reads neither text nor the recall task; choose a "
            "model with a tokenizer, or one of segmented recall"
        )
    lengths = [n for n in (128, 256, 512, 1024, 2048, 4096) if n <= time] or [time]
    return capacity(model, text_passkey(model.tokenizer), lengths, task="passkey in filler text", depths=_DEPTHS,
                    n=_PROMPTS, seed=seed, progress=tick, partial=partial)  # fmt: skip
