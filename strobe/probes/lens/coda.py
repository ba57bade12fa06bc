"""`coda_lens`: what a depth-recurrent model would predict after each block, read at once or through its coda.

After Lu et al. 2025 (arXiv:2507.02199) on Huginn (Geiping et al. 2025, arXiv:2502.05171): the logit lens reads each
block's output by the final norm and unembedding, the coda lens by coda, final norm and unembedding; followed is the
rank of the model's own answer, or of any token. They read the last token of a prompt with a cache; here, and this is
ours, all tokens stop at the same block, which makes the coda lens at the end of step i the model of i steps.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from strobe.probes.lens.coda_result import CodaLens
from strobe.probes.lens.fitting import Progress
from strobe.probes.lens.logit_lens import signed_permutation
from strobe.probes.lens.looped import DepthRecurrent, States
from strobe.probes.lens.reading import token_rank

_CONTROL = "the same streams with their coordinates permuted and their signs drawn at random, norms kept"
ANSWER = "the model's answer"


def coda_lens(
    model: DepthRecurrent,
    text_or_tokens: Any,
    *,
    follow: Mapping[str, int] | None = None,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> CodaLens:
    """Ranks after every block of one text, by the logit lens and by the coda lens.

    `model`: `LoopedBlocks(model, prelude, core, coda)` of a loaded model, or a `Looped` of your own functions.
    `follow`: further tokens to follow, name to id (such as an intermediate result). `seed`: of the control. Raises
    ValueError for a token that the model does not have, and as the model's own methods.
    """
    ids = model.ids(text_or_tokens)
    states = model.states(ids)
    log_p = states.logits[0]
    followed = {ANSWER: log_p.argmax(-1)}
    for name, token in (follow or {}).items():
        if not 0 <= token < log_p.shape[-1] or name == ANSWER:
            raise ValueError(
                f"{name!r}, token {token}, was to be followed; tokens are 0 to {log_p.shape[-1] - 1}, and {ANSWER!r} "
                "is followed anyway; give another"
            )
        followed[name] = torch.full_like(followed[ANSWER], token)
    places = _places(states)
    d = states.core[0][0].shape[-1]
    order, signs = signed_permutation(d, seed, log_p.device)
    ranks, control = [], []
    for i, (section, _, _, x) in enumerate(places):
        if on_progress is not None:
            on_progress(i, len(places), "reading a block's output")
        scrambled = x[..., order] * signs.to(x)
        for out, stream in ((ranks, x), (control, scrambled)):
            # A stream inside or after the coda has no coda before it.
            coda = None if section == "coda" else model.through_coda(ids, stream)[0]
            out.append(torch.stack([_ranks(model.read(stream)[0], followed), _ranks(coda, followed)]))
    settings = {
        "prelude": len(states.prelude), "core": len(states.core[0]), "steps": len(states.core),
        "coda": len(states.coda), "follow": dict(follow or {}), "tokens": ids[0].tolist(),
    }  # fmt: skip
    return CodaLens(
        tokens=[model.word(int(i)) for i in ids[0]],
        follow=list(followed),
        answers=[model.word(int(i)) for i in followed[ANSWER]],
        sections=[section for section, _, _, _ in places],
        blocks=[block for _, block, _, _ in places],
        steps=[step for _, _, step, _ in places],
        rank=torch.stack(ranks, 2).cpu().numpy(),
        control=torch.stack(control, 2).cpu().numpy(),
        provenance=model.provenance(seed=seed, settings=settings, control=_CONTROL),
    )


def _places(states: States) -> list[tuple[str, int, int, Tensor]]:
    """(section, block of the section from 1, step, stream) of every state in order; step 0 is the prelude."""
    found = [("prelude", i, 0, x) for i, x in enumerate(states.prelude, 1)]
    found += [("core", i, step, x) for step, core in enumerate(states.core, 1) for i, x in enumerate(core, 1)]
    return found + [("coda", i, len(states.core) + 1, x) for i, x in enumerate(states.coda, 1)]


def _ranks(logits: Tensor | None, followed: dict[str, Tensor]) -> Tensor:
    """[follow, time]; NaN without logits."""
    if logits is None:
        return torch.stack([torch.full(ids.shape, torch.nan, dtype=torch.float64) for ids in followed.values()])
    return torch.stack([token_rank(logits, ids).double().cpu() for ids in followed.values()])
