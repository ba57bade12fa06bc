"""``strobe memory MODEL``: a carry far beyond training, what it holds, and what changing it repairs."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from strobe.commands.common import options
from strobe.commands.common.opening import check_out, open_model, text_of
from strobe.commands.common.stopping import Tick, write_what_is_found
from strobe.core.result import Result
from strobe.dashboards import memory_work

SUMMARY = "state collapse, forgetting and capacity: the carry, or the loss, far beyond the training length"
ORDER = 68


def arguments(parser: ArgumentParser) -> None:
    """What can be asked."""
    options.model(parser)
    options.out(parser)
    options.text(parser, required=False)
    parser.add_argument(
        "--analysis",
        choices=tuple(memory_work.ANALYSES),
        default="carry",
        help="what to measure (default: %(default)s)",
    )
    parser.add_argument("--tokens", type=options.positive, default=4096, help="tokens in a row (default: %(default)s)")
    parser.add_argument("--rows", type=options.positive, default=4, help="rows, averaged over (default: %(default)s)")
    parser.add_argument(
        "--train-length",
        type=options.positive,
        help="tokens in a training sequence (default: as the model's config says)",
    )
    parser.add_argument(
        "--every", type=options.positive, help="with mitigations: tokens between two (default: the training length)"
    )
    parser.add_argument("--layer", type=options.not_negative, default=0, help="with curve (default: %(default)s)")
    options.seed(parser)


def run(args: Namespace, say: Callable[[str], None]) -> None:
    """Run the analysis on held-out text, the model's own task or the text given, and write its result."""
    from strobe.probes.memory.streaming import train_length_of

    check_out(args.out)
    text = text_of(args) if args.text is not None or args.text_file is not None else None
    model = open_model(args.model).model
    length = train_length_of(model, args.train_length)
    settings = {
        "rows": args.rows, "time": args.tokens, "train_length": length, "every": args.every or length,
        "layer": args.layer,
    }  # fmt: skip

    def ask(*, progress: Tick, partial: Callable[[Result], None]) -> Result:
        return memory_work.analyse(model, args.analysis, settings, progress, text=text, seed=args.seed, partial=partial)

    write_what_is_found(ask, args.out, say)
