"""Options that several commands take, worded once."""

import argparse
from pathlib import Path


def model(parser: argparse.ArgumentParser) -> None:
    """The model, as ``args.model``."""
    parser.add_argument("model", metavar="MODEL", help="bundled name, folder with a checkpoint, or hub id")


def text(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """The text, as ``args.text`` or ``args.text_file``; `strobe.commands.common.opening.text_of` reads either."""
    group = parser.add_mutually_exclusive_group(required=required)
    group.add_argument("--text", help="the text to look at")
    group.add_argument("--text-file", type=Path, metavar="FILE", help="a UTF-8 file that holds it")


def out(parser: argparse.ArgumentParser) -> None:
    """The file to write, as ``args.out``."""
    suffixes = "its suffix says what: .html, .json, .png, .svg, .pdf a figure, .csv the table, .safetensors the result"
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help=f"{suffixes}; beside a figure the result is kept too"
    )


def seed(parser: argparse.ArgumentParser) -> None:
    """The seed, as ``args.seed``."""
    parser.add_argument("--seed", type=int, default=0, help="of every random choice (default: %(default)s)")


def port(said: str) -> int:
    """`said` as a port number: an argparse type."""
    number = int(said)
    if not 1 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is no port; give 1 to 65535")
    return number


def positive(said: str) -> int:
    """`said` as a whole number of at least 1: an argparse type."""
    return _at_least(1, said)


def not_negative(said: str) -> int:
    """`said` as a whole number of at least 0: an argparse type."""
    return _at_least(0, said)


def _at_least(low: int, said: str) -> int:
    number = int(said)
    if number < low:
        raise argparse.ArgumentTypeError(f"{number} is too small; give {low} or more")
    return number
