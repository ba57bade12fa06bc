"""``strobe states MODEL``: a layer's carry along a text, or what changing it does."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial

from strobe.commands.common import options
from strobe.commands.common.opening import check_out, open_model, text_of, write
from strobe.commands.common.progress import progress
from strobe.commands.common.stopping import write_what_is_found

SUMMARY = "what a layer carries along a text, and what changing it does"
ORDER = 50


def arguments(parser: ArgumentParser) -> None:
    """What can be asked."""
    options.model(parser)
    options.text(parser)
    options.out(parser)
    parser.add_argument("--layer", type=int, required=True, help="block whose carry is looked at, from 0")
    parser.add_argument("--edit", choices=("scale", "zero", "splice"), help="change the carry (default: only look)")
    parser.add_argument("--position", type=int, default=-1, help="token after which it is changed (default: the last)")
    parser.add_argument("--value", type=float, help="what --edit scale multiplies the carry by")
    parser.add_argument("--splice-text", metavar="TEXT", help="text whose carry --edit splice puts in")
    parser.add_argument(
        "--new-tokens", type=options.not_negative, default=24, help="tokens to continue with (default: %(default)s)"
    )
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default: %(default)s)")
    parser.add_argument(
        "--controls", type=options.positive, default=8, help="random edits of equal norm (default: %(default)s)"
    )
    options.seed(parser)


def run(args: Namespace, say: Callable[[str], None]) -> None:
    """Trace the carry, or with ``--edit`` change it, and write the result."""
    from strobe.probes.states import state_intervention, state_trace

    check_out(args.out)
    text = text_of(args)
    _check_edit(args)
    model = open_model(args.model).model
    if args.edit is None:
        write(state_trace(model, text, args.layer, seed=args.seed, progress=progress()), args.out, say)
        return
    ask = partial(
        state_intervention,
        model,
        text,
        args.layer,
        args.position,
        args.edit,
        value=args.value,
        splice_text=args.splice_text,
        max_new_tokens=args.new_tokens,
        temperature=args.temperature,
        n_controls=args.controls,
        seed=args.seed,
    )
    result = write_what_is_found(ask, args.out, say)
    for name, words in zip(("untouched", "edited", "random"), result.continuations, strict=True):
        say(f"{name + ':':11}{''.join(words)!r}")


def _check_edit(args: Namespace) -> None:
    """Refuse options that the edit asked for would not use: they were meant for something."""
    unused = [
        name
        for name, given, edit in (
            ("--value", args.value is not None, "scale"),
            ("--splice-text", args.splice_text is not None, "splice"),
        )
        if given and args.edit != edit
    ]
    if unused:
        raise ValueError(
            f"{', '.join(unused)} was given, and --edit {args.edit or '(none)'} does not use it; change one of them"
        )
