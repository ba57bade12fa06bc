"""The training loop.

A run is a function of the model's first weights, the settings and the batches. Batches are a function of the step, and
a checkpoint holds the rest, so a run that was killed and resumed ends in the same bits as one that was not (on one
machine, with the same number of threads; CUDA kernels that add in no fixed order are the exception).
"""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from strobe.core.atomic import replacing
from strobe.models.training.batches import Batch, Batches
from strobe.models.training.checkpointing import CHECKPOINT_FILE, batch_digest, load_checkpoint, save_checkpoint
from strobe.models.training.config import TrainingConfig, learning_rate_at
from strobe.models.training.losses import Loss, cross_entropy
from strobe.models.training.nonfinite import diagnose
from strobe.models.training.optimizers import make_optimizers

REPORT_FILE = "training.json"
Evaluate = Callable[[nn.Module], float | Mapping[str, float]]
OnProgress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """What happened in a run, over all of its pieces where it was resumed."""

    config: TrainingConfig
    losses: tuple[float, ...]
    """of every step, before its update"""
    evaluations: tuple[tuple[int, dict[str, float]], ...]
    """(updates made, what `evaluate` returned)"""
    seconds: float
    """spent training and evaluating"""
    tokens: int
    """input positions seen"""
    resumed_from: int | None
    """updates already made when this piece began; None where it began at the beginning"""

    @property
    def tokens_per_second(self) -> float:
        """Input positions per second, evaluations included."""
        return self.tokens / self.seconds

    def save(self, path: Path) -> None:
        """Write the report as JSON."""
        with replacing(path) as temporary:
            Path(temporary).write_text(json.dumps(asdict(self), indent=1) + "\n")


def train(
    model: nn.Module,
    batches: Batches,
    config: TrainingConfig,
    *,
    out_dir: Path | str,
    evaluate: Evaluate | None = None,
    on_progress: OnProgress | None = None,
    resume: bool = True,
    loss: Loss = cross_entropy,
) -> TrainingReport:
    """Train `model` in place for ``config.steps`` updates; the checkpoint and the report are kept in `out_dir`.

    `evaluate(model)` is called in evaluation mode, without gradients, every ``config.eval_every`` updates and after
    the last. `on_progress(done, total, message)` is called after every update; an exception from it ends the run, with
    a checkpoint, and reaches the caller. With `resume`, a checkpoint in `out_dir` is gone on from.

    Raises NonFiniteError where the loss or a gradient is not finite, and ValueError where a batch has not the shape in
    `config` or where the checkpoint in `out_dir` is of another run.
    """
    run = _Run(model, batches, config, Path(out_dir), loss)
    with _surroundings(model, config), tqdm(total=config.steps, unit="step", disable=None) as bar:
        run.begin(resume)
        bar.update(run.step)
        while run.step < config.steps:
            run.update()
            run.evaluate_if_due(evaluate)
            bar.set_postfix_str(run.message, refresh=False)
            bar.update()
            run.tell(on_progress)
            run.save_if_due()
    return run.report()


