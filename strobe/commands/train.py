"""``strobe train NAME``: make a bundled model again."""

from argparse import Namespace
from collections.abc import Callable

from strobe.commands.progress import progress


def run(args: Namespace, say: Callable[[str], None]) -> None:
    """Follow the recipe called NAME; a run that was stopped goes on from its last checkpoint."""
    from strobe.models.zoo.making import train

    card = train(args.name, args.out, on_progress=progress())
    for name in ("bits_per_byte", "score", "chance", "baselines_test"):
        if name in card:
            say(f"{name.replace('_', ' ')}: {card[name]}")
    say(f"wrote {args.out}")
