"""``strobe models``: the bundled models."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from strobe.dashboards.loading import bundled, card, find

SUMMARY = "list the bundled models"
ORDER = 20


def arguments(parser: ArgumentParser) -> None:
    """What can be asked."""
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: Namespace, say: Callable[[str], None]) -> None:
    """List the bundled models with what their cards say of them."""
    cards = {name: card(find(name)) for name in bundled()}
    if args.json:
        say(json.dumps(cards, indent=2))
        return
    if not cards:
        say("no models are bundled with this build; any folder with a checkpoint can be given in place of a name")
    for name, about in cards.items():
        say(f"{name:28}{about.get('about', '')}")
