"""Rows of whole models: transformers' Mamba and Mamba-2 at the width of their 130M release, with and without strobe.

Random weights and four layers; the real classes. transformers runs its own fallback, as it does where nothing was
compiled for it: where mamba-ssm or causal-conv1d is installed it would not, and the rows say that they are not of it.
"""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from gpu_rows.measuring import Options, Reach, Row, Unmeasured, measure


class Shape(NamedTuple):
    """transformers' name of an architecture and what its config is made with."""

    name: str
    family: str
    options: dict[str, Any]


SHAPES = (
    Shape("HF Mamba, d 768", "Mamba", {"vocab_size": 50280, "hidden_size": 768, "state_size": 16}),
    Shape(
        "HF Mamba-2, d 768",
        "Mamba2",
        {
            "vocab_size": 50288,
            "hidden_size": 768,
            "num_heads": 24,
            "head_dim": 64,
            "state_size": 128,
            "n_groups": 1,
        },
    ),
)
LAYERS = 4
TIMES = (2048, 8192)

# By model: what, and why. Mamba's fallback is a loop over tokens of about ten launches; ours is one, and the products
# around it take as long. Mamba-2's fallback is chunked in plain PyTorch. A look costs what it does in the scan, and the
# scan is a part of the model.
PREDICTED = {
    "transformers / strobe": {"Mamba": 40.0, "Mamba2": 3.0},
    "16 captured carries a layer / plain": {"Mamba": 1.1, "Mamba2": 1.1},
    "one edit a layer / plain": {"Mamba": 1.05, "Mamba2": 1.05},
}
_REACH = {"Mamba": Reach(20.0, True)}


def rows(
    options: Options, shapes: tuple[Shape, ...] = SHAPES, times: tuple[int, ...] = TIMES
) -> Iterator[Row | Unmeasured]:
    """Every ratio of each model at each length."""
    for shape in shapes:
        if compiled := [name for name in ("mamba_ssm", "causal_conv1d", "fla") if find_spec(name) is not None]:
            why = f"{', '.join(compiled)} can be imported, and transformers does not run its fallback"
            yield Unmeasured(shape.name, options.batch, max(times), "transformers / strobe", why)
            continue
        theirs, ours = _both(shape, options)
        for time in times:
            yield from _of(shape, time, theirs, ours, options)


def _both(shape: Shape, options: Options) -> tuple[Any, Any]:
    """The model of transformers, and ours that was loaded from its checkpoint."""
    import transformers

    import strobe

    dtype = torch.float32 if options.device == "cpu" else torch.bfloat16
    torch.manual_seed(0)
    config = getattr(transformers, f"{shape.family}Config")(num_hidden_layers=LAYERS, **shape.options)
    theirs = getattr(transformers, f"{shape.family}ForCausalLM")(config).eval()
    with TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = strobe.load(Path(folder), device=options.device, dtype=dtype, backend=options.backend)
    return theirs.to(options.device, dtype), ours


def _of(shape: Shape, time: int, theirs: Any, ours: Any, options: Options) -> Iterator[Row | Unmeasured]:
    import strobe

    vocab = shape.options["vocab_size"]
    sets = [
        torch.randint(vocab, (options.batch, time), generator=torch.Generator().manual_seed(seed)).to(options.device)
        for seed in range(2)
    ]
    at = list(range(time // 32, time, max(time // 16, 1)))[:16]
    names = [f"{name}.hook_state" for name in ours.mixers]
    edits = [strobe.StateEdit(layer=i, position=time // 3, kind="scale", value=0.5) for i in range(LAYERS)]

    def row(what: str, slow: Any, fast: Any, reach: Reach | None = None) -> Row | Unmeasured:
        return measure(
            options, (shape.name, options.batch, time, what), (quiet(slow), quiet(fast)), sets,
            predicted=PREDICTED[what][shape.family], reach=reach,
        )  # fmt: skip

    yield row("transformers / strobe", lambda x: theirs(x, use_cache=False), ours, _REACH.get(shape.family))
    yield row(
        "16 captured carries a layer / plain", lambda x: ours.run_with_cache(x, names_filter=names, states=at), ours
    )
    yield row("one edit a layer / plain", lambda x: ours.run_with_edits(x, edits), ours)


def quiet(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`f` without gradients."""

    def call(tokens: Any) -> Any:
        with torch.no_grad():
            return f(tokens)

    return call
