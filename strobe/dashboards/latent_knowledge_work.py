"""The long work of the latent-knowledge page: every probe, in every context and at every layer, with its controls."""

from pathlib import Path
from typing import Any

from strobe.dashboards import loading, store
from strobe.dashboards.jobs import Tick
from strobe.dashboards.partial import keep_what_is_found

POINTS = {"residual stream": "resid_post", "mixer's output": "mixer_out", "state": "carry"}


def why_not(loaded: loading.Loaded) -> str:
    """Why there are no problems to ask `loaded` without a file of them; "" where there are."""
    from strobe.probes.latent_knowledge import study_of

    try:
        # The fewest that make a study: it is made to see whether one can be.
        study_of(loaded.model, n_train=200, n_test=200, n_paraphrases=0)
    except ValueError as error:
        return str(error)
    return ""


def knowledge_key(source: loading.Source, point: str, problems: str) -> str:
    """The job's key and the result's name, from everything that decides it. Raises ValueError without the file."""
    stamp = None
    if problems:
        path = Path(problems).expanduser()
        if not path.is_file():
            raise ValueError(
                f"problems were asked for in {problems}; there is no such file: give the path of a JSON file"
            )
        stamp = path.stat().st_mtime_ns
    decides: dict[str, Any] = {"model": source.name, "stamp": source.stamp, "point": point, "problems": problems}
    return store.key_of("knowledge", file=stamp, **decides)


def probe_knowledge(key: str, name: str, point: str, problems: str, tick: Tick) -> Path:
    """Fit and test every probe on the model called `name`, with its own problems or those in the file `problems`."""
    from strobe.probes.latent_knowledge import latent_knowledge, load_problems, study_of

    def probe(model: Any, **said: Any) -> Any:
        study = load_problems(Path(problems).expanduser()) if problems else study_of(model)
        return latent_knowledge(model, study, point=point, **said)

    return keep_what_is_found(key, name, tick, probe)
