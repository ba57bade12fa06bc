"""``strobe memory-laws``: from which training length models of each size forget, how far they recall, and the laws."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from strobe.commands.common import options
from strobe.commands.common.opening import check_out, write
from strobe.commands.common.progress import progress

SUMMARY = "forgetting and recall against the size of the state: a family of small models, bundled or trained again"
ORDER = 69


def arguments(parser: ArgumentParser) -> None:
    """What can be asked."""
    options.out(parser)
    parser.add_argument(
        "--train",
        type=Path,
        metavar="FOLDER",
        help="train the family again (a few minutes of one thread) and keep its models in FOLDER; a run that was "
        "stopped goes on from there (default: open what is bundled)",
    )
    numbers = {"type": options.positive, "nargs": "+", "metavar": "N"}
    parser.add_argument("--states", **numbers, help="with --train: sizes N of the state")
    parser.add_argument("--windows", **numbers, help="with --train: training lengths in tokens")
    parser.add_argument("--seeds", type=options.not_negative, nargs="+", metavar="N", help="with --train: seeds")
    parser.add_argument(
        "--figure",
        choices=("forget", "recall", "behaviour"),
        default="forget",
        help="which figure a picture or page shows (default: %(default)s)",
    )


def run(args: Namespace, say: Callable[[str], None]) -> None:
    """Open the bundled family or train it, and write the result."""
    check_out(args.out)
    chosen: dict[str, Any] = {
        k: tuple(v) for k in ("states", "windows", "seeds") if (v := getattr(args, k)) is not None
    }
    if chosen and args.train is None:
        raise ValueError(f"{', '.join(f'--{k}' for k in chosen)} say what is trained; add --train FOLDER")
    from strobe.probes.memory import FamilySettings, bundled_family, train_family

    if args.train is None:
        family = bundled_family()
    else:
        family = train_family(args.train, FamilySettings(**chosen), progress=progress())
    write(family, args.out, say, lambda: family.figure(args.figure))
