"""The report's fifth analysis: the carry, or without one the loss, beyond the training length."""

from strobe.core.result import Result
from strobe.dashboards import memory_work
from strobe.dashboards.jobs import Tick
from strobe.dashboards.report.analysis import Analysis, DoesNotApply, Part
from strobe.dashboards.report.subject import Subject

# Training lengths that are streamed, tokens of a row at most, and rows.
_LENGTHS, _MOST, _ROWS = 4, 4096, 2


def _parts(subject: Subject) -> list[Part]:
    model, task = subject.model, getattr(getattr(subject.model, "config", None), "task", None)
    length = min(subject.train_length, _MOST // 2)
    time = min(_LENGTHS * length, _MOST)
    if subject.most_positions is not None and subject.most_positions < time:
        raise DoesNotApply(
            f"{subject.name} has learned {subject.most_positions} positions and cannot be shown more: an input of "
            f"{time} tokens does not fit."
        )
    try:
        memory_work.long_input(model, _ROWS, time, seed=subject.seed)
    except ValueError as error:
        if task is None:
            raise
        raise DoesNotApply(f"Sequences of the task {task} have a length of their own ({error}).") from error
    note = f"{time} tokens in each of {_ROWS} rows; the training length is {length} ({subject.train_length_from}"
    note += ")." if length == subject.train_length else f", {subject.train_length}, cut to what a report streams)."

    def run(analysis: str, tick: Tick) -> Result:
        settings = {"rows": _ROWS, "time": time, "train_length": length, "every": length}
        return memory_work.analyse(model, analysis, settings, tick, seed=subject.seed)

    if not subject.recurrent:
        if subject.d_input:
            raise DoesNotApply(f"{subject.name} has no recurrent carry and predicts no token.")
        note += " No block carries a state on, so what can collapse is behaviour alone: loss by position."
        return [Part("position-loss", "Loss by position", lambda tick: run("loss", tick), note=note)]
    parts = [
        Part("carry-diagnostics", "The carry, streamed", lambda tick: run("carry", tick), lambda r: [r.figure()], note)
    ]
    return [
        *parts,
        Part("mitigations", "Behaviour, and interventions on the carry", lambda tick: run("mitigations", tick)),
    ]


ANALYSIS = Analysis(
    name="collapse",
    title="State-collapse diagnostics",
    question="What becomes of the carry, and of the loss, beyond the training length?",
    about=(
        "Moments and retention of the carry along an input longer than training (Chen et al. 2024). A norm that grows "
        "is not a collapse: that takes behaviour that falls, and an intervention on the carry that brings it back "
        "while its control does not. That rule, and the controls, are ours."
    ),
    parts=_parts,
)
