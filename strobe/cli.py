"""The command line: what can be asked, and how an answer or an error is told. Each command is a file in
`strobe.commands`.

Nothing heavy is imported until a command runs, so that ``strobe --help`` answers at once.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from strobe import __version__
from strobe.commands import commands

# What a user can mend is one line and this status; anything else is a fault of ours.
_USERS, _OURS, _INTERRUPTED = 2, 1, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Errors are one line on stderr, with a traceback under ``--debug``."""
    said = list(sys.argv[1:] if argv is None else argv)
    # The first word that is no option; no option of the program itself takes a value.
    command = next((word for word in said if not word.startswith("-")), None)
    args = build_parser(command).parse_args(said)
    if args.command is None:
        command = "app"
        args = build_parser(command).parse_args([command, *(["--debug"] if args.debug else [])])
    try:
        import_module(f"strobe.commands.{commands()[args.command].module}").run(args, _say)
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
        told = " ".join(str(error).split()) or type(error).__name__
        expected = is_users(error) or isinstance(error, OSError | RuntimeError)
        print(f"strobe {command}: {told if expected else f'{type(error).__name__}: {told}'}", file=sys.stderr)
        if not expected:
            print("strobe: this is unexpected; --debug shows where it happened", file=sys.stderr)
        return _USERS if expected else _OURS
    return 0


def build_parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """The parser with every command, and the options of the one that was `chosen`: the others stay unloaded."""
    debug = argparse.ArgumentParser(add_help=False)
    debug.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = argparse.ArgumentParser(
        prog="strobe",
        description="See, and change, what a sequence model carries from one token to the next.",
        epilog="Without a command the dashboard is opened.",
    )
    parser.add_argument("--version", action="version", version=f"strobe {__version__}")
    parser.add_argument("--debug", action="store_true", help=argparse.SUPPRESS)
    sub = parser.add_subparsers(dest="command", metavar="COMMAND")
    for command in commands().values():
        added = sub.add_parser(command.name, help=command.summary, description=command.summary, parents=[debug])
        if command.name == chosen:
            import_module(f"strobe.commands.{command.module}").arguments(added)
    return parser


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
