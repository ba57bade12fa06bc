"""`DictionaryFit`: one training run of an autoencoder on a stream of vectors; no model, so that any stream will do.

Everything that decides the rest of the run is in `state`, and the stream is a function of the step, so a run that was
killed goes on to the very numbers it would have had.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from strobe.probes.sae.config import SaeConfig
from strobe.probes.sae.dictionary import Dictionary
from strobe.probes.sae.objective import loss_of

Stream = Callable[[int], Float[Tensor, "batch d_in"]]
HISTORY = ("vectors", "unexplained", "l0", "dead")
"""What is kept of the run, one row each `_EVERY` steps: vectors seen, mean squared error over the variance (mean over
those steps), features a vector, fraction of features that are dead."""
_EVERY = 10
# Of the running mean over batches of the smallest activation that BatchTopK keeps, which becomes its threshold
# (Bussmann et al. 2024, equation 5, have the mean over data).
_MEMORY = 0.99


class DictionaryFit:
    """``advance()`` makes one update. `shape`: of one vector before it was flattened.

    Raises ValueError where the first batch does not vary, FloatingPointError, naming the step, where a loss is not
    finite.
    """

    def __init__(self, stream: Stream, config: SaeConfig, shape: tuple[int, ...], device: Any = None) -> None:
        self.stream, self.config, self.shape = stream, config, shape
        self.dictionary = Dictionary(config, shape, device)
        self.optimizer = torch.optim.Adam(list(self.dictionary.parameters.values()), fused=True)
        self.step = 0
        self.scale = 1.0
        self.smallest = torch.zeros((), device=device)
        self.silent = torch.zeros(config.d_sae, dtype=torch.long, device=device)
        self.history: list[tuple[float, ...]] = []
        self._sums = torch.zeros(2, dtype=torch.float64)

    @property
    def done(self) -> bool:
        """Whether every update has been made."""
        return self.step >= self.config.steps

    def advance(self) -> None:
        """One update."""
        x = self.stream(self.step)
        if self.step == 0:
            self._start(x)
        self.optimizer.param_groups[0]["lr"] = self.config.rate_at(self.step)
        dead = self.silent > self.config.dead_after
        loss = loss_of(x * self.scale, self.dictionary.weights(), self.config, dead)
        self.optimizer.zero_grad()
        loss.total.backward()
        self.dictionary.before_step()
        self.optimizer.step()
        self.dictionary.after_step()
        self.silent = torch.where(loss.fired, 0, self.silent + len(x))
        memory = min(_MEMORY, self.step / (self.step + 1))
        self.smallest = memory * self.smallest + (1 - memory) * loss.smallest
        self.step += 1
        self._keep(loss.error, loss.l0)

    def state(self) -> dict[str, Any]:
        """Everything that decides what comes next, as tensors and plain values."""
        return {
            "parameters": {n: t.detach() for n, t in self.dictionary.parameters.items()},
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "scale": self.scale,
            "silent": self.silent,
            "smallest": self.smallest,
            "history": self.history,
            "sums": self._sums,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        with torch.no_grad():
            for name, tensor in self.dictionary.parameters.items():
                tensor.copy_(state["parameters"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.scale = state["step"], state["scale"]
        self.silent, self.smallest = state["silent"], state["smallest"]
        self.history, self._sums = [tuple(row) for row in state["history"]], state["sums"]

    @torch.no_grad()
    def weights(self) -> dict[str, Tensor]:
        """The weights in the units of the stream: W_enc, b_enc, W_dec, b_dec, and threshold where the kind has one."""
        w = self.dictionary.weights()
        found = {
            "W_enc": w.W_enc.detach().clone(),
            "b_enc": w.b_enc.detach() / self.scale,
            "W_dec": w.W_dec.detach().clone(),
            "b_dec": w.b_dec.detach() / self.scale,
        }
        if w.log_threshold is not None:
            found["threshold"] = w.log_threshold.detach().exp() / self.scale
        elif self.config.kind == "batchtopk":
            found["threshold"] = (self.smallest / self.scale).expand(self.config.d_sae).clone()
        return found

    def factors(self) -> dict[str, Tensor]:
        """Of rank-1 atoms, the four factors."""
        return {n: t.detach().clone() for n, t in self.dictionary.parameters.items() if n.startswith(("enc_", "dec_"))}

    def _start(self, x: Tensor) -> None:
        mean = x.mean(0)
        spread = float((x - mean).square().sum(1).mean())
        if not spread > 1e-12 * float(mean.square().sum() + 1):
            raise ValueError(
                f"an autoencoder was to be trained on vectors that are all the same ({len(x)} of {x.shape[1]} numbers, "
                f"mean squared distance {spread:.2g} from their mean); there is nothing to decompose: choose another "
                "hook point, or another text"
            )
        self.scale = (x.shape[1] / spread) ** 0.5
        with torch.no_grad():
            self.dictionary.parameters["b_dec"].copy_(mean * self.scale)

    def _keep(self, error: Tensor, l0: Tensor) -> None:
        self._sums += torch.stack([error, l0]).double().cpu()
        if self.step % _EVERY and not self.done:
            return
        n = (self.step - 1) % _EVERY + 1
        mean_error, mean_l0 = (self._sums / n).tolist()
        if not mean_error < float("inf"):
            raise FloatingPointError(
                f"an autoencoder was trained with learning rate {self.config.rate:.2g}; its loss is not finite after "
                f"{self.step} steps; give a smaller learning_rate"
            )
        dead = float((self.silent > self.config.dead_after).double().mean())
        self.history.append((float(self.step * self.config.batch), mean_error, mean_l0, dead))
        self._sums = torch.zeros(2, dtype=torch.float64)
