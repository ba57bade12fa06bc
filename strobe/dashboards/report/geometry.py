"""The report's fourth analysis: what of a block's update its token alone says."""

from strobe.core.result import Result
from strobe.dashboards.jobs import Tick
from strobe.dashboards.report.analysis import Analysis, DoesNotApply, Part
from strobe.dashboards.report.subject import Subject

_BANK, _JUDGED, _CONTEXT = 2048, 256, 64


def _parts(subject: Subject) -> list[Part]:
    if subject.d_input:
        raise DoesNotApply(
            f"{subject.name} reads {subject.d_input} real numbers a step; the maps are fitted on tokens."
        )

    def measure(tick: Tick) -> Result:
        from strobe.probes.geometry import layer_geometry

        tokens = None if subject.reads_text else subject.rows(2 * (_BANK + _JUDGED), _CONTEXT)
        return layer_geometry(subject.model, tokens, n_bank=_BANK, n_judged=_JUDGED, seed=subject.seed, progress=tick)

    return [
        Part(
            "layer-geometry",
            "Every block against tokenwise maps",
            measure,
            lambda r: [r.figure("cosine"), r.correlation_figure()],
        )
    ]


ANALYSIS = Analysis(
    name="geometry",
    title="Layer-update geometry",
    question="Does a block move each token by itself, and does it matter where it does not?",
    about=(
        "A tokenwise map sees one token's vector and nothing of the others; what it cannot predict of a block's output "
        "is the residual (Yoo 2026). The same of the update, beside the state that a block hardly changes, and the "
        "controls are ours."
    ),
    parts=_parts,
)
