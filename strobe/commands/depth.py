"""``strobe depth MODEL``: tokens on their way through the blocks, or fewer shared blocks in the place of all."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial
from typing import Any

from strobe.commands.common import options
from strobe.commands.common.opening import check_out, open_model, text_of
from strobe.commands.common.stopping import write_what_is_found

SUMMARY = "depth as time: motion, phases, and surrogates of shared blocks"
ORDER = 67


def arguments(parser: ArgumentParser) -> None:
    """What can be asked."""
    options.model(parser)
    options.text(parser, required=False)
    options.out(parser)
    parser.add_argument(
        "--show", choices=("motion", "updates", "phases"), default="motion", help="the figure (default: %(default)s)"
    )
    parser.add_argument("--phases", type=options.positive, metavar="K", help="with --show phases: mark K of them")
    parser.add_argument(
        "--shared", type=options.positive, nargs="+", metavar="K", help="fit surrogates of K shared blocks instead"
    )
    parser.add_argument("--steps", type=options.positive, help="of their training (default: 200)")
    options.seed(parser)


def run(args: Namespace, say: Callable[[str], None]) -> None:
    """Follow the text given, or held-out library files, through depth; or fit surrogates."""
    from strobe.probes.depth import DepthDynamics, block_recurrence, depth_dynamics

    check_out(args.out)
    if args.steps is not None and not args.shared:
        raise ValueError("--steps was given, and nothing is trained without --shared; leave it out or give --shared")
    if args.phases is not None and (args.show != "phases" or args.shared):
        raise ValueError("--phases marks phases in a figure of them; give --show phases with it, and not --shared")
    text = None if args.text is None and args.text_file is None else text_of(args)
    model = open_model(args.model).model
    if args.shared:
        steps = args.steps or 200
        ask = partial(block_recurrence, model, text, k=args.shared, steps=steps, seed=args.seed)
        write_what_is_found(ask, args.out, say)
        return
    draw: dict[str, Callable[[DepthDynamics], Callable[..., Any]]] = {
        "motion": lambda result: result.figure,
        "updates": lambda result: result.update_figure,
        "phases": lambda result: partial(result.similarity_figure, "state", args.phases),
    }
    write_what_is_found(partial(depth_dynamics, model, text, seed=args.seed), args.out, say, draw[args.show])
