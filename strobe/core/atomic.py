"""Files that are either the old one or the whole new one, never half of it.

What is written goes to a temporary name in the same folder (a rename across file systems is a copy), is flushed to the
disk, and then takes the name asked for. After any failure the temporary is gone and the old file is as it was.
"""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends without an error it becomes the file `path`.

    Raises FileNotFoundError if the folder does not exist or the block wrote nothing, IsADirectoryError if `path` is a
    folder.
    """
    path = _target(path)
    if path.is_dir():
        raise IsADirectoryError(f"asked to write the file {path}, which is a folder; give a file name inside it")
    temporary = _beside(path)
    try:
        yield temporary
        if not temporary.is_file():
            raise FileNotFoundError(f"nothing was written for {path}; the block has to write the path it is given")
        # An overwritten file keeps its permissions.
        if path.exists():
            shutil.copymode(path, temporary)
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_directory(path: str | Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; when the block ends without an error it becomes the folder `path`.

    A folder that was at `path` is replaced as a whole: files in it that the block did not write are gone. Raises
    NotADirectoryError if `path` is a file, FileNotFoundError if the folder above does not exist.
    """
    path = _target(path)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(
            f"asked to write the folder {path}, which is a file; move it away or give another name"
        )
    temporary = _beside(path)
    old = temporary.with_suffix(".old")
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _flush(file)
        if path.exists():
            # A folder cannot be renamed over another that has files, so the old one steps aside first.
            os.replace(path, old)
        try:
            os.replace(temporary, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
        _flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` in UTF-8 with its line ends as they are, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def _target(path: str | Path) -> Path:
    # Through a link, the file it points to is what gets replaced.
    path = Path(path).expanduser().resolve()
    if not path.parent.is_dir():
        raise FileNotFoundError(f"asked to write {path}, but there is no folder {path.parent}; make it first")
    return path


def _beside(path: Path) -> Path:
    # Not tempfile's: those are readable by the owner alone, and the rename would keep that.
    return path.parent / f".{path.name}.{uuid.uuid4().hex[:12]}.part"


def _flush(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
