"""``strobe lens MODEL``: a trajectory through the layers, as a file and a figure."""

from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from strobe.commands.opening import check_out, open_model, text_of, write
from strobe.commands.progress import progress
from strobe.dashboards import work
from strobe.dashboards.loading import Loaded


def run(args: Namespace, say: Callable[[str], None]) -> None:
    """Read the text with a lens (fitting one first if asked) and write the result."""
    check_out(args.out)
    text = text_of(args)
    if args.logit and (args.train or args.lens):
        raise ValueError("--logit asks for no tuned lens, and --train or --lens for one; give one of them")
    loaded = open_model(args.model)
    lens = _lens(args, loaded, say)
    result = lens.trajectory(loaded.model, text, seed=args.seed)
    write(result, args.out, say, partial(result.figure, args.statistic))


def _lens(args: Namespace, loaded: Loaded, say: Callable[[str], None]) -> Any:
    from strobe.probes.lens import LogitLens, TunedLens

    if args.logit:
        return LogitLens()
    kept = work.lens_home(loaded)
    if args.train:
        path = Path(args.lens) if args.lens else kept
        work.fit_lens_of(loaded.model, path, progress(), steps=args.steps, seed=args.seed)
        say(f"wrote {path}")
        return TunedLens.load(path, loaded.model)
    if args.lens:
        return TunedLens.load(args.lens, loaded.model)
    found = work.lens_files(loaded)
    if not found:
        say("no tuned lens for this model; reading with the logit lens (--train fits one)")
        return LogitLens()
    say(f"tuned lens: {found[0].label}, {found[0].path}")
    return TunedLens.load(found[0].path, loaded.model)
