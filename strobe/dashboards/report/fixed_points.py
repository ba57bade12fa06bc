"""The report's sixth analysis: where a recurrence comes to rest under a held input; without one, depth as time."""

from typing import Any

from strobe.core.result import Result
from strobe.dashboards.jobs import Tick
from strobe.dashboards.report.analysis import Analysis, DoesNotApply, Part
from strobe.dashboards.report.subject import Subject

_INITIAL, _TOKENS, _TIMES = 128, 16, 100


def _parts(subject: Subject) -> list[Part]:
    return _held(subject) if subject.recurrent else _depth(subject)


def _held(subject: Subject) -> list[Part]:
    from strobe.probes.fixed_points.held import NONLINEAR

    model = subject.model
    what: Any = None if subject.d_input else [subject.ids[-1]]

    def stack(tick: Tick) -> Result:
        from strobe.probes.fixed_points import held_stack
        from strobe.probes.fixed_points.settling import NoRest

        tick(0, 1, "bringing every layer to rest")
        try:
            return held_stack(model, what, seed=subject.seed)
        except NoRest as error:
            raise DoesNotApply(f"Not every layer comes to rest: {error}.") from error

    parts = [Part("held-stack", "Every layer at rest", stack)]
    searched = [i for i in subject.recurrent if model.mixers[f"blocks.{i}.mixer"].family.name in NONLINEAR]
    if searched:

        def search(tick: Tick) -> Result:
            from strobe.probes.fixed_points import fixed_points

            return fixed_points(
                model, held=what, layer=searched[0], n_initial=_INITIAL, seed=subject.seed, progress=tick
            )

        note = f"Layer {searched[0]} is nonlinear in its carry: its fixed points are searched, from {_INITIAL} carries."
        parts.append(
            Part("fixed-points", "Points of one layer", search, lambda r: [r.figure(), r.eigenvalue_figure()], note)
        )
    return parts


def _depth(subject: Subject) -> list[Part]:
    model, text = subject.model, list(subject.ids[:_TOKENS])

    def motion(tick: Tick) -> Result:
        from strobe.probes.depth import depth_dynamics

        return depth_dynamics(model, None if subject.reads_text else subject.rows(2048, 64), seed=subject.seed,
                              progress=tick)  # fmt: skip

    def exponents(tick: Tick) -> Result:
        from strobe.probes.fixed_points import layer_exponents

        tick(0, 1, "Jacobians of every block")
        return layer_exponents(model, text, seed=subject.seed)

    def orbit(tick: Tick) -> Result:
        from strobe.probes.fixed_points import depth_orbit

        middle = (subject.loaded.n_layers - 1) // 2
        return depth_orbit(model, text, layers=middle, steps=_TIMES, seed=subject.seed, progress=tick)

    note = "No block carries a state on, so that no carry stands still under a held token; depth is taken for time."
    return [
        Part("depth-dynamics", "Motion through depth", motion, note=note),
        Part("layer-exponents", "How disturbances grow from block to block", exponents),
        Part("depth-orbit", "One block applied again and again", orbit),
    ]


ANALYSIS = Analysis(
    name="fixed-points",
    title="Dynamical fixed points",
    question="Where would the recurrence come to rest if the input stopped changing?",
    about=(
        "A fixed point is a carry that one step under a held input leaves where it is; its eigenvalues say which "
        "disturbances fade, and how fast (Sussillo & Barak 2013). A layer linear in its carry is solved and not "
        "searched, which is ours, as is depth in the place of time where nothing recurs."
    ),
    parts=_parts,
)
