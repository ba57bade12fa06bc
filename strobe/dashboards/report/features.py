"""The report's third analysis: features of a sparse autoencoder and repetition; without one, repetition alone."""

from strobe.core.result import Result, load_result
from strobe.dashboards import features_work, repetition_work
from strobe.dashboards.jobs import Tick
from strobe.dashboards.report.analysis import Analysis, DoesNotApply, Part
from strobe.dashboards.report.subject import Subject

_JUDGED, _CONTINUED = 4096, 200


def _parts(subject: Subject) -> list[Part]:
    if subject.d_input:
        raise DoesNotApply(
            f"{subject.name} reads {subject.d_input} real numbers a step: it writes nothing that could repeat itself."
        )
    parts = []
    found = repetition_work.features_file(subject.loaded.source)
    if found is not None:

        def came_with(tick: Tick) -> Result:
            return load_result(found)

        note = "Found when the model was made, and bundled with it: this is not run again for a report."
        parts.append(
            Part(
                "repetition-features",
                "Features turned up and taken out",
                came_with,
                lambda r: [r.figure(), r.ablation_figure()],
                note,
            )
        )
    autoencoders = features_work.sae_files(subject.loaded) if subject.reads_text else []
    if autoencoders:
        file = autoencoders[0]

        def evaluation(tick: Tick) -> Result:
            from strobe.probes.sae import evaluate_sae

            sae = features_work.open_sae(subject.loaded, file)
            text = features_work.python_text(subject.loaded)
            return evaluate_sae(subject.model, sae, text, n_tokens=_JUDGED, seed=subject.seed, on_progress=tick)

        parts.append(
            Part(
                "sae-evaluation",
                "What the autoencoder keeps of the model",
                evaluation,
                note=f"The autoencoder {file.label}.",
            )
        )
    return [*parts, *_repetition(subject, without=not autoencoders)]


def _repetition(subject: Subject, *, without: bool) -> list[Part]:
    most = subject.most_positions
    new = _CONTINUED if most is None else min(_CONTINUED, most - len(subject.ids))

    def heads(tick: Tick) -> Result:
        from strobe.probes.repetition import head_scores

        return head_scores(subject.model, seed=subject.seed, progress=tick)

    def loop(tick: Tick) -> Result:
        from strobe.probes.repetition import greedy_loop

        return greedy_loop(subject.model, list(subject.ids), max_new_tokens=new, seed=subject.seed, progress=tick)

    note = (
        "No sparse autoencoder of this model was found (`strobe sae --train` fits one), so repetition is measured "
        "without features."
        if without
        else ""
    )
    if new < 8:
        note += f" Greedy decoding was left out: the text fills all but {new} of the {most} positions that it learned."
        return [Part("head-scores", "What looks back at a repeat", heads, note=note.strip())]
    return [
        Part("head-scores", "What looks back at a repeat", heads, note=note),
        Part("greedy-loop", "Where greedy decoding goes", loop, lambda r: [r.figure()] if r.period else []),
    ]


ANALYSIS = Analysis(
    name="features",
    title="SAE and repetition features",
    question="Which features does the model compute with, and what makes it repeat itself?",
    about=(
        "Features of a sparse autoencoder turned up one by one: does the model then repeat itself (Yao et al. 2025)? "
        "Beside them, which heads look back at a repeat (Olsson et al. 2022), and the loop that greedy decoding falls "
        "into. The bar that a confirmed feature has to clear, the scores of recurrent heads by their effective "
        "attention, and the loop as a cycle of the carry are ours."
    ),
    parts=_parts,
)
