"""``strobe dynamics WHAT``: exponents, timescales, modes and waves of a layer along a text, and the case studies."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any

from strobe.commands.common import options
from strobe.commands.common.opening import check_out, open_model, text_of
from strobe.commands.common.stopping import Tick, write_what_is_found

SUMMARY = "Lyapunov exponents, timescales, modes and waves of a layer, and case studies that train here"
ORDER = 56

_WHAT = ("exponents", "timescales", "modes", "waves")


def arguments(parser: ArgumentParser) -> None:
    """What can be asked."""
    kinds = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    said = {
        "exponents": "how fast two carries that read the same text part or meet",
        "timescales": "for how long each unit of the carry resembles itself",
        "modes": "the linear map that best advances the carry, and what it predicts",
        "waves": "whether activity moves across the units",
    }
    for name in _WHAT:
        one = kinds.add_parser(name, help=said[name], description=said[name])
        options.model(one)
        options.text(one)
        one.add_argument("--layer", type=options.not_negative, help="block (default: the only recurrent one)")
        if name == "modes":
            one.add_argument("--rank", type=options.positive, help="principal axes kept (default: all)")
            one.add_argument(
                "--delays", type=options.positive, default=1, help="steps per state (default: %(default)s)"
            )
        options.out(one)
        options.seed(one)
    again = "do it again here (minutes) instead of opening what is bundled"
    case = kinds.add_parser(
        "case", help="a case study: open its bundled run, or do it again", description="A case study."
    )
    # Written out, so that --help needs no torch; a test holds the list to the package's.
    case.add_argument("name", choices=("hmm", "curricula", "abrupt", "lorenz", "words", "onion"))
    case.add_argument("--train", action="store_true", help=again)
    case.add_argument(
        "--keep", metavar="FOLDER", help="with --train: keep the trainings here, and go on from what is kept"
    )
    options.out(case)


def run(args: Namespace, say: Callable[[str], None]) -> None:
    """Open or compute what was asked, and write the result."""
    check_out(args.out)

    def ask(*, progress: Tick, partial: Callable[[Any], None]) -> Any:
        return (_case if args.what == "case" else _of_layer)(args, progress, partial)

    write_what_is_found(ask, args.out, say)


def _case(args: Namespace, tick: Tick, partial: Callable[[Any], None]) -> Any:
    from strobe.probes.dynamics import case_studies

    if args.keep is not None and not args.train:
        raise ValueError(f"--keep {args.keep} was given without --train, which makes what would be kept; give both")
    if not args.train:
        return case_studies.bundled(args.name)
    try:
        return case_studies.make(args.name, progress=tick, keep=args.keep)
    except KeyboardInterrupt:
        # Not by `keeping`: a training is written after the watcher has raised.
        if args.keep is not None and (made := case_studies.so_far(args.name, args.keep)) is not None:
            partial(made)
        raise


def _of_layer(args: Namespace, tick: Tick, partial: Callable[[Any], None]) -> Any:
    text = text_of(args)
    from strobe.probes import dynamics
    from strobe.probes.dynamics.activity import layer_activity

    model = open_model(args.model).model
    if args.what == "exponents":
        how: dict[str, Any] = {"progress": tick, "partial": partial}
        return dynamics.driven_lyapunov_spectrum(model, text, layer=args.layer, seed=args.seed, **how)
    tick(0, 2, "reading the text")
    activity, provenance = layer_activity(model, text, layer=args.layer)
    system = f"the carry of layer {provenance.settings['layer']} of {model.model_name}"
    known = {"system": system, "provenance": provenance}
    tick(1, 2, f"{args.what} of {system}")
    if args.what == "timescales":
        return dynamics.autocorrelation_timescales(activity, seed=args.seed, **known)
    if args.what == "modes":
        return dynamics.dynamic_modes(activity, rank=args.rank, delays=args.delays, **known)
    return dynamics.travelling_waves(activity[0], seed=args.seed, **known)
