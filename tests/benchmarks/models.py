"""Forward, capture, edits and streaming: strobe's models against transformers', TransformerLens's and torch's own.

Each row is one ratio whose two sides ran by turns in this run (`timing.compare`), on one CPU thread.
"""

import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import tiny_hf
import torch
from timing import Ratio, compare

import strobe


class Row(NamedTuple):
    """One line of the table. `reach` is what was aimed for; `at_least` says which way."""

    what: str
    time: int
    ratio: Ratio
    reach: float
    at_least: bool

    def __str__(self) -> str:
        met = self.ratio.ratio >= self.reach if self.at_least else self.ratio.ratio <= self.reach
        sign = "≥" if self.at_least else "≤"
        return (
            f"| {self.what} | {self.time} | {self.ratio.slow * 1e3:.1f} | {self.ratio.fast * 1e3:.1f} | "
            f"**{self.ratio.ratio:.2f}x** ({self.ratio.low:.2f}–{self.ratio.high:.2f}) | {sign} {self.reach:g}x | "
            f"{'yes' if met else 'no'} |"
        )


def quiet(f: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[[], Any]:
    """`f(*args)` without gradients, as a function of nothing."""

    def call() -> Any:
        with torch.no_grad():
            return f(*args, **kwargs)

    return call


def forwards() -> Iterator[Row]:
    """A tiny Hugging Face model loaded by strobe, against the same in transformers; then looks and edits."""
    reach = {"mamba": 4.0, "mamba2": 1.5, "qwen3_next": 1.0, "recurrent_gemma": 1.2}
    for family, least in reach.items():
        theirs = tiny_hf.build(family)
        with TemporaryDirectory() as folder:
            ours = strobe.load(tiny_hf.save(theirs, Path(folder) / family))
        for time in (512, 2048):
            tokens = torch.randint(512, (1, time), generator=torch.Generator().manual_seed(time))
            ratio = compare(quiet(theirs, tokens, use_cache=False), quiet(ours, tokens), turns=5)
            yield Row(f"{family}: transformers' forward / ours", time, ratio, least, True)
            yield from looks(family, ours, tokens)


def looks(family: str, model: Any, tokens: torch.Tensor) -> Iterator[Row]:
    """Capture at 16 positions in every recurrent layer, and one edit in each, against our own plain forward."""
    time = tokens.shape[1]
    positions = list(range(time // 32, time, time // 16))[:16]
    names = [f"{name}.hook_state" for name in model.mixers]
    plain = quiet(model, tokens)
    capture = quiet(model.run_with_cache, tokens, names_filter=names, states=positions)
    yield Row(f"{family}: 16 captured carries a layer / plain", time, compare(capture, plain), 1.15, False)
    layers = [int(name.split(".")[1]) for name in model.mixers if name.endswith(".mixer")]
    edits = [strobe.StateEdit(layer=i, position=time // 3, kind="scale", value=0.5) for i in layers]
    edited = quiet(model.run_with_edits, tokens, edits)
    yield Row(f"{family}: one propagating edit a layer / plain", time, compare(edited, plain), 1.10, False)


def against_eager_scan() -> Iterator[Row]:
    """The same capture against TransformerLens's own: a loop over tokens with every state kept."""
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    theirs = tiny_hf.build("mamba2")
    with TemporaryDirectory() as folder:
        ours = strobe.load(tiny_hf.save(theirs, Path(folder) / "mamba2"))
    bridge = build_bridge_from_module(theirs, "Mamba2ForCausalLM", hf_config=theirs.config)
    for block in bridge.blocks:
        block.mixer.eager_scan = True
    for time in (512, 2048):
        tokens = torch.randint(512, (1, time), generator=torch.Generator().manual_seed(time))
        names = [f"{name}.hook_state" for name in ours.mixers]
        capture = quiet(ours.run_with_cache, tokens, names_filter=names, states=list(range(0, time, time // 16)))
        eager = quiet(bridge.run_with_cache, tokens, names_filter=lambda n: "hook_ssm_state" in n, use_cache=False)
        assert any("hook_ssm_state" in name for name in eager()[1]), "TransformerLens captured no state"
        ratio = compare(eager, capture, turns=3, warm=1)
        yield Row("mamba2: TransformerLens's eager_scan / 16 captured carries", time, ratio, 5.0, True)


def lstm() -> Iterator[Row]:
    """h, c and every gate at every token, against `torch.nn.LSTM` giving h alone; d 256, batch 1."""
    from strobe.kernels.rnn import LSTM, LSTMSignals, lstm_trace
    from strobe.kernels.scan import scan

    theirs = torch.nn.LSTM(256, 256, batch_first=True)
    W, R, b_x, b_h = (p.detach() for p in theirs.parameters())
    for time in (512, 2048):
        x = torch.randn(1, time, 256, generator=torch.Generator().manual_seed(time))
        signals = LSTMSignals(x=x, W=W, R=R, b=b_x + b_h, mask=None)

        def traced(signals: Any = signals) -> Any:
            result = scan(LSTM, signals)
            return lstm_trace(signals, LSTM.init_carry(signals), result.read)

        yield Row("LSTM: h, c and all gates / nn.LSTM's h", time, compare(quiet(traced), quiet(theirs, x)), 2.0, False)


def stream(tokens: int) -> str:
    """Memory while `tokens` tokens are streamed through mamba2-python with per-layer carry norms recorded."""
    import resource

    model: Any = strobe.load("mamba2-python")
    generator = torch.Generator().manual_seed(0)
    piece, state, norms = 2048, None, []
    peaks = []
    with torch.no_grad():
        for _ in range(tokens // piece):
            ids = torch.randint(model.cfg.d_vocab, (1, piece), generator=generator)
            _, state = model(ids, state=state, return_type="state")
            norms.append([float(layer.carry[0].norm()) for layer in state.layers])
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    gc.collect()
    early, late = peaks[max(len(peaks) // 100, 1)], peaks[-1]
    return (
        f"{len(norms) * piece:,} tokens through mamba2-python, carry norms of every layer recorded: peak memory "
        f"{early / 1024:.0f} MB after the first 1 %, {late / 1024:.0f} MB at the end (+{(late - early) / 1024:.1f} MB)."
    )


def section(tokens: int = 1_000_000) -> str:
    """The table, and the memory of a long stream."""
    # First: a peak says something only while nothing else has made one.
    streamed = stream(tokens)
    lines = [
        "## Models",
        "",
        "Models: d 256, 4 layers, batch 1. Mamba-2 has transformers' default chunk length, 256.",
        "",
        "| what | T | first, ms | second, ms | ratio (quartiles) | reach | met |",
        "|---|---|---|---|---|---|---|",
    ]
    for make in (forwards, against_eager_scan, lstm):
        for row in make():
            lines.append(str(row))
            print(row, file=sys.stderr, flush=True)
    return "\n".join([*lines, "", streamed])


if __name__ == "__main__":
    print(section())
