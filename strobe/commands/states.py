"""``strobe states MODEL``: a layer's carry along a text, or what changing it does."""

from argparse import Namespace
from collections.abc import Callable

from strobe.commands.opening import check_out, open_model, text_of, write
from strobe.commands.progress import progress


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
    result = state_intervention(
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
        progress=progress(),
    )
    write(result, args.out, say)
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
