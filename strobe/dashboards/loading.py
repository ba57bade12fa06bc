"""Models as the pages use them: found without the network, loaded once, and held by one user at a time.

A model with hooks is not safe to run from two threads, so whoever runs one holds its lock. Long jobs load their own.
"""

import json
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from strobe.core.errors import nearest

# Models kept in memory at a time.
_KEPT = 2
LENS_FILE = "tuned_lens.safetensors"


@dataclass(frozen=True)
class Source:
    """Where a model is: its name as the user gave it, its folder, and a stamp that changes when its files do."""

    name: str
    folder: Path
    bundled: bool
    stamp: str


@dataclass(frozen=True)
class Loaded:
    """A model in memory. Run it only inside ``with loaded.lock``. `mixers`: the kind of each block."""

    source: Source
    model: Any
    mixers: tuple[str, ...]
    recurrent: tuple[int, ...]
    lock: Any = field(default_factory=threading.RLock, compare=False)

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.mixers)


def bundled() -> list[str]:
    """Names of the bundled models."""
    import strobe

    return list(strobe.available())


def find(name: str) -> Source:
    """The model called `name`: a bundled one, a folder, or a hub model that is already on this machine.

    Raises ValueError saying what there is instead. Never asks the network.
    """
    asked = name.strip()
    if not asked:
        raise ValueError("no model was given; choose a bundled one, or type the path of a folder with a checkpoint")
    if asked in bundled():
        from strobe.models import zoo

        return _source(asked, zoo.folder(asked), is_bundled=True)
    path = Path(asked).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ValueError(
                f"{path} was asked for; it is a folder without config.json: give the one that holds the checkpoint"
            )
        return _source(asked, path.resolve(), is_bundled=False)
    if path.exists():
        raise ValueError(f"{path} was asked for; it is a file: give the folder that holds config.json and the weights")
    if _is_hub_id(asked):
        return _from_hub_cache(asked)
    close = nearest(asked, bundled())
    hint = (
        f"did you mean {' or '.join(close)}?" if close else f"bundled: {', '.join(bundled()) or 'none in this build'}"
    )
    raise ValueError(f"model {asked!r} was asked for; there is no bundled model and no folder of that name; {hint}")


class NotHere(ValueError):
    """A hub model that is not on this machine."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"model {name!r} was asked for; it is no folder here and not in the hub's cache on this machine. The "
            f"dashboard downloads nothing: fetch it once with `strobe info {name}`, or give the path of a folder"
        )
        self.name = name


class Models:
    """The models in memory, the most recently used ones."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._loaded: OrderedDict[Source, Loaded] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, name: str) -> Loaded:
        """The model called `name`, loaded now if it is not in memory or its files have changed. Raises as `find`, and
        CheckpointError for files that cannot be used."""
        source = find(name)
        # Loading inside the lock: two tabs that ask at once load it once.
        with self._lock:
            if source not in self._loaded:
                self._loaded[source] = load(source)
            self._loaded.move_to_end(source)
            while len(self._loaded) > self._kept:
                self._loaded.popitem(last=False)
            return self._loaded[source]

    def has(self, source: Source) -> bool:
        """Whether the model of `source` is in memory."""
        return source in self._loaded


def load(source: Source) -> Loaded:
    """The model of `source`, a new one each time."""
    import strobe

    return _loaded(source, strobe.load(source.name if source.bundled else source.folder))


def in_memory(name: str, model: Any) -> Loaded:
    """`model` as if it had been found under `name`."""
    return _loaded(Source(name, Path(name), False, model.weights_hash()), model)


def _loaded(source: Source, model: Any) -> Loaded:
    recurrent = tuple(sorted(int(n.split(".")[1]) for n in model.mixers if n.endswith(".mixer")))
    kinds = [
        type(model.mixers[f"blocks.{i}.mixer"]).__name__ if i in recurrent else "Attention"
        for i in range(model.cfg.n_layers)
    ]
    return Loaded(source, model, tuple(kinds), recurrent)


_MODELS = Models()


def open_model(name: str) -> Loaded:
    """The model called `name` from this process's models."""
    return _MODELS.open(name)


def is_open(name: str) -> bool:
    """Whether the model called `name` is in memory. Raises as `find`."""
    return _MODELS.has(find(name))


def facts(loaded: Loaded) -> dict[str, str]:
    """What there is to know about a model at a glance, in words."""
    model, counts = loaded.model, {kind: loaded.mixers.count(kind) for kind in dict.fromkeys(loaded.mixers)}
    parameters = sum(p.numel() for p in model.parameters())
    found = {
        "Blocks": f"{loaded.n_layers}",
        "Mixers": ", ".join(f"{n} × {kind}" for kind, n in counts.items()),
        "Parameters": f"{parameters:,}",
        "Width": f"{model.cfg.d_model}",
        "Vocabulary": f"{model.cfg.d_vocab:,}",
    }
    bits = _bits_per_byte(card(loaded.source))
    return {**found, "Bits per byte": f"{bits:.3f}" if bits is not None else "not measured"}


def card(source: Source) -> dict[str, Any]:
    """The model's card as it was written, or nothing. Raises ValueError for a damaged one."""
    file = source.folder / "card.json"
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not JSON ({error}); restore the file or remove it") from error
    return found if isinstance(found, dict) else {"card": found}


def _bits_per_byte(found: dict[str, Any]) -> float | None:
    """On held-out text, as the card says it: a number, or one for each split."""
    said = found.get("bits_per_byte")
    if isinstance(said, dict):
        said = said.get("test", said.get("valid"))
    return float(said) if isinstance(said, int | float) else None


def _source(name: str, folder: Path, *, is_bundled: bool) -> Source:
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    stats = [(f.name, s.st_mtime_ns, s.st_size) for f in files if f.name != LENS_FILE and (s := f.stat())]
    return Source(name, folder, is_bundled, repr(stats))


def _is_hub_id(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 2 and all(parts) and not name.startswith((".", "~"))


def _from_hub_cache(name: str) -> Source:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise NotHere(name) from error
    return _source(name, folder, is_bundled=False)
