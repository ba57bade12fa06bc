"""``strobe info MODEL``: what a model is made of."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Callable

from strobe.commands.common import options
from strobe.commands.common.opening import open_model
from strobe.dashboards.loading import facts

SUMMARY = "what a model is made of, and its card"
ORDER = 30


def arguments(parser: ArgumentParser) -> None:
    """What can be asked."""
    options.model(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: Namespace, say: Callable[[str], None]) -> None:
    """Say a model's facts, its blocks and the hash of its weights."""
    loaded = open_model(args.model)
    found = {
        **facts(loaded),
        "Weights (SHA-256)": loaded.model.weights_hash(),
        "Tokenizer": "yes" if loaded.model.tokenizer is not None else "no: it takes token ids, not text",
        "Recurrent blocks": ", ".join(map(str, loaded.recurrent)) or "none",
    }
    if args.json:
        say(json.dumps({"model": args.model, **found, "blocks": list(loaded.mixers)}, indent=2))
        return
    say(args.model)
    for name, value in found.items():
        say(f"  {name:18} {value}")
    for i, mixer in enumerate(loaded.mixers):
        say(f"  block {i:<12} {mixer}")
