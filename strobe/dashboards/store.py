"""Results of jobs on disk, by what decides them: asked for again, a result is opened instead of computed."""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from strobe.core.errors import ResultFileError
from strobe.core.result import Result, load_result
from strobe.dashboards.home import home


class Saved(NamedTuple):
    """A result file: its kind, its path and when it was written (seconds since 1970)."""

    kind: str
    path: Path
    written: float


def key_of(kind: str, **decides: Any) -> str:
    """A hash of `kind` and of everything that decides the result, as plain values: the job's key and the file's name.

    >>> key_of("edit", value=0.5) == key_of("edit", value=0.5), key_of("edit", value=0.5) == key_of("edit", value=1.0)
    (True, False)
    """
    text = json.dumps([kind, decides], sort_keys=True, ensure_ascii=True, allow_nan=False)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"


def path_of(key: str) -> Path:
    """Where the result of `key` is, or would be."""
    return home() / "results" / f"{key}.safetensors"


def keep(key: str, result: Result) -> Path:
    """Write `result` under `key`; the folder is made."""
    path = path_of(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    return result.save(path)


def reopen(key: str) -> Result | None:
    """The result kept under `key`, or None. Raises ResultFileError if the file cannot be read."""
    path = path_of(key)
    return load_result(path) if path.is_file() else None


def read_upload(name: str, data: bytes) -> Result:
    """The result in a file called `name` that holds `data`. Raises ResultFileError, which names the file so."""
    with tempfile.TemporaryDirectory(prefix="strobe-") as folder:
        path = Path(folder) / "upload.safetensors"
        path.write_bytes(data)
        try:
            return load_result(path)
        except ResultFileError as error:
            # Where it lay for a moment says nothing to whoever sent it.
            raise ResultFileError(str(error).replace(str(path), name)) from error


def listing() -> list[Saved]:
    """Every kept result, newest first."""
    folder = home() / "results"
    files = folder.glob("*.safetensors") if folder.is_dir() else ()
    found = [Saved(f.name.rsplit("-", 1)[0], f, f.stat().st_mtime) for f in files]
    return sorted(found, key=lambda s: -s.written)
