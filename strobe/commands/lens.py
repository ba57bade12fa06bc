"""``strobe lens MODEL``: a trajectory through the layers, or what blocks do to the loss, as a file and a figure."""

import functools
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from strobe.commands.common import options
from strobe.commands.common.opening import check_out, open_model, text_of
from strobe.commands.common.stopping import Tick, write_what_is_found
from strobe.dashboards import work
from strobe.dashboards.loading import Loaded

SUMMARY = "what a model would predict after each layer, as a result file and a figure"
ORDER = 40


def arguments(parser: ArgumentParser) -> None:
    """What can be asked."""
    options.model(parser)
    options.text(parser, required=False)
    options.out(parser)
    parser.add_argument(
        "--lens", metavar="FILE", help="a tuned lens to use (default: one trained here or bundled, if any)"
    )
    parser.add_argument("--logit", action="store_true", help="the logit lens alone, even where there is a tuned one")
    parser.add_argument("--train", action="store_true", help="fit a tuned lens first and keep it")
    parser.add_argument("--steps", type=options.positive, default=400, help="steps of the fit (default: %(default)s)")
    parser.add_argument("--statistic", choices=("kl", "entropy", "cross_entropy", "rank", "probability"), default="kl")
    views = parser.add_argument_group("other questions, in place of the trajectory").add_mutually_exclusive_group()
    views.add_argument(
        "--iterative", action="store_true",
        help="does each block go downhill in the loss? Of the text, or of held-out library files where none is given",
    )  # fmt: skip
    views.add_argument(
        "--delete", action="store_true", help="the same result, drawn as the loss with each block left out"
    )
    views.add_argument(
        "--coda", type=options.not_negative, nargs=3, metavar=("PRELUDE", "CORE", "CODA"),
        help="ranks by block and step of a depth-recurrent model: how many blocks each part has",
    )  # fmt: skip
    options.seed(parser)


def run(args: Namespace, say: Callable[[str], None]) -> None:
    """Read the text with a lens (fitting one first if asked) and write the result."""
    check_out(args.out)
    given = args.text is not None or args.text_file is not None
    if not given and not (args.iterative or args.delete):
        raise ValueError("a trajectory and the coda lens are of a text, and none was given; give --text or --text-file")
    text = text_of(args) if given else None
    if args.logit and (args.train or args.lens):
        raise ValueError("--logit asks for no tuned lens, and --train or --lens for one; give one of them")
    if args.coda and (args.logit or args.lens or args.train):
        raise ValueError("--coda reads by logit and coda lens; leave out --logit, --lens and --train")
    loaded = open_model(args.model)

    def ask(*, progress: Tick, partial: Callable[[Any], None]) -> Any:
        return _answer(args, loaded, text, say, progress, partial)

    write_what_is_found(ask, args.out, say, lambda found: _figure(args, found))


def _answer(
    args: Namespace,
    loaded: Loaded,
    text: str | None,
    say: Callable[[str], None],
    tick: Tick,
    partial: Callable[[Any], None],
) -> Any:
    if args.coda:
        from strobe.probes.lens import LoopedBlocks, coda_lens

        return coda_lens(LoopedBlocks(loaded.model, *args.coda), text, seed=args.seed, on_progress=tick)
    lens = _lens(args, loaded, say, tick)
    if args.iterative or args.delete:
        from strobe.probes.lens import iterative_inference

        return iterative_inference(loaded.model, text, lens=lens, seed=args.seed, on_progress=tick, partial=partial)
    return lens.trajectory(loaded.model, text, seed=args.seed)


def _figure(args: Namespace, found: Any) -> Callable[..., Any] | None:
    """The figure that was asked for; None for a result's own."""
    if args.delete:
        return found.deletion_figure
    return None if args.coda or args.iterative else functools.partial(found.figure, args.statistic)


def _lens(args: Namespace, loaded: Loaded, say: Callable[[str], None], tick: Tick) -> Any:
    from strobe.probes.lens import LogitLens, TunedLens

    if args.logit:
        return LogitLens()
    kept = work.lens_home(loaded)
    if args.train:
        path = Path(args.lens) if args.lens else kept
        stopped: Callable[[Path], None] = lambda file: say(f"stopped; the lens as it was is in {file}")
        work.fit_lens_of(loaded.model, path, tick, steps=args.steps, seed=args.seed, cut_short=stopped)
        say(f"wrote {path}")
        return TunedLens.load(path, loaded.model)
    if args.lens:
        return TunedLens.load(args.lens, loaded.model)
    found = work.lens_files(loaded)
    if not found:
        say("no tuned lens for this model; reading with the logit lens (--train fits one)")
        return LogitLens()
    say(f"tuned lens: {found[0].label}, {found[0].path}")
    return TunedLens.load(found[0].path, loaded.model)
