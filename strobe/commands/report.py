"""``strobe report MODEL``: all six analyses of a model on one page that needs no network."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

from strobe.commands.common import options
from strobe.commands.common.opening import open_model, text_of
from strobe.commands.common.progress import progress

SUMMARY = "all six analyses of a model, each beside its control, as one offline HTML page"
ORDER = 90

_ANALYSES = ("lens", "steering", "features", "geometry", "collapse", "fixed-points")


def arguments(parser: ArgumentParser) -> None:
    """What can be asked."""
    options.model(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the page, .html")
    options.text(parser, required=False)
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FOLDER",
        help="keep every result there; a run that was interrupted goes on from those",
    )
    parser.add_argument("--only", nargs="+", choices=_ANALYSES, metavar="NAME", help=f"of {', '.join(_ANALYSES)}")
    parser.add_argument(
        "--train-length", type=options.positive, help="tokens in a training sequence (default: as its config says)"
    )
    options.seed(parser)


def run(args: Namespace, say: Callable[[str], None]) -> None:
    """Make the report and write its page. Raises RuntimeError, after it is written, if an analysis failed."""
    from strobe.core.atomic import write_text
    from strobe.dashboards.report import make_report, page_of, subject_of

    if args.out.suffix.lower() != ".html":
        raise ValueError(f"--out {args.out} has the suffix {args.out.suffix or 'none'!r}; a report is a page: .html")
    if not args.out.parent.is_dir():
        raise ValueError(f"--out {args.out}: there is no folder {args.out.parent}; make it first")
    text = text_of(args) if args.text is not None or args.text_file is not None else None
    subject = subject_of(open_model(args.model), text=text, train_length=args.train_length, seed=args.seed)
    report = make_report(subject, analyses=args.only, results=args.results, progress=progress(), say=say)
    write_text(args.out, page_of(report))
    say(f"wrote {args.out}")
    if failed := report.failed:
        names = ", ".join(s.analysis.name for s in failed)
        raise RuntimeError(
            f"{len(failed)} of {len(report.sections)} analyses failed, in whole or in part: {names}; the page says "
            "what happened, and holds the others"
        ) from failed[0].errors[0]
