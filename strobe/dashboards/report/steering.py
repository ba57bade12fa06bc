"""The report's second analysis: a contrast vector swept over layers and multipliers, beside random directions."""

from strobe.core.result import Result
from strobe.dashboards import steering_work
from strobe.dashboards.jobs import Tick
from strobe.dashboards.report.analysis import Analysis, DoesNotApply, Part
from strobe.dashboards.report.subject import Subject

_CONTRAST, _PAIRS, _QUESTIONS, _RANDOM, _LARGEST = "naming", 60, 16, 2, 3.0


def _parts(subject: Subject) -> list[Part]:
    if not subject.reads_text:
        raise DoesNotApply(
            f"The bundled contrast sets are texts, and {subject.name} came without a tokenizer to read them."
        )

    def sweep(tick: Tick) -> Result:
        from strobe.probes.steering import contrast_set, contrast_vector, steering_sweep

        contrast = contrast_set(_CONTRAST, n_pairs=_PAIRS, n_questions=_QUESTIONS, seed=subject.seed)
        points = {"residual": "resid_post", **({"state": "carry"} if subject.recurrent else {})}
        vectors = {
            name: contrast_vector(subject.model, contrast.pairs, point=point, progress=tick)
            for name, point in points.items()
        }
        return steering_sweep(
            subject.model,
            vectors,
            contrast.questions,
            multipliers=steering_work.multipliers(_LARGEST),
            labels=(contrast.positive, contrast.negative),
            n_random=_RANDOM,
            seed=subject.seed,
            progress=tick,
        )

    place = "the residual stream and the carry" if subject.recurrent else "the residual stream (there is no carry)"
    note = (
        f"The bundled contrast set {_CONTRAST!r}: snake_case against camelCase names in {_PAIRS} pairs of held-out "
        f"library lines, {_QUESTIONS} other lines as questions; a vector of every layer, in {place}."
    )
    return [Part("steering-sweep", "Layers by multipliers", sweep, lambda r: [r.figure()], note)]


ANALYSIS = Analysis(
    name="steering",
    title="Activation steering",
    question="Can behaviour be moved by a direction in what the model computes, or in what it carries?",
    about=(
        "The mean difference of contrast pairs (Rimsky et al. 2023) is added at one layer, to the residual stream or, "
        "as Paulo et al. 2024 tried, to the carry. The contrast set, the fluency guard and the random directions of "
        "equal norm are ours."
    ),
    parts=_parts,
)
