"""``strobe sae MODEL``: a sparse autoencoder trained, measured beside its controls, or its features looked at."""

import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from strobe.commands.common import options
from strobe.commands.common.opening import check_out, open_model, text_of, write
from strobe.commands.common.progress import progress
from strobe.commands.common.stopping import stoppable, write_what_is_found
from strobe.dashboards import features_work

SUMMARY = "train a sparse autoencoder, measure it beside PCA, or look at its features"
ORDER = 70

# Long option -> field of SaeConfig: what a training is told, and what the command of its card repeats.
_SETTINGS = {
    "kind": "kind",
    "width": "d_sae",
    "k": "k",
    "sparsity": "sparsity",
    "atoms": "atoms",
    "vectors": "tokens",
    "batch": "batch",
    "buffer": "buffer",
    "learning_rate": "learning_rate",
    "seed": "seed",
}


def arguments(parser: ArgumentParser) -> None:
    """What can be asked."""
    options.model(parser)
    options.out(parser)
    parser.add_argument("--sae", metavar="FOLDER", help="a SAELens directory, or the name of a bundled one (default)")
    parser.add_argument(
        "--show",
        choices=("evaluation", "atlas", "text", "play"),
        default="evaluation",
        help="what it keeps of the model; every feature; what fires in --text; or --text continued with --feature "
        "turned up, ablated, and a feature of equal activity turned up (default: %(default)s)",
    )
    options.text(parser, required=False)
    parser.add_argument("--feature", type=options.not_negative, help="the feature that the figure is about")
    play = parser.add_argument_group("with --show play")
    play.add_argument("--times", type=float, default=1.5, help="its largest activation (default: %(default)s)")
    play.add_argument("--new-tokens", type=options.positive, default=32, help="(default: %(default)s)")
    play.add_argument("--temperature", type=float, default=0.7, help="0 is greedy (default: %(default)s)")
    parser.add_argument(
        "--tokens", type=options.positive, default=16_384, help="held-out tokens that are read (default: %(default)s)"
    )
    training = parser.add_argument_group("training")
    training.add_argument("--train", type=Path, metavar="FOLDER", help="train one first, and write it there")
    training.add_argument("--run", type=Path, metavar="FOLDER", help="keeps the run (default: FOLDER.run)")
    training.add_argument("--hook-name", help="where it reads (default: the residual stream of a middle block)")
    training.add_argument("--head", type=options.not_negative, help="of a matrix state, one head")
    training.add_argument("--kind", choices=("topk", "batchtopk", "jumprelu", "relu"), default="topk")
    training.add_argument("--width", type=options.positive, default=1024, help="features (default: %(default)s)")
    training.add_argument("--k", type=options.positive, default=16, help="active ones a token (default: %(default)s)")
    training.add_argument("--sparsity", type=float, default=2e-3, help="of relu and jumprelu (default: %(default)s)")
    training.add_argument("--atoms", choices=("vector", "rank1"), default="vector", help="rank1: of a matrix state")
    training.add_argument("--vectors", type=options.positive, default=1_500_000, help="seen (default: %(default)s)")
    training.add_argument("--batch", type=options.positive, default=1024, help="a step (default: %(default)s)")
    training.add_argument(
        "--buffer", type=options.positive, default=32_768, help="vectors held and shuffled (default: %(default)s)"
    )
    training.add_argument("--learning-rate", type=float, default=2e-3, help="(default: %(default)s)")
    training.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="stored as (default: %(default)s)",
    )
    options.seed(parser)


def run(args: Namespace, say: Callable[[str], None]) -> None:
    """Train if asked, then write what is to be shown."""
    check_out(args.out)
    _check(args)
    loaded = open_model(args.model)
    if args.train is None:
        sae, measured = _opened(args, loaded), None
    else:
        from strobe.probes.sae import make_sae

        with stoppable() as tick:
            sae, training, measured = make_sae(
                loaded.model,
                features_work.python_text(loaded),
                args.hook_name or f"blocks.{(loaded.n_layers - 1) // 2}.hook_resid_post",
                args.train,
                head=args.head,
                config=_config(args),
                stored_as=args.dtype,
                run=args.run,
                n_tokens=args.tokens,
                command=_command(args),
                on_progress=tick,
            )
        say(training.summary())
        say(f"wrote {args.train}")
    _show(args, loaded, sae, measured, say)


