"""A million tokens diagnosed against the plain forward over the same pieces: CPU seconds by turns, and peak memory."""

import os
import resource
import statistics
import time

import numpy as np

_TOKENS = int(os.environ.get("STROBE_BENCH_TOKENS", "1000000"))
_STRIDE, _TRAINED, _TURNS = 1024, 512, 5
_CHUNK = min(65_536, _TOKENS // 4)


def section() -> str:
    """The table of `mamba2-python`: one pass over all tokens for memory, pieces by turns for time."""
    import strobe
    from strobe.probes.memory import CarryDiagnostics, diagnose
    from strobe.probes.memory.streaming import as_inputs, pieces

    model = strobe.load("mamba2-python")
    x = np.random.default_rng(0).integers(model.cfg.d_vocab, size=(1, _TOKENS))

    def plain(tokens: np.ndarray) -> None:
        for _ in pieces(model, as_inputs(model, tokens)):
            pass

    def diagnosed(tokens: np.ndarray) -> CarryDiagnostics:
        # One control pass of four training lengths belongs to it, however long the input.
        return diagnose(model, tokens, train_length=_TRAINED, stride=_STRIDE)

    short = x[:, :_CHUNK]
    plain(short)
    diagnosed(short)
    grown = [_peak()]
    started = time.process_time()
    result = diagnosed(x)
    whole = time.process_time() - started
    grown.append(_peak())
    kept = sum(v.nbytes for name in result.KEPT for v in getattr(result, name) if v is not None) / 1e6
    turns = [(_seconds(lambda: diagnosed(short)), _seconds(lambda: plain(short)))
             for _ in range(_TURNS)]  # fmt: skip
    ratios = [a / b for a, b in turns]
    median = statistics.median(a for a, _ in turns) / statistics.median(b for _, b in turns)
    rows = [
        f"| diagnostics / plain forward, {_CHUNK:,} tokens, {_TURNS} turns | {median:.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}) | ≤ 1.2 |",
        f"| CPU seconds for {_TOKENS:,} tokens diagnosed | {whole:.0f} | |",
        f"| peak memory after {_CHUNK:,} tokens, after {_TOKENS:,} | {grown[0]:.0f} MB, {grown[1]:.0f} MB | flat |",
        f"| of these the result of {_TOKENS:,} tokens, a position in {_STRIDE} | {kept:.1f} MB | |",
    ]
    return "\n".join(
        [
            "## Carry diagnostics",
            "",
            f"mamba2-python, one row, every layer after each {_STRIDE}th token: moments by head and channel, rank, "
            "saturation, retention and loss, with the shuffled control. The plain forward is the same pieces without "
            "any of it. Target tokens' loss is part of the diagnostics alone.",
            "",
            "| | measured | reach |",
            "|---|---|---|",
            *rows,
        ]
    )


def _seconds(f: object) -> float:
    start = time.process_time()
    f()  # type: ignore[operator]
    return time.process_time() - start


def _peak() -> float:
    """Megabytes, the highest this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    print(section())
