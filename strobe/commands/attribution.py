"""``strobe attribution MODEL``: which part of a model writes the difference between two answers."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial

from strobe.commands.common import options
from strobe.commands.common.opening import check_out, open_model, text_of, write

SUMMARY = "what each component adds to the logit of one next token against another"
ORDER = 61


def arguments(parser: ArgumentParser) -> None:
    """What can be asked."""
    options.model(parser)
    options.text(parser)
    options.out(parser)
    parser.add_argument("--answer", required=True, help="the token whose logit is shared out, as text")
    parser.add_argument("--other", help="the token it is compared with (default: the mean of all)")
    parser.add_argument("--position", type=int, default=-1, help="the token that predicts (default: the last)")
    parser.add_argument("--accumulated", action="store_true", help="draw what has been added up to each component")
    options.seed(parser)


def run(args: Namespace, say: Callable[[str], None]) -> None:
    """Attribute the difference of the two answers and write the result."""
    from strobe.probes.attribution import direct_logit_attribution

    check_out(args.out)
    text = text_of(args)
    model = open_model(args.model).model
    result = direct_logit_attribution(model, text, args.answer, args.other, position=args.position, seed=args.seed)
    write(result, args.out, say, partial(result.figure, accumulated=args.accumulated))
