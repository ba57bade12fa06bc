"""The long work of the features page: an autoencoder trained, its atlas, and what a feature does; all of it kept."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from strobe.dashboards import loading, store
from strobe.dashboards.home import home
from strobe.dashboards.jobs import Tick, Work, runner
from strobe.dashboards.partial import keep_last
from strobe.dashboards.work import LibraryTokens

if TYPE_CHECKING:
    from strobe.probes.sae import SparseAutoencoder


class SaeFile(NamedTuple):
    """An autoencoder that can be opened: where it came from, in words, and its folder."""

    label: str
    path: Path


def sae_home(loaded: loading.Loaded) -> Path:
    """Where autoencoders trained here for this model's weights are kept."""
    return home() / "saes" / loaded.model.weights_hash()[:20]


def sae_files(loaded: loading.Loaded) -> list[SaeFile]:
    """Autoencoders of this model: trained here first, then those that came with it."""
    kept = sae_home(loaded)
    found = [SaeFile(f"{p.parent.name} (trained here)", p.parent) for p in sorted(kept.glob("*/cfg.json"))]
    if loaded.source.bundled:
        from strobe.probes.sae import bundled_saes

        found += [SaeFile(f"{name} (bundled)", path) for name, path in bundled_saes(loaded.source.name).items()]
    return found


def python_text(loaded: loading.Loaded) -> Any:
    """Python's standard library in splits: as the bundled models were trained on it, or as another tokenizer reads it.

    Raises ValueError for a model without a tokenizer.
    """
    from strobe.models.corpus import SEPARATOR, PythonCorpus

    if loaded.model.tokenizer is None:
        raise ValueError(
            f"text was to be read by {loaded.source.name}, which came without a tokenizer; put tokenizer.json in its "
            "folder"
        )
    file = loaded.source.folder / "tokenizer.json"
    if file.is_file() and SEPARATOR in loaded.model.tokenizer.get_vocab():
        return PythonCorpus.build(tokenizer=file)
    return LibraryTokens(loaded.model)


def open_sae(loaded: loading.Loaded, file: SaeFile) -> "SparseAutoencoder":
    """The autoencoder in `file`, checked against the model. Raises ValueError, with the reason, if it is not of it."""
    from strobe.probes.sae import SparseAutoencoder

    return SparseAutoencoder.load(file.path, loaded.model)


def start(key: str, label: str, work: Work) -> None:
    """Start `work`, or attach to the job of the same `key` that has not finished: for a button."""
    runner().submit(key, label, work)


def train_key(source: loading.Source, hook_name: str, settings: dict[str, Any]) -> str:
    """The key of a training job."""
    return store.key_of("sae", model=source.name, stamp=source.stamp, hook_name=hook_name, **settings)


def train_for_page(name: str, hook_name: str, settings: dict[str, Any], folder: Path, tick: Tick) -> Path:
    """A page's training job, on its own copy of the model; returns the folder."""
    from strobe.probes.sae import SaeConfig, make_sae

    tick(0, 1, "loading the model")
    loaded = loading.load(loading.find(name))
    make_sae(loaded.model, python_text(loaded), hook_name, folder, config=SaeConfig(**settings), on_progress=tick)
    return folder


def atlas_key(source: loading.Source, sae_hash: str, n_tokens: int) -> str:
    """The key of an atlas: one for each autoencoder and amount of text."""
    return store.key_of("atlas", model=source.name, stamp=source.stamp, sae=sae_hash, n_tokens=n_tokens)


def make_atlas(key: str, name: str, folder: str | Path, n_tokens: int, tick: Tick) -> Path:
    """Read held-out text with the autoencoder in `folder` and keep its atlas under `key`; of a cancelled job that of
    the text read by then."""
    from strobe.probes.sae import feature_atlas

    tick(0, 1, "loading the model")
    loaded = loading.load(loading.find(name))
    sae, text = open_sae(loaded, SaeFile("", Path(folder))), python_text(loaded)
    return keep_last(
        key,
        tick,
        lambda progress, partial: feature_atlas(
            loaded.model, sae, text, n_tokens=n_tokens, on_progress=progress, partial=partial
        ),
    )


def play_key(source: loading.Source, subject: Any, sae_hash: str, settings: dict[str, Any]) -> str:
    """The key of a feature turned up in one text."""
    return store.key_of("feature", model=source.name, stamp=source.stamp, subject=subject, sae=sae_hash, **settings)


def play(key: str, name: str, folder: str | Path, subject: Any, settings: dict[str, Any], tick: Tick) -> Path:
    """Continue `subject` as `settings` say, with a feature turned up, ablated, and a control turned up instead; of a
    cancelled job what was written by then."""
    from strobe.probes.sae import feature_play

    tick(0, 1, "loading the model")
    loaded = loading.load(loading.find(name))
    sae = open_sae(loaded, SaeFile("", Path(folder)))
    return keep_last(
        key,
        tick,
        lambda progress, partial: feature_play(
            loaded.model,
            sae,
            subject,
            settings["feature"],
            settings["value"],
            (settings["control"], settings["control_value"]),
            max_new_tokens=settings["new"],
            temperature=settings["temperature"],
            progress=progress,
            partial=partial,
        ),
    )


def stamp_of(folder: str) -> float:
    """What changes when the autoencoder in `folder` does; 0 where there is none."""
    file = Path(folder) / "sae_weights.safetensors"
    return file.stat().st_mtime if file.is_file() else 0.0


def judged(folder: str) -> str:
    """What its card says of an autoencoder on held-out text, in words."""
    file = Path(folder) / "card.json"
    if not file.is_file():
        return "no card: how well it reconstructs is not known"
    try:
        table = json.loads(file.read_text(encoding="utf-8"))["tables"][0]
        by_name = {row[0]: dict(zip(table["columns"], row, strict=True)) for row in table["rows"]}
        ours, pca = (by_name[name]["explained_variance"] for name in ("autoencoder", "PCA"))
        kept = by_name["autoencoder"]["recovered_against_zero"]
    except (json.JSONDecodeError, KeyError, IndexError, UnicodeDecodeError):
        return "its card cannot be read"
    # Where a zero ablation does no harm there is nothing to recover.
    recovers = "" if kept is None else f", recovers {kept:.1%} of the cross-entropy"
    return f"explains {ours:.1%} of the variance (PCA {pca:.1%}){recovers}"
