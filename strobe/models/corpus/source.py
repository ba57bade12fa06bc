"""The standard library's source files, and which of the three splits each belongs to.

A file's split is a function of its path alone, so two machines with the same Python agree on it without exchanging
anything, and a file keeps its split when its content changes from one release to the next.

What is left out, and why:

- ``site-packages``, ``dist-packages``, ``__pycache__``: not the standard library;
- ``test`` at the top: 17 MB of regression tests, more than everything else together, and often not installed;
- ``encodings`` and ``pydoc_data``: character tables and one 0.7 MB generated text, which are data in Python syntax and
  would decide a held-out figure by the split they happen to fall in;
- ``_sysconfigdata*``, ``config-*``, ``sitecustomize.py``, ``usercustomize.py``: written when the interpreter was
  built or installed, so they differ between two machines with the same Python;
- files that are not UTF-8 (fixtures of a few test suites), which `standard_library_documents` returns by name.

idlelib and the packages' own test folders stay: with them there are about 4 M training tokens of 2.7 bytes.
"""

import hashlib
import sysconfig
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

Split = Literal["train", "valid", "test"]

VALID_FRACTION = 0.05
TEST_FRACTION = 0.05

_OUTSIDE = frozenset({"site-packages", "dist-packages", "__pycache__"})
_LEFT_OUT_AT_TOP = frozenset({"test", "encodings", "pydoc_data", "sitecustomize.py", "usercustomize.py"})
_MADE_AT_INSTALLATION = ("_sysconfigdata", "config-")


class Document(NamedTuple):
    """One source file. `path` is relative to the standard library, with forward slashes."""

    path: str
    text: str

    @property
    def n_bytes(self) -> int:
        """Length of the file in bytes."""
        return len(self.text.encode())


def split_of(path: str) -> Split:
    """The split of the file at `path` (relative to the standard library, with forward slashes).

    The first eight bytes of the path's SHA-256, read as a fraction of one, are compared with 5 % and 10 %.
    """
    u = int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "big") / 2**64
    if u < VALID_FRACTION:
        return "valid"
    return "test" if u < VALID_FRACTION + TEST_FRACTION else "train"


def standard_library() -> Path:
    """The folder of the running interpreter's standard library."""
    return Path(sysconfig.get_paths()["stdlib"])


def standard_library_documents(root: Path | None = None) -> tuple[list[Document], list[str]]:
    """Every source file that belongs to the corpus, by path, and the paths of those that are not UTF-8.

    Line endings are kept as they are in the file. Raises FileNotFoundError where `root` holds no such file (an
    embedded Python keeps its library in a zip archive).
    """
    root = standard_library() if root is None else root
    documents, not_utf8 = [], []
    for path in sorted(_paths(root)):
        try:
            documents.append(Document(path, (root / path).read_bytes().decode("utf-8")))
        except UnicodeDecodeError:
            not_utf8.append(path)
    if not documents:
        raise FileNotFoundError(
            f"the corpus is built from *.py files under {root}; found none; use a Python installed with its source"
        )
    return documents, not_utf8


def regression_test_documents(root: Path | None = None) -> list[Document]:
    """Held-out files of the library's own ``test`` folder, by path; none where it is not installed.

    The folder is no part of the corpus, so no bundled model has read any of it; those whose path is of the training
    split are left out all the same. So are files that are not UTF-8, which are there to test just that.
    """
    root = standard_library() if root is None else root
    documents = []
    for file in sorted((root / "test").rglob("*.py")):
        path = file.relative_to(root).as_posix()
        if split_of(path) != "train":
            try:
                documents.append(Document(path, file.read_bytes().decode("utf-8")))
            except UnicodeDecodeError:
                continue
    return documents


def _paths(root: Path) -> Iterator[str]:
    for file in root.rglob("*.py"):
        relative = PurePosixPath(file.relative_to(root).as_posix())
        top = relative.parts[0]
        if _OUTSIDE.intersection(relative.parts) or top in _LEFT_OUT_AT_TOP or top.startswith(_MADE_AT_INSTALLATION):
            continue
        yield str(relative)


def digest_of(documents: list[Document]) -> str:
    """SHA-256 over every path and content, as 64 hexadecimal digits."""
    total = hashlib.sha256()
    for document in documents:
        total.update(hashlib.sha256(document.path.encode()).digest())
        total.update(hashlib.sha256(document.text.encode()).digest())
    return total.hexdigest()
