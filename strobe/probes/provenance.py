"""Where a probe's numbers come from, read off the model that was asked."""

from typing import Any

from strobe.core import Provenance


def provenance_of(
    model: Any, *, seed: int | None = None, settings: dict[str, Any] | None = None, control: str | None = None
) -> Provenance:
    """The provenance of a result computed with `model`; call it after the run, when the model knows which backends ran.

    `settings`: the arguments that change the numbers, as plain values. `control`: what the result is compared with.
    """
    return Provenance(
        model=model.model_name,
        weights_hash=model.weights_hash(),
        revision=getattr(model, "revision", None),
        seed=seed,
        settings=dict(settings or {}),
        backend=dict(model.ran),
        control=control,
    )
