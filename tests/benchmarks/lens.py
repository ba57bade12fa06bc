"""What reading every layer costs: a trajectory of the tuned and of the logit lens against the plain forward."""

from typing import Any

import torch
from timing import compare

import strobe
from strobe.probes.lens import LogitLens, TunedLens

_MODELS = ("transformer-python", "mamba2-python")


def section(time: int = 512, turns: int = 7) -> str:
    """A table; the statistics of a trajectory (top-k, rank, entropy, KL, cross-entropy) are part of what it costs."""
    lines = [
        "## Lens",
        "",
        f"Every layer of {time} tokens read out, with all of a trajectory's statistics, against the plain forward. A",
        "model of 4 blocks is read out five times by each lens; a tuned trajectory holds the logit lens beside it.",
        "",
        "| what | first, ms | second, ms | ratio (quartiles) |",
        "|---|---|---|---|",
    ]
    for name in _MODELS:
        model: Any = strobe.load(name)
        tokens = torch.randint(model.cfg.d_vocab, (1, time), generator=torch.Generator().manual_seed(0))
        ids = tokens[0].tolist()

        def plain(model: Any = model, tokens: torch.Tensor = tokens) -> Any:
            with torch.no_grad():
                return model(tokens)

        for which, lens in (("logit", LogitLens()), ("tuned", TunedLens.bundled(model))):

            def read(model: Any = model, ids: list[int] = ids, lens: Any = lens) -> Any:
                return lens.trajectory(model, ids)

            r = compare(read, plain, turns=turns)
            lines.append(
                f"| {name}: {which} lens trajectory / plain | {r.slow * 1e3:.0f} | {r.fast * 1e3:.0f} | "
                f"**{r.ratio:.2f}x** ({r.low:.2f}–{r.high:.2f}) |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    print(section())
