"""The command line: what can be asked, and how an answer or an error is told. Each command is a file in
`strobe.commands`.

Nothing heavy is imported until a command runs, so that ``strobe --help`` answers at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from strobe import __version__

# What a user can mend is one line and this status; anything else is a fault of ours.
_USERS, _OURS, _INTERRUPTED = 2, 1, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Errors are one line on stderr, with a traceback under ``--debug``."""
    parser = build_parser()
    args = parser.parse_args(argv)
    command = args.command or "app"
    if args.command is None:
        args = parser.parse_args(["app", *(["--debug"] if args.debug else [])])
    try:
        import_module(f"strobe.commands.{command}").run(args, _say)
    except KeyboardInterrupt:
        print("strobe: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; nothing is left to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if args.debug:
            raise
        from strobe.dashboards.problems import is_users

        # One line: the first says what was asked and found; a foreign message may go on for pages.
        said = " ".join(str(error).split()) or type(error).__name__
        expected = is_users(error) or isinstance(error, OSError | RuntimeError)
        print(f"strobe {command}: {said if expected else f'{type(error).__name__}: {said}'}", file=sys.stderr)
        if not expected:
            print("strobe: this is unexpected; --debug shows where it happened", file=sys.stderr)
        return _USERS if expected else _OURS
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser with every command."""
    debug = argparse.ArgumentParser(add_help=False)
    debug.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = argparse.ArgumentParser(
        prog="strobe",
        description="See, and change, what a sequence model carries from one token to the next.",
        epilog="Without a command the dashboard is opened.",
    )
    parser.add_argument("--version", action="version", version=f"strobe {__version__}")
    parser.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def add(name: str, summary: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=summary, description=summary, parents=[debug])

    _app(add("app", "open the dashboard in a browser, on this machine only"))
    _models(add("models", "list the bundled models"))
    _info(add("info", "what a model is made of, and its card"))
    _lens(add("lens", "what a model would predict after each layer, as a result file and a figure"))
    _states(add("states", "what a layer carries along a text, and what changing it does"))
    _train(add("train", "make a bundled model again, from its recipe"))
    _doctor(add("doctor", "versions, scan backends, browser, and which Hugging Face families work here"))
    return parser


def _app(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", metavar="MODEL", help="bundled name or folder to begin with")
    parser.add_argument("--port", type=_port, help="port to listen on (default: the first free one from 8501)")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine only)"
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")


def _models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")


def _info(parser: argparse.ArgumentParser) -> None:
    _model(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def _lens(parser: argparse.ArgumentParser) -> None:
    _model(parser)
    _text(parser)
    _out(parser)
    parser.add_argument(
        "--lens", metavar="FILE", help="a tuned lens to use (default: one trained here or bundled, if any)"
    )
    parser.add_argument("--logit", action="store_true", help="the logit lens alone, even where there is a tuned one")
    parser.add_argument("--train", action="store_true", help="fit a tuned lens first and keep it")
    parser.add_argument("--steps", type=_positive, default=400, help="steps of the fit (default: %(default)s)")
    parser.add_argument("--statistic", choices=("kl", "entropy", "cross_entropy", "rank", "probability"), default="kl")
    _seed(parser)


def _states(parser: argparse.ArgumentParser) -> None:
    _model(parser)
    _text(parser)
    _out(parser)
    parser.add_argument("--layer", type=int, required=True, help="block whose carry is looked at, from 0")
    parser.add_argument("--edit", choices=("scale", "zero", "splice"), help="change the carry (default: only look)")
    parser.add_argument("--position", type=int, default=-1, help="token after which it is changed (default: the last)")
    parser.add_argument("--value", type=float, help="what --edit scale multiplies the carry by")
    parser.add_argument("--splice-text", metavar="TEXT", help="text whose carry --edit splice puts in")
    parser.add_argument(
        "--new-tokens", type=_not_negative, default=24, help="tokens to continue with (default: %(default)s)"
    )
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default: %(default)s)")
    parser.add_argument(
        "--controls", type=_positive, default=8, help="random edits of equal norm (default: %(default)s)"
    )
    _seed(parser)


def _train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of a recipe")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the model goes")


def _doctor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")


def _model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="bundled name, folder with a checkpoint, or hub id")


def _text(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--text", help="the text to look at")
    group.add_argument("--text-file", type=Path, metavar="FILE", help="a UTF-8 file that holds it")


def _out(parser: argparse.ArgumentParser) -> None:
    suffixes = "its suffix says what: .html, .json, .png, .svg, .pdf a figure, .csv the table, .safetensors the result"
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help=f"{suffixes}; beside a figure the result is kept too"
    )


def _seed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, help="of every random choice (default: %(default)s)")


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is no port; give 1 to 65535")
    return port


def _positive(text: str) -> int:
    return _at_least(1, text)


def _not_negative(text: str) -> int:
    return _at_least(0, text)


def _at_least(low: int, text: str) -> int:
    number = int(text)
    if number < low:
        raise argparse.ArgumentTypeError(f"{number} is too small; give {low} or more")
    return number


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
