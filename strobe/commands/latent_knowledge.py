"""``strobe latent-knowledge MODEL``: which probes find what is true where the model's answer is not."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from strobe.commands.common import options
from strobe.commands.common.opening import check_out, open_model
from strobe.commands.common.stopping import write_what_is_found

SUMMARY = "which probes find what is true where a model's answer is not"
ORDER = 62


def arguments(parser: ArgumentParser) -> None:
    """What can be asked."""
    options.model(parser)
    options.out(parser)
    parser.add_argument(
        "--problems",
        type=Path,
        metavar="FILE",
        help="JSON with answers, train and test problems by context (default: the sums of a quirky model)",
    )
    parser.add_argument("--point", default="resid_post", help="hook point, or carry (default: %(default)s)")
    parser.add_argument("--layers", type=int, nargs="+", metavar="N", help="layers to probe (default: all)")
    parser.add_argument("--probes", nargs="+", metavar="NAME", help="of lr, mean, lda, ccs, crc, vinc (default: all)")
    parser.add_argument("--train-in", metavar="CONTEXT", help="for the figure: context fitted in (default: the first)")
    parser.add_argument(
        "--test-in", metavar="CONTEXT", help="for the figure: context tested in (default: the least truthful)"
    )
    parser.add_argument("--transfer", action="store_true", help="draw the transfer tables instead of AUROC by layer")
    options.seed(parser)


def run(args: Namespace, say: Callable[[str], None]) -> None:
    """Fit and test the probes and write the result."""
    from strobe.probes.latent_knowledge import PROBES, LatentKnowledge, latent_knowledge, load_problems, study_of

    check_out(args.out)
    study = None if args.problems is None else load_problems(args.problems)
    model = open_model(args.model).model
    ask = partial(
        latent_knowledge,
        model,
        study or study_of(model, seed=args.seed),
        point=args.point,
        layers=args.layers,
        probes=args.probes or PROBES,
        seed=args.seed,
    )

    def draw(result: LatentKnowledge) -> Callable[..., Any]:
        return result.transfer_figure if args.transfer else partial(result.figure, args.train_in, args.test_in)

    write_what_is_found(ask, args.out, say, draw)
