"""``strobe repetition WHAT MODEL``: how a model repeats itself, as a file and a figure."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial
from typing import Any

from strobe.commands.common import options
from strobe.commands.common.opening import check_out, open_model, text_of
from strobe.commands.common.stopping import write_what_is_found

SUMMARY = "how a model repeats itself: texts, code, heads, reinforcement, loops, features"
ORDER = 62

_WHAT = {
    "text": "rep-n, Rep Score and entropy of --text",
    "structure": "statements of the Python code in --text that repeat",
    "reinforcement": "probabilities of --text as it is repeated",
    "heads": "what each head does on a repeat",
    "loop": "the loop that --text is continued into",
    "features": "features of an autoencoder that make it repeat itself",
}


def arguments(parser: ArgumentParser) -> None:
    """What can be asked."""
    parser.add_argument("what", choices=_WHAT, metavar="WHAT", help="; ".join(f"{k}: {v}" for k, v in _WHAT.items()))
    options.model(parser)
    options.text(parser, required=False)
    options.out(parser)
    parser.add_argument("--prefix", default="", help="reinforcement: what comes before the first copy")
    parser.add_argument("--copies", type=options.positive, default=100, help="reinforcement (default: %(default)s)")
    parser.add_argument("--tokens", type=options.positive, default=300, help="loop: new tokens (default: %(default)s)")
    parser.add_argument(
        "--kind",
        choices=("ast", "tokenize"),
        default="ast",
        help="structure: rules of the syntax tree, or of its tokens",
    )
    parser.add_argument("--sae", metavar="FOLDER", help="features: an autoencoder (default: the one that is bundled)")
    parser.add_argument("--loops", choices=("greedy", "planted"), default="greedy", help="features: texts that loop")
    parser.add_argument("--candidates", type=options.positive, default=12, help="features (default: %(default)s)")
    options.seed(parser)


def run(args: Namespace, say: Callable[[str], None]) -> None:
    """Run the analysis asked for and write its result, or what it had when Ctrl-C stopped it."""
    from strobe.dashboards import repetition_work

    check_out(args.out)
    settings = _settings(args)
    loaded = open_model(args.model)
    write_what_is_found(partial(repetition_work.run, loaded.model, args.what, settings), args.out, say)


def _settings(args: Namespace) -> dict[str, Any]:
    if args.what in ("heads", "features"):
        if args.text is not None or args.text_file is not None:
            raise ValueError(f"--text was given, and {args.what} makes its own tokens; leave it out")
        if args.what == "heads":
            return {"seed": args.seed}
        return {"sae": args.sae, "loops": args.loops, "n_candidates": args.candidates, "seed": args.seed}
    if args.text is None and args.text_file is None:
        raise ValueError(f"{args.what} is of a text, and none was given; give --text or --text-file")
    text = text_of(args)
    return {
        "text": {"text": text, "seed": args.seed},
        "structure": {"source": text, "kind": args.kind, "seed": args.seed},
        "reinforcement": {"sentences": [text], "prefix": args.prefix, "copies": args.copies, "seed": args.seed},
        "loop": {"prompt": text, "max_new_tokens": args.tokens, "seed": args.seed},
    }[args.what]