def _check(args: Namespace) -> None:
    """Raise ValueError for options that do not go together."""
    if args.show in ("text", "play") and args.text is None and args.text_file is None:
        raise ValueError(f"--show {args.show} was asked for, and no text was given; give --text or --text-file")
    if args.show == "play" and args.feature is None:
        raise ValueError("--show play turns a feature up, and none was named; give --feature")
    if args.train is not None and args.sae is not None:
        raise ValueError("--train makes an autoencoder and --sae names one; give one of them")


def _show(args: Namespace, loaded: Any, sae: Any, measured: Any, say: Callable[[str], None]) -> None:
    from strobe.probes.sae import evaluate_sae, feature_text

    # Said before the text is read: the figure would find out only afterwards.
    if args.feature is not None and args.feature >= sae.d_sae:
        raise IndexError(
            f"feature {args.feature} was asked for; this autoencoder has 0 to {sae.d_sae - 1}; choose one of those"
        )
    if args.show == "text":
        asked = [] if args.feature is None else [args.feature]
        write(feature_text(loaded.model, sae, text_of(args), asked), args.out, say)
    elif args.show == "atlas":
        write_what_is_found(
            _atlas_of(args, loaded, sae), args.out, say, lambda atlas: partial(atlas.figure, args.feature)
        )
    elif args.show == "play":
        write_what_is_found(_play_of(args, loaded, sae), args.out, say)
    else:
        if measured is None:
            text = features_work.python_text(loaded)
            measured = evaluate_sae(
                loaded.model, sae, text, n_tokens=args.tokens, seed=args.seed, on_progress=progress()
            )
        write(measured, args.out, say)


def _atlas_of(args: Namespace, loaded: Any, sae: Any) -> Callable[..., Any]:
    """Reads the features off held-out text: called with `progress` and `partial`."""
    from strobe.probes.sae import feature_atlas

    text = features_work.python_text(loaded)

    def ask(progress: Any, partial: Any) -> Any:
        watched = {"on_progress": progress, "partial": partial}
        return feature_atlas(loaded.model, sae, text, n_tokens=args.tokens, seed=args.seed, **watched)

    return ask


def _play_of(args: Namespace, loaded: Any, sae: Any) -> Callable[..., Any]:
    """Turns the feature up, takes it out, and turns its twin up: called with `progress` and `partial`."""
    from strobe.probes.sae import feature_play

    read = _atlas_of(args, loaded, sae)

    def ask(progress: Any, partial: Any) -> Any:
        # Half an atlas names no twin that can be relied on, so nothing of it is kept.
        atlas = read(progress, None)
        twin = atlas.twin(args.feature)
        return feature_play(
            loaded.model,
            sae,
            text_of(args),
            args.feature,
            float(args.times * atlas.maximum[args.feature]),
            (twin, float(args.times * atlas.maximum[twin])),
            max_new_tokens=args.new_tokens,
            temperature=args.temperature,
            seed=args.seed,
            progress=progress,
            partial=partial,
        )

    return ask


def _opened(args: Namespace, loaded: Any) -> Any:
    from strobe.probes.sae import SparseAutoencoder, bundled_saes

    name = loaded.source.name
    if args.sae is not None and args.sae not in bundled_saes(name):
        return SparseAutoencoder.load(args.sae, loaded.model)
    sae = SparseAutoencoder.bundled(name, args.sae)
    sae.check(loaded.model)
    return sae


def _config(args: Namespace) -> Any:
    from strobe.probes.sae import SaeConfig

    return SaeConfig(**{field: getattr(args, option) for option, field in _SETTINGS.items()})


def _command(args: Namespace) -> str:
    """The command that makes the same again, for the card; where things are written is left out."""
    said = ["strobe", "sae", args.model, "--train", "FOLDER", "--out", "FILE"]
    for option in ("hook_name", "head", "dtype", *_SETTINGS):
        value = getattr(args, option)
        if value is not None:
            said += [f"--{option.replace('_', '-')}", str(value)]
    return shlex.join(said)