class _Run:
    """One call of `train`: the parts of a step, and the figures that a checkpoint carries along."""

    def __init__(self, model: nn.Module, batches: Batches, config: TrainingConfig, out_dir: Path, loss: Loss):
        self.model, self.batches, self.config, self.loss = model, batches, config, loss
        self.path = out_dir / CHECKPOINT_FILE
        self.optimizers: list[Optimizer] = make_optimizers(model, config)
        self.device = next(model.parameters()).device
        self.step, self.resumed_from = 0, None
        self.losses: list[float] = []
        self.evaluations: list[tuple[int, dict[str, float]]] = []
        self.seconds_before = 0.0

    def begin(self, resume: bool) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(self.config.seed)
        self.first_batch = batch_digest(self._batch(0))
        if resume and self.path.exists():
            progress = load_checkpoint(self.path, self.model, self.optimizers, self.config, self.first_batch)
            self.step = self.resumed_from = progress["step"]
            self.losses, self.seconds_before = progress["losses"], progress["seconds"]
            self.evaluations = [(step, dict(values)) for step, values in progress["evaluations"]]
        self.started = time.perf_counter()
        self.step_began_with = self.step

    def _batch(self, step: int) -> Batch:
        batch = Batch(*self.batches(step))
        expected = (self.config.batch_size, self.config.context)
        for name, tensor in zip(batch._fields, batch, strict=True):
            if tuple(tensor.shape[:2]) != expected:
                raise ValueError(
                    f"batches of {expected} (batch_size, context) were asked for; the {name} of step {step} have shape "
                    f"{tuple(tensor.shape)}; make the two agree"
                )
        return batch

    def update(self) -> None:
        batch = Batch(*(x.to(self.device) for x in self._batch(self.step)))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(self.step, self.config)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.config.autocast is not None):
            outputs = self.model(batch.inputs)
        value = self.loss(outputs, batch.targets)
        self.model.zero_grad(set_to_none=True)
        value.backward()
        self._check_and_clip(batch, value)
        for optimizer in self.optimizers:
            optimizer.step()
        self.model.zero_grad(set_to_none=True)
        self.losses.append(value.item())
        self.step += 1

    def _check_and_clip(self, batch: Batch, value: Tensor) -> None:
        norm = nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        # Before clipping, which would spread one bad gradient over all of them.
        if not torch.isfinite(norm) or not torch.isfinite(value):
            raise diagnose(self.model, batch, self.step, value.item())
        if self.config.clip is not None:
            nn.utils.clip_grads_with_norm_(self.model.parameters(), self.config.clip, norm)

    def evaluate_if_due(self, evaluate: Evaluate | None) -> None:
        if evaluate is None or not self._due(self.config.eval_every):
            return
        self.model.eval()
        try:
            # Numbers drawn by an evaluation must not move those of the training.
            with torch.no_grad(), _own_generators():
                value = evaluate(self.model)
        finally:
            self.model.train()
        values = dict(value) if isinstance(value, Mapping) else {"evaluation": float(value)}
        self.evaluations.append((self.step, values))

    def _due(self, every: int | None) -> bool:
        return self.step == self.config.steps or (every is not None and self.step % every == 0)

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.started

    @property
    def message(self) -> str:
        done = (self.step - self.step_began_with) * self.config.batch_size * self.config.context
        rate = done / max(time.perf_counter() - self.started, 1e-9)
        latest = "".join(f", {k} {v:.4g}" for k, v in (self.evaluations[-1][1] if self.evaluations else {}).items())
        return f"loss {self.losses[-1]:.4g}, {rate:,.0f} tokens/s{latest}"

    def tell(self, on_progress: OnProgress | None) -> None:
        if on_progress is None:
            return
        try:
            on_progress(self.step, self.config.steps, self.message)
        except BaseException:
            # The caller wants to stop, not to lose the work: between two updates everything is consistent.
            self.save()
            raise

    def save_if_due(self) -> None:
        if self._due(self.config.checkpoint_every):
            self.save()

    def save(self) -> None:
        progress: dict[str, Any] = {
            "step": self.step,
            "losses": self.losses,
            "evaluations": self.evaluations,
            "seconds": self.seconds,
            "first_batch": self.first_batch,
        }
        save_checkpoint(self.path, self.model, self.optimizers, self.config, progress)
        self.report().save(self.path.with_name(REPORT_FILE))

    def report(self) -> TrainingReport:
        return TrainingReport(
            config=self.config,
            losses=tuple(self.losses),
            evaluations=tuple(self.evaluations),
            seconds=self.seconds,
            tokens=self.step * self.config.batch_size * self.config.context,
            resumed_from=self.resumed_from,
        )


@contextmanager
def _surroundings(model: nn.Module, config: TrainingConfig):
    """Training mode, the number of threads and torch's generators, put back as they were."""
    threads, was_training = torch.get_num_threads(), model.training
    model.train()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    try:
        with _own_generators():
            yield
    finally:
        torch.set_num_threads(threads)
        model.train(was_training)


def _own_generators():
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    return torch.random.fork_rng(devices=list(devices))
