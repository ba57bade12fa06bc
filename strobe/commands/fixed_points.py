"""``strobe fixed-points MODEL``: where a layer's carry settles under a held input, and what lies between; as files."""

import functools
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any

from strobe.commands.common import options
from strobe.commands.common.opening import check_out, open_model
from strobe.commands.common.stopping import Tick, write_what_is_found

SUMMARY = "where a recurrence settles under a held input, and what lies between, as a result file and a figure"
ORDER = 60

_WHAT = {
    "points": "the fixed points of a layer, or its closed-form rest if it is linear in its carry",
    "basins": "which stable point random carries come to",
    "directions": "where the recurrence goes when it leaves a saddle",
    "cycles": "carries it comes back to after 1 to 4 steps",
    "curves": "lines and rings of fixed points",
    "stack": "every recurrent layer at rest, and the spectrum of the whole model",
    "training": "the fixed points at each training step that the model came with",
    "block": "depth as time: the block --layer applied to its own output again and again",
    "exponents": "depth as time: how disturbances grow on their way through the blocks",
    "exchange": "depth as time: blocks in each other's place",
}
_FIGURES = ("portrait", "space", "eigenvalues", "timescales", "completeness")


def arguments(parser: ArgumentParser) -> None:
    """What can be asked."""
    options.model(parser)
    said = "; ".join(f"{name}: {about}" for name, about in _WHAT.items())
    parser.add_argument("--what", choices=tuple(_WHAT), default="points", help=f"{said} (default: %(default)s)")
    parser.add_argument("--text", help="the tokens that are held in turn (one: held for ever), or whose depth is asked")
    parser.add_argument(
        "--input", type=float, nargs="+", metavar="X", help="the numbers that are held, of a model that reads numbers"
    )
    parser.add_argument("--layer", type=options.not_negative, help="the block (default: the only recurrent one)")
    parser.add_argument(
        "--initial", type=options.positive, default=512, help="carries to search from (default: %(default)s)"
    )
    parser.add_argument("--figure", choices=_FIGURES, default="portrait", help="of points (default: %(default)s)")
    options.out(parser)
    options.seed(parser)


def run(args: Namespace, say: Callable[[str], None]) -> None:
    """Search or solve, and write the result."""
    check_out(args.out)
    if args.text is not None and args.input is not None:
        raise ValueError("--text and --input were both given; a model reads either tokens or numbers: give one")
    loaded = open_model(args.model)

    def ask(*, progress: Tick, partial: Callable[[Any], None]) -> Any:
        return _answer(args, loaded, progress, partial)

    write_what_is_found(ask, args.out, say, lambda found: _figure(found, args.figure))


def _answer(args: Namespace, loaded: Any, tick: Tick, partial: Callable[[Any], None]) -> Any:
    from strobe.probes import fixed_points as probe

    model, held = loaded.model, args.text if args.input is None else args.input
    reads_text = not getattr(getattr(model, "config", None), "d_input", 0)
    if reads_text and held is None:
        raise ValueError(f"{model.model_name} reads tokens, and none is held; give --text")
    if args.what == "training":
        from strobe.models.zoo.training_steps import load_steps

        steps = load_steps(loaded.source.folder)
        return probe.fixed_points_over_training(
            steps, held=held, n_initial=args.initial, seed=args.seed, progress=tick, partial=partial
        )
    if args.what == "block":
        return probe.depth_orbit(model, held, layers=args.layer, seed=args.seed, progress=tick, partial=partial)
    if args.what == "exponents":
        return probe.layer_exponents(model, held, seed=args.seed)
    if args.what == "exchange":
        return probe.layer_swaps(model, held, seed=args.seed, progress=tick, partial=partial)
    if args.what == "stack":
        return probe.held_stack(model, held, seed=args.seed)
    given = {"held": held, "layer": args.layer}
    if args.what == "cycles":
        return probe.cycles(model, n_initial=args.initial, seed=args.seed, progress=tick, partial=partial, **given)
    if args.what == "points" and _is_linear(model, args.layer):
        return probe.held_fixed_point(model, held, args.layer, seed=args.seed)
    points = probe.fixed_points(model, n_initial=args.initial, seed=args.seed, progress=tick, **given)
    if args.what == "basins":
        return probe.basins(model, points, seed=args.seed, progress=tick, partial=partial, **given)
    if args.what == "directions":
        return probe.unstable_manifolds(model, points, progress=tick, partial=partial, **given)
    if args.what == "curves":
        return probe.continua(model, points, seed=args.seed, progress=tick, partial=partial, **given)
    return points


def _is_linear(model: Any, layer: int | None) -> bool:
    from strobe.probes.fixed_points.held import recurrent_layer
    from strobe.probes.fixed_points.settling import is_linear

    return is_linear(model.mixers[f"blocks.{recurrent_layer(model, layer)}.mixer"])


def _figure(result: Any, which: str) -> Callable[..., Any] | None:
    """The figure of fixed points or of a linear layer that was asked for; None for a result's own."""
    if which == "portrait":
        return None
    if which == "space":
        return functools.partial(result.figure, dimensions=3)
    draw = {
        "eigenvalues": "eigenvalue_figure",
        "timescales": "timescale_figure",
        "completeness": "completeness_figure",
    }[which]
    if not hasattr(result, draw):
        raise ValueError(f"--figure {which} was asked for; a {type(result).__name__} has no such figure: leave it out")
    return getattr(result, draw)
