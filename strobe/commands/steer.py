"""``strobe steer MODEL``: a vector from contrast pairs or from a file, and what it makes the model write or answer."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from strobe.commands.common import options
from strobe.commands.common.opening import check_out, open_model, text_of
from strobe.commands.common.progress import progress
from strobe.commands.common.stopping import write_what_is_found

SUMMARY = "what a contrast vector, in the residual stream or the carry, makes a model write or answer"
ORDER = 60
_SETS = ("indentation", "naming", "comments", "tests")


def arguments(parser: ArgumentParser) -> None:
    """What can be asked."""
    options.model(parser)
    options.text(parser, required=False)
    options.out(parser)
    source = parser.add_argument_group("the vector, and the questions of a sweep")
    pairs = source.add_mutually_exclusive_group()
    pairs.add_argument("--set", choices=_SETS, help="bundled contrast set")
    pairs.add_argument(
        "--caa", type=Path, metavar="FILE", help="behaviour as JSON: half of it gives pairs, the other half questions"
    )
    source.add_argument("--caa-test", type=Path, metavar="FILE", help="then all of --caa gives pairs, this questions")
    source.add_argument("--vector", type=Path, metavar="FILE", help="vector to use: .safetensors, or .gguf")
    source.add_argument("--save-vector", type=Path, metavar="FILE", help="keep the vector: .safetensors, or .gguf")
    source.add_argument("--pairs", type=options.positive, default=100, help="of a set (default: %(default)s)")
    fit = parser.add_argument_group("how it is fitted")
    fit.add_argument(
        "--point",
        nargs="+",
        default=["resid_post"],
        metavar="POINT",
        help="hook points, or carry; a vector for each, used together, or swept side by side (default: resid_post)",
    )
    fit.add_argument("--layers", type=int, nargs="+", metavar="N", help="(default: all, or all of the vector)")
    fit.add_argument("--method", choices=("mean", "pca", "lda"), default="mean", help="(default: %(default)s)")
    fit.add_argument("--norm", choices=("raw", "equal", "unit"), default="raw", help="(default: %(default)s)")
    fit.add_argument("--selector", choices=("last", "mean"), default="last", help="tokens read (default: %(default)s)")
    fit.add_argument(
        "--span",
        type=int,
        nargs="+",
        metavar="N",
        help="read the tokens from the first N to before the second (default: the end); negatives from the end",
    )
    play = parser.add_argument_group("with --text: continue it unsteered, steered and at random")
    play.add_argument("--multiplier", type=float, default=1.0, help="(default: %(default)s)")
    play.add_argument("--operation", choices=("add", "project_out", "replace"), help="(default: the vector's own)")
    play.add_argument(
        "--where",
        choices=("all", "prompt", "generated"),
        help="tokens steered (default: the last of the prompt, of a carry the one before it, and all that follow)",
    )
    play.add_argument("--from", type=int, dest="start", metavar="N", help="steered from this token on instead")
    play.add_argument("--new-tokens", type=options.positive, default=40, help="(default: %(default)s)")
    play.add_argument("--temperature", type=float, default=0.7, help="0 is greedy (default: %(default)s)")
    sweep = parser.add_argument_group("with --sweep: layers by multipliers, over questions")
    sweep.add_argument("--sweep", action="store_true", help="ask the questions of --set or --caa")
    sweep.add_argument("--questions", type=options.positive, default=50, help="of a set (default: %(default)s)")
    sweep.add_argument("--multipliers", type=_number, nargs="+", metavar="M", help="(default: -3 to 3, nine of them)")
    parser.add_argument(
        "--random", type=options.positive, default=2, help="random directions of equal norm (default: %(default)s)"
    )
    options.seed(parser)


def run(args: Namespace, say: Callable[[str], None]) -> None:
    """Fit or open the vector, keep it if asked, and play or sweep."""
    check_out(args.out)
    text = _check(args)
    model = open_model(args.model).model
    contrast = _contrast(args)
    vectors = _vectors(args, model, contrast)
    if args.save_vector is not None:
        say(f"wrote {_save(vectors, args.save_vector)}")
    if args.sweep:
        _sweep(args, model, vectors, contrast, say)
        return
    from strobe.probes.steering import Where, steered_text

    # An edit of the carry after the last prompt token would come too late for the first new one.
    first = -2 if any(v.point == "carry" for v in vectors) else -1
    where = Where(args.where) if args.where else Where("from", start=first if args.start is None else args.start)
    if args.operation is not None:
        vectors = [_with_operation(v, args.operation) for v in vectors]
    ask = partial(
        steered_text,
        model,
        text,
        vectors,
        args.multiplier,
        where=where,
        max_new_tokens=args.new_tokens,
        temperature=args.temperature,
        n_random=args.random,
        seed=args.seed,
    )
    write_what_is_found(ask, args.out, say)


def _check(args: Namespace) -> str:
    """The text, "" for a sweep. Raises ValueError for options that do not go together."""
    given = args.text is not None or args.text_file is not None
    if given == args.sweep:
        raise ValueError("steer was asked for " + ("both a text and --sweep" if given else "neither a text nor --sweep")
                         + "; give --text to continue one, or --sweep to ask the questions of a set")  # fmt: skip
    if args.vector is None and args.set is None and args.caa is None:
        raise ValueError("no vector was given; name a contrast --set, a --caa file or a --vector file")
    if args.sweep and args.set is None and args.caa is None:
        raise ValueError("a sweep asks questions, and a vector file has none; name a --set or a --caa file as well")
    if args.caa_test is not None and args.caa is None:
        raise ValueError("--caa-test was given without --caa; pairs come from --caa, questions from --caa-test")
    if args.span is not None and len(args.span) > 2:
        raise ValueError(f"--span takes the first token, and where to stop; found {len(args.span)} numbers")
    if args.where is not None and args.start is not None:
        raise ValueError(f"--where {args.where} and --from {args.start} both say which tokens are steered; give one")
    if args.sweep and (args.where is not None or args.start is not None):
        raise ValueError("a sweep steers the last token of a question; --where and --from are of --text")
    if args.save_vector is not None and len(args.point) > 1:
        raise ValueError(f"--save-vector keeps one vector; --point names {len(args.point)}: give one of them")
    if args.save_vector is not None and args.save_vector.suffix not in (".safetensors", ".gguf"):
        raise ValueError(f"--save-vector {args.save_vector}: the suffix can be .safetensors or .gguf")
    return text_of(args) if given else ""


def _contrast(args: Namespace) -> Any:
    """Pairs and questions, or None where a vector file is all that is needed."""
    from strobe.probes.steering import contrast_set, load_caa

    if args.set is not None:
        return contrast_set(
            args.set, n_pairs=args.pairs, n_questions=args.questions if args.sweep else 1, seed=args.seed
        )
    if args.caa is None:
        return None
    from dataclasses import replace

    whole = load_caa(args.caa)
    if args.caa_test is not None:
        return replace(whole, questions=load_caa(args.caa_test).questions)
    half = len(whole.pairs) // 2
    if not half:
        raise ValueError(f"{args.caa} has one record; a vector and a question need one each: give --caa-test")
    return replace(whole, pairs=whole.pairs[:half], questions=whole.questions[half:])


def _vectors(args: Namespace, model: Any, contrast: Any) -> list[Any]:
    from strobe.probes.steering import Selector, SteeringVector, contrast_vector, read_gguf

    selector = Selector(args.selector) if args.span is None else Selector("span", *args.span)
    if args.vector is not None:
        found = (
            read_gguf(args.vector, model) if args.vector.suffix == ".gguf" else SteeringVector.load(args.vector, model)
        )
        return [found if args.layers is None else found.only(args.layers)]
    return [
        contrast_vector(
            model,
            contrast.pairs,
            point=point,
            layers=args.layers,
            method=args.method,
            norm=args.norm,
            selector=selector,
            info={"contrast": contrast.name, "towards": contrast.positive, "away": contrast.negative},
            progress=progress(),
        )
        for point in args.point
    ]


def _save(vectors: Sequence[Any], path: Path) -> Path:
    from strobe.probes.steering import write_gguf

    (vector,) = vectors
    return write_gguf(vector, path) if path.suffix == ".gguf" else vector.save(path)


def _with_operation(vector: Any, operation: str) -> Any:
    from dataclasses import replace

    return replace(vector, operation=operation)


def _sweep(args: Namespace, model: Any, vectors: Sequence[Any], contrast: Any, say: Callable[[str], None]) -> None:
    from strobe.probes.steering import steering_sweep
    from strobe.probes.steering.sweep import MULTIPLIERS

    names = {"resid_post": "residual", "carry": "state"}
    ask = partial(
        steering_sweep,
        model,
        {names.get(v.point, v.point): v for v in vectors},
        contrast.questions,
        multipliers=args.multipliers or MULTIPLIERS,
        labels=(contrast.positive, contrast.negative),
        n_random=args.random,
        seed=args.seed,
    )
    write_what_is_found(ask, args.out, say)


def _number(said: str) -> float:
    """`said` as a finite number: an argparse type."""
    import math

    number = float(said)
    if not math.isfinite(number):
        raise ArgumentTypeError(f"{said} is not a finite number")
    return number
