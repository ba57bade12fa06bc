"""The tuned lens (Belrose et al. 2023): a learned affine map per layer before the model's readout.

``TunedLens_l(h) = W_U LN_f(h + W_l h + b_l)``, W_l and b_l zero at first, so that an untrained one is the logit lens
and weight decay pulls to it. Fitted to the model's own output (`strobe.probes.lens.fitting`), not to any label.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from strobe.core import CheckpointError, Provenance
from strobe.core.atomic import replacing
from strobe.probes.lens.fit_report import LensFit
from strobe.probes.lens.fitting import (
    Fitted,
    Progress,
    Recipe,
    Translators,
    fit_translators,
    held_out_kl,
    report,
    untrained,
)
from strobe.probes.lens.logit_lens import Lens
from strobe.probes.lens.readout import model_readout
from strobe.probes.lens.token_rows import fit_and_held_out

_FORMAT, _VERSION = "strobe-tuned-lens", 1
_FILE = "tuned_lens.safetensors"
_REPORT = ("steps", "training_kl", "tuned_kl", "logit_kl", "standard_error")


class TunedLens(Lens):
    """Translators for layers 0..L-1 of one model, known by the hash of its weights.

    `translators`: weight [L, d_model, d_model], bias [L, d_model]. `report`: how the fit went; None for a lens that was
    not fitted here. `mean_probabilities`: the model's average output over the fitted tokens, for the control.
    """

    kind = "tuned"

    def __init__(
        self,
        translators: Translators,
        *,
        model_name: str,
        weights_hash: str | None,
        readout_hash: str,
        mean_probabilities: Tensor | None = None,
        report: LensFit | None = None,
    ) -> None:
        self.translators, self.model_name = translators, model_name
        self.weights_hash, self.readout_hash = weights_hash, readout_hash
        self.mean_probabilities, self.report = mean_probabilities, report

    @property
    def n_layers(self) -> int:
        """How many layers have a translator."""
        return self.translators.weight.shape[0]

    def transform(self, h: Float[Tensor, "*batch d_model"], layer: int) -> Float[Tensor, "*batch d_model"]:
        """``h + W_l h + b_l``; `h` itself at layer L. Raises ValueError for a layer there is not."""
        if not 0 <= layer <= self.n_layers:
            raise ValueError(
                f"layer {layer} was asked for; this lens has 0 to {self.n_layers} (the last is the output)"
            )
        return h if layer == self.n_layers else self.translators(h, layer)

    @classmethod
    def bundled(cls, model: Any) -> "TunedLens":
        """The tuned lens that comes with the bundled `model`. Raises ValueError for a model that has none."""
        from strobe.models import zoo

        file = zoo.WEIGHTS / model.model_name / _FILE
        if not file.is_file():
            having = [name for name in zoo.available() if (zoo.WEIGHTS / name / _FILE).is_file()]
            raise ValueError(
                f"no tuned lens comes with {model.model_name!r}; one comes with {', '.join(having) or 'none'}; fit one "
                "with TunedLens.fit"
            )
        return cls.load(file, model)

    @classmethod
    def untrained(cls, model: Any) -> "TunedLens":
        """A lens with zero translators for `model`: what a fit starts from."""
        read = model_readout(model)
        return cls(
            untrained(read, next(model.parameters()).device),
            model_name=model.model_name,
            weights_hash=model.weights_hash(),
            readout_hash=read.hash,
        )

    @classmethod
    def fit(
        cls,
        model: Any,
        data: Any,
        *,
        steps: int = 400,
        batch: int = 16,
        context: int | None = None,
        optimizer: Literal["adam", "sgd"] = "adam",
        learning_rate: float | None = None,
        weight_decay: float = 1e-3,
        bias: bool = True,
        held_out: Any = None,
        held_out_tokens: int = 16384,
        seed: int = 0,
        on_progress: Progress | None = None,
        partial: Callable[["TunedLens"], None] | None = None,
    ) -> "TunedLens":
        """Fit translators for every layer of `model`, in float32, without touching the model.

        `data`: a corpus with ``tokens("train")`` and ``tokens("valid")``, token ids as a stream [n_tokens] or rows [n,
        time], or a text. Each of the `steps` sees `batch` rows, of `context` tokens where a stream is cut (None: 128).
        `held_out`: tokens to judge by in place of the corpus's valid split or the last tenth; at most `held_out_tokens`
        of them are used. `on_progress(done, total, what)`: what it raises ends the fit, after `partial` was given
        the lens as it was then, judged like a whole one. See `Recipe` for the optimizers.

        Warns (UndertrainedLensWarning) where the result is worse than the logit lens.

        Raises ValueError for data or settings that cannot be used, FloatingPointError if the fit diverges.
        """
        recipe = Recipe(
            optimizer=optimizer,
            steps=steps,
            batch=batch,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            seed=seed,
        )
        read = model_readout(model)
        rows, kept = fit_and_held_out(model, data, held_out, context)
        judged = kept.in_order(held_out_tokens)
        settings = {**asdict(recipe), "context": rows.context, "bias": bias}

        def made(fit: Fitted) -> "TunedLens":
            found = held_out_kl(model, read, fit.translators, fit.mean, judged, batch)
            return cls(
                fit.translators,
                model_name=model.model_name,
                weights_hash=model.weights_hash(),
                readout_hash=read.hash,
                mean_probabilities=fit.mean,
                report=report(model, found, fit.losses, judged.numel(), settings, seed),
            )

        stopped = None if partial is None else lambda fit: partial(made(fit))
        return made(fit_translators(model, read, rows, recipe, bias=bias, on_progress=on_progress, partial=stopped))

    def check_model(self, model: Any) -> None:
        """Raise ValueError unless `model` has the weights this lens was fitted on (the readout's, where that is all it
        knows).
        """
        if self.weights_hash is None:
            found, ours, what = model_readout(model).hash, self.readout_hash, "final norm and unembedding"
        else:
            found, ours, what = model.weights_hash(), self.weights_hash, "weights"
        if found != ours:
            raise ValueError(
                f"a tuned lens of {self.model_name} ({what} {ours[:12]}) was to be used on {model.model_name}, whose "
                f"{what} are {found[:12]}; translators fit one model only: fit a lens for this one, or load the model "
                "it came from"
            )

    def to(self, device: Any) -> "TunedLens":
        """The same lens with its tensors on `device`."""
        mean = self.mean_probabilities
        return TunedLens(
            Translators(*(t.to(device) for t in self.translators)),
            model_name=self.model_name,
            weights_hash=self.weights_hash,
            readout_hash=self.readout_hash,
            mean_probabilities=None if mean is None else mean.to(device),
            report=self.report,
        )

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, whole or not at all: `path`, or ``tuned_lens.safetensors`` in it if it has no
        suffix.

        The header says which model it belongs to and how it was fitted. Returns the file's path.
        """
        from safetensors.torch import save_file

        file = _file(path)
        if file != Path(path):
            file.parent.mkdir(parents=True, exist_ok=True)
        tensors = dict(self.translators._asdict())
        if self.mean_probabilities is not None:
            tensors["mean_probabilities"] = self.mean_probabilities
        header: dict[str, Any] = {
            "format": _FORMAT,
            "version": _VERSION,
            "model": self.model_name,
            "weights_hash": self.weights_hash,
            "readout_hash": self.readout_hash,
        }
        if self.report is not None:
            tensors |= {f"report/{name}": torch.from_numpy(getattr(self.report, name)) for name in _REPORT}
            header["report"] = {
                "control_kl": self.report.control_kl,
                "n_held_out_tokens": self.report.n_held_out_tokens,
                "provenance": self.report.provenance.to_json(),
            }
        with replacing(file) as temporary:
            save_file(
                {k: t.detach().cpu().contiguous() for k, t in tensors.items()},
                temporary,
                metadata={"strobe": json.dumps(header)},
            )
        return file

    @classmethod
    def load(cls, path: str | Path, model: Any) -> "TunedLens":
        """The lens that `save` wrote, for `model`, on its device.

        Raises CheckpointError (a ValueError) for a file that is missing, damaged or not a lens, and ValueError for a
        lens of another model, with both hashes.
        """
        file = _file(path)
        header, tensors = _read(file)
        said = header.get("report")
        made = cls(
            Translators(tensors["weight"], tensors["bias"]),
            model_name=header["model"],
            weights_hash=header["weights_hash"],
            readout_hash=header["readout_hash"],
            mean_probabilities=tensors.get("mean_probabilities"),
            report=None if said is None else _report(said, tensors),
        )
        made.check_model(model)
        return made.to(next(model.parameters()).device)


def _report(said: dict[str, Any], tensors: dict[str, Tensor]) -> LensFit:
    arrays: dict[str, np.ndarray] = {name: tensors[f"report/{name}"].numpy() for name in _REPORT}
    return LensFit(
        **arrays,
        control_kl=said["control_kl"],
        n_held_out_tokens=said["n_held_out_tokens"],
        provenance=Provenance.from_json(said["provenance"]),
    )


def _file(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix and not path.is_dir() else path / _FILE


def _read(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as opened:
            header = json.loads((opened.metadata() or {}).get("strobe", "{}"))
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"a tuned lens was to be read from {file}, which is not there; save one first") from error
    except SafetensorError as error:
        raise CheckpointError(f"{file} is not a whole safetensors file ({error}); save the lens again") from error
    if header.get("format") != _FORMAT or header.get("version") != _VERSION:
        raise CheckpointError(
            f"a tuned lens of version {_VERSION} was to be read from {file}; its header says format "
            f"{header.get('format')!r}, version {header.get('version')!r}; give a file that TunedLens.save wrote"
        )
    return header, tensors
