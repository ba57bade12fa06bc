"""``strobe geometry MODEL``: every block's update against tokenwise maps, as a file and a figure."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial
from typing import Any

from strobe.commands.common import options
from strobe.commands.common.opening import check_out, open_model, text_of
from strobe.commands.common.stopping import write_what_is_found

SUMMARY = "how much of each block's update its token alone says, and what the rest does"
ORDER = 66

_MEASURES = ("cosine", "angle", "error", "energy", "energy_residual", "cosine_residual")


def arguments(parser: ArgumentParser) -> None:
    """What can be asked."""
    options.model(parser)
    options.text(parser, required=False)
    options.out(parser)
    parser.add_argument("--layers", type=options.not_negative, nargs="+", metavar="N", help="blocks (default: all)")
    parser.add_argument("--bank", type=options.positive, default=4096, help="tokens to fit on (default: %(default)s)")
    parser.add_argument(
        "--judged", type=options.positive, default=512, help="tokens to judge by (default: %(default)s)"
    )
    parser.add_argument(
        "--neighbours", type=options.positive, default=64, metavar="K", help="of each token (default: %(default)s)"
    )
    parser.add_argument("--rank", type=options.positive, default=8, help="of low-rank updates (default: %(default)s)")
    parser.add_argument(
        "--horizon", type=options.positive, default=1, help="tokens whose divergences are added (default: %(default)s)"
    )
    parser.add_argument(
        "--show", choices=(*_MEASURES, "correlation"), default="cosine", help="the figure (default: %(default)s)"
    )
    options.seed(parser)


def run(args: Namespace, say: Callable[[str], None]) -> None:
    """Measure the blocks, on the text given or on held-out library files, and write the result."""
    from strobe.probes.geometry import LayerGeometry, layer_geometry

    check_out(args.out)
    text = None if args.text is None and args.text_file is None else text_of(args)
    ask = partial(
        layer_geometry,
        open_model(args.model).model,
        text,
        layers=args.layers,
        n_bank=args.bank,
        n_judged=args.judged,
        k=args.neighbours,
        rank=args.rank,
        horizon=args.horizon,
        seed=args.seed,
    )

    def draw(result: LayerGeometry) -> Callable[..., Any]:
        return result.correlation_figure if args.show == "correlation" else partial(result.figure, args.show)

    write_what_is_found(ask, args.out, say, draw)
