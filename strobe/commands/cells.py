"""``strobe cells MODEL``: the unit that follows each thing about source code, and the views around it."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial

from strobe.commands.common import options
from strobe.commands.common.opening import check_out, open_model, text_of, write
from strobe.commands.common.stopping import write_what_is_found

SUMMARY = "units of the carry that follow strings, brackets, indentation and keywords of source code"
ORDER = 58


def arguments(parser: ArgumentParser) -> None:
    """What can be asked."""
    options.model(parser)
    options.out(parser)
    options.text(parser, required=False)
    parser.add_argument(
        "--unit", nargs=3, metavar=("LAYER", "FIELD", "NUMBER"), help="with a text: one unit along it, and no search"
    )
    parser.add_argument(
        "--files", type=options.positive, default=16, help="to choose on, and to judge by (default: %(default)s)"
    )
    parser.add_argument("--length", type=options.positive, default=512, help="tokens of a file (default: %(default)s)")
    parser.add_argument("--top", type=options.positive, default=5, help="units kept of a label (default: %(default)s)")
    views = parser.add_argument_group("views around the cells, in place of the search")
    views = views.add_mutually_exclusive_group()
    views.add_argument("--gates", action="store_true", help="with a text: how often each gate is shut or open")
    views.add_argument("--errors", action="store_true", help="the loss by class of token, beside an n-gram's")
    views.add_argument(
        "--importance", type=options.not_negative, metavar="LAYER", help="with a text: what each token's write is worth"
    )
    views.add_argument(
        "--transitions", type=options.not_negative, metavar="LAYER", help="with a text: A, B and the read of each token"
    )
    parser.add_argument("--beside", nargs=2, metavar=("MODEL", "LAYER"), help="with --transitions: a second model")
    parser.add_argument("--show", metavar="LABEL", help="draw every unit of this label, not the best of each")
    options.seed(parser)


def run(args: Namespace, say: Callable[[str], None]) -> None:
    """Search the model's units on held-out library files, or show one along a text, and write the result."""
    from strobe.probes.cells import cell_text, search_cells
    from strobe.probes.cells.labels import LABELS

    check_out(args.out)
    if _view(args, say):
        return
    given = args.text is not None or args.text_file is not None
    if given != (args.unit is not None):
        raise ValueError(
            f"{'a text' if given else '--unit'} was given without {'--unit' if given else 'a text'}; give both for one "
            "unit along a text, or neither to search"
        )
    if args.show is not None and args.show not in LABELS:
        raise ValueError(f"--show {args.show} was asked for; labels are {', '.join(LABELS)}")
    if args.unit is not None:
        layer, field, number = args.unit
        if not (layer.isdecimal() and number.isdecimal()):
            raise ValueError(f"--unit {' '.join(args.unit)} was given; LAYER and NUMBER are whole numbers from 0")
        write(cell_text(open_model(args.model).model, text_of(args), int(layer), field, int(number)), args.out, say)
        return
    search = partial(
        search_cells,
        open_model(args.model).model,
        n_files=args.files,
        length=args.length,
        top=args.top,
        seed=args.seed,
    )
    write_what_is_found(
        search, args.out, say, lambda found: partial(found.label_figure, args.show) if args.show else found.figure
    )


def _view(args: Namespace, say: Callable[[str], None]) -> bool:
    """Write the view that was asked for; False where none was."""
    from strobe.probes import cells

    given = args.text is not None or args.text_file is not None
    if args.beside is not None and (args.transitions is None or not args.beside[1].isdecimal()):
        raise ValueError(
            f"--beside {' '.join(args.beside)} was given; it takes a model and a layer number, with --transitions LAYER"
        )
    if args.errors:
        if given:
            raise ValueError(
                "--errors was asked for and a text was given; it is of held-out library files; leave it out"
            )
        model = open_model(args.model).model
        ask = partial(cells.error_types, model, n_files=args.files, length=args.length, seed=args.seed)
        write_what_is_found(ask, args.out, say)
    elif not args.gates and args.importance is None and args.transitions is None:
        return False
    elif not given:
        raise ValueError("this view is of a text and none was given; give --text or --text-file")
    else:
        model, text = open_model(args.model).model, text_of(args)
        if args.gates:
            write(cells.gate_saturation(model, text, seed=args.seed), args.out, say)
        elif args.importance is not None:
            ask = partial(cells.token_importance, model, text, args.importance, seed=args.seed)
            write_what_is_found(ask, args.out, say)
        else:
            pairs = [(model, args.transitions)]
            if args.beside is not None:
                pairs.append((open_model(args.beside[0]).model, int(args.beside[1])))
            write(cells.transition_view(pairs, text, seed=args.seed), args.out, say)
    return True
