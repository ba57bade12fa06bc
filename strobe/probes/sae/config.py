"""`SaeConfig`: how an autoencoder is trained."""

from dataclasses import dataclass
from typing import Literal, get_args

from strobe.probes.sae.activation import Kind

Atoms = Literal["vector", "rank1"]


@dataclass(frozen=True, kw_only=True)
class SaeConfig:
    """Inputs are scaled to a mean squared distance of d_in from their mean, so that the numbers below suit any site;
    the scale is taken out of the weights at the end.

    `kind`, `d_sae`: what is trained, and how many features. `k`: features a token, of "topk" and (on average) of
    "batchtopk". `sparsity`: times the features' sum ("relu") or number ("jumprelu"), beside the mean squared error per
    coordinate; ours, for some 30 features a token. `bandwidth`, `first_threshold`: of JumpReLU's straight-through
    estimators, in scaled units; ours. `atoms`: "rank1" for a matrix state.

    `tokens`: vectors seen. `batch`: a step. `learning_rate`: None for 2e-4 / sqrt(d_sae / 2^14) (Gao et al. 2024,
    section A.3), reached after `warmup` of the steps, and falling to zero over the last `decay` of them.
    `dead_after`: vectors without firing after which a feature is dead; `aux_k`, `aux`: dead features that
    reconstruct the error, and the weight of that loss (Gao et al., section A.2; None: half of d_in; for relu and
    jumprelu the same loss is ours).

    `context`: tokens a row of text. `skip`: positions left out at the start of each row. `state_every`: positions
    between two captured states. `buffer`: vectors held and shuffled at a time. `seed`: of every random choice.
    """

    kind: Kind = "topk"
    d_sae: int = 1024
    k: int = 32
    sparsity: float | int = 2e-3
    bandwidth: float | int = 0.1
    first_threshold: float | int = 0.1
    atoms: Atoms = "vector"
    tokens: int = 1_000_000
    batch: int = 2048
    learning_rate: float | None = None
    warmup: float | int = 0.05
    decay: float | int = 0.2
    dead_after: int = 200_000
    aux_k: int | None = None
    aux: float | int = 1 / 32
    context: int = 128
    skip: int = 1
    state_every: int = 8
    buffer: int = 32_768
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind) or self.atoms not in get_args(Atoms):
            raise ValueError(
                f"kind {self.kind!r} with {self.atoms!r} atoms was asked for; there are {', '.join(get_args(Kind))}, "
                f"and {', '.join(get_args(Atoms))}"
            )
        if not 1 <= self.k <= self.d_sae:
            raise ValueError(f"{self.k} of {self.d_sae} features a token were asked for; give 1 to {self.d_sae}")
        whole = {n: getattr(self, n) for n in ("tokens", "batch", "context", "state_every", "buffer", "dead_after")}
        if bad := {n: v for n, v in whole.items() if v < 1}:
            raise ValueError(f"{bad} was asked for; give 1 or more of each")
        if self.tokens < self.batch or self.buffer < self.batch:
            raise ValueError(
                f"batches of {self.batch} were asked for, from a buffer of {self.buffer} and {self.tokens} vectors in "
                "all; give at least one batch of each"
            )
        if not 0 <= self.skip < self.context:
            raise ValueError(f"{self.skip} of {self.context} positions were to be left out; leave one at least")

    @property
    def steps(self) -> int:
        """Updates: whole batches."""
        return self.tokens // self.batch

    @property
    def rate(self) -> float:
        """The learning rate at its highest."""
        return 2e-4 / (self.d_sae / 2**14) ** 0.5 if self.learning_rate is None else self.learning_rate

    def rate_at(self, step: int) -> float:
        """The learning rate of update `step`."""
        up = (step + 1) / max(1.0, self.warmup * self.steps)
        down = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.rate * min(1.0, up, down)
