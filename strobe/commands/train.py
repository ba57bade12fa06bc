"""``strobe train NAME``: make a bundled model again."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

from strobe.commands.common.progress import progress

SUMMARY = "make a bundled model again, from its recipe"
ORDER = 90


def arguments(parser: ArgumentParser) -> None:
    """What can be asked."""
    parser.add_argument("name", metavar="NAME", help="name of a recipe")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the model goes")


def run(args: Namespace, say: Callable[[str], None]) -> None:
    """Follow the recipe called NAME; a run that was stopped goes on from its last checkpoint."""
    from strobe.models.zoo.making import train

    card = train(args.name, args.out, on_progress=progress())
    for name in ("bits_per_byte", "score", "chance", "baselines_test"):
        if name in card:
            say(f"{name.replace('_', ' ')}: {card[name]}")
    say(f"wrote {args.out}")
