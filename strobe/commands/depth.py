"""``strobe depth MODEL``: tokens on their way through the blocks, or fewer shared blocks in the place of all."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial

from strobe.commands.common import options
from strobe.commands.common.opening import check_out, open_model, text_of, write
from strobe.commands.common.progress import progress

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
    from strobe.probes.depth import block_recurrence, depth_dynamics

    check_out(args.out)
    if args.steps is not None and not args.shared:
        raise ValueError("--steps was given, and nothing is trained without --shared; leave it out or give --shared")
    if args.phases is not None and (args.show != "phases" or args.shared):
        raise ValueError("--phases marks phases in a figure of them; give --show phases with it, and not --shared")
    text = None if args.text is None and args.text_file is None else text_of(args)
    model = open_model(args.model).model
    if args.shared:
        steps = args.steps or 200
        result = block_recurrence(model, text, k=args.shared, steps=steps, seed=args.seed, progress=progress())
        write(result, args.out, say)
        return
    result = depth_dynamics(model, text, seed=args.seed, progress=progress())
    draw = {
        "motion": result.figure,
        "updates": result.update_figure,
        "phases": partial(result.similarity_figure, "state", args.phases),
    }
    write(result, args.out, say, draw[args.show])
