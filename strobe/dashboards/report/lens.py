"""The report's first analysis: what the model would predict after each layer."""

from typing import Any

from strobe.core.result import Result
from strobe.dashboards import work
from strobe.dashboards.jobs import Tick
from strobe.dashboards.report.analysis import Analysis, DoesNotApply, Part
from strobe.dashboards.report.subject import Subject

# Held-out tokens that the lens is measured on.
_JUDGED = 4096


def _parts(subject: Subject) -> list[Part]:
    if subject.d_input:
        raise DoesNotApply(
            f"{subject.name} reads {subject.d_input} real numbers a step and predicts no token, so no layer of it can "
            "be read as a distribution over the next one."
        )
    files = work.lens_files(subject.loaded)
    used = f"The tuned lens {files[0].label} was used." if files else (
        "No tuned lens of this model was found, so the logit lens was used alone; `strobe lens --train` fits one."
    )  # fmt: skip

    def lens() -> Any:
        from strobe.probes.lens import LogitLens, TunedLens

        return TunedLens.load(files[0].path, subject.model) if files else LogitLens()

    def trajectory(tick: Tick) -> Result:
        tick(0, 1, "reading every layer")
        return lens().trajectory(subject.model, list(subject.ids), seed=subject.seed)

    def evaluation(tick: Tick) -> Result:
        tick(0, 1, "held-out tokens")
        if not subject.reads_text:
            return lens().evaluate(subject.model, subject.rows(_JUDGED, 64))
        tokens = work.LibraryTokens(subject.model).tokens("valid")[:_JUDGED]
        return lens().evaluate(subject.model, tokens, context=min(128, subject.most_positions or 128))

    return [
        Part(
            "lens-trajectory", "Layer by layer on the text", trajectory, lambda r: [r.figure(), r.curve_figure()], used
        ),
        Part("lens-evaluation", "On held-out tokens", evaluation),
    ]


ANALYSIS = Analysis(
    name="lens",
    title="Tuned lens",
    question="At which layer does the model know what comes next?",
    about=(
        "Each layer's residual stream is read out as a distribution over the next token: as it is (logit lens, "
        "nostalgebraist 2020), or after an affine map fitted to the model's own output (tuned lens, Belrose et al. "
        "2023). The scrambled lens beside it is ours."
    ),
    parts=_parts,
)
