"""``strobe lens MODEL``: a trajectory through the layers, as a file and a figure."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from strobe.commands.common import options
from strobe.commands.common.opening import check_out, open_model, text_of, write
from strobe.commands.common.progress import progress
from strobe.dashboards import work
from strobe.dashboards.loading import Loaded

SUMMARY = "what a model would predict after each layer, as a result file and a figure"
ORDER = 40


def arguments(parser: ArgumentParser) -> None:
    """What can be asked."""
    options.model(parser)
    options.text(parser)
    options.out(parser)
    parser.add_argument(
        "--lens", metavar="FILE", help="a tuned lens to use (default: one trained here or bundled, if any)"
    )
    parser.add_argument("--logit", action="store_true", help="the logit lens alone, even where there is a tuned one")
    parser.add_argument("--train", action="store_true", help="fit a tuned lens first and keep it")
    parser.add_argument("--steps", type=options.positive, default=400, help="steps of the fit (default: %(default)s)")
    parser.add_argument("--statistic", choices=("kl", "entropy", "cross_entropy", "rank", "probability"), default="kl")
    options.seed(parser)


def run(args: Namespace, say: Callable[[str], None]) -> None:
    """Read the text with a lens (fitting one first if asked) and write the result."""
    check_out(args.out)
    text = text_of(args)
    if args.logit and (args.train or args.lens):
        raise ValueError("--logit asks for no tuned lens, and --train or --lens for one; give one of them")
    loaded = open_model(args.model)
    lens = _lens(args, loaded, say)
    result = lens.trajectory(loaded.model, text, seed=args.seed)
    write(result, args.out, say, partial(result.figure, args.statistic))


def _lens(args: Namespace, loaded: Loaded, say: Callable[[str], None]) -> Any:
    from strobe.probes.lens import LogitLens, TunedLens

    if args.logit:
        return LogitLens()
    kept = work.lens_home(loaded)
    if args.train:
        path = Path(args.lens) if args.lens else kept
        work.fit_lens_of(loaded.model, path, progress(), steps=args.steps, seed=args.seed)
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
