"""The file a result is saved in, and every way it can be the wrong file."""

import json
from dataclasses import MISSING, fields
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from strobe.core import codec
from strobe.core.atomic import replacing
from strobe.core.errors import ResultFileError
from strobe.core.provenance import Provenance
from strobe.core.result import Result, _as_record, result_class

# Of the file itself; what the fields of a class mean is its own `version`.
FORMAT = 1

# The safetensors metadata that holds everything but the arrays.
_ENTRY = "strobe"

# What the header of every result says beside its kind.
_SAYS: dict[str, type] = {"format": int, "class": str, "module": str, "version": int, "fields": dict}

# safetensors does not read a longer header.
_MAX_HEADER = 90_000_000


def write(result: Result, path: str | Path) -> Path:
    """Write `result` to one safetensors file at `path`, atomically. Raises ValueError if its text fields pass 90 MB."""
    from safetensors.numpy import save_file

    arrays: dict[str, np.ndarray] = {}
    name = type(result).__name__
    values = {k: codec.encode(v, k, arrays, _as_record) for k, v in result._values().items()}
    # One entry: safetensors writes several in any order, and the same result should be the same bytes.
    header = codec.dumps(
        {
            "kind": "result",
            "format": FORMAT,
            "class": name,
            "module": type(result).__module__,
            "version": type(result).version,
            "fields": values,
        }
    )
    if (size := len(header)) > _MAX_HEADER:
        raise ValueError(
            f"the text fields of {name} take {size} bytes, and {_MAX_HEADER} can be kept; keep long ones as arrays"
        )
    path = Path(path)
    with replacing(path) as temporary:
        save_file(arrays, temporary, metadata={_ENTRY: header})
    return path


def read(path: str | Path, wanted: type[Result] | None) -> Result:
    """The result at `path`; of class `wanted` unless None. Raises ResultFileError."""
    path = Path(path)
    asked = f"loading {wanted.__name__ if wanted else 'a result'} from {path}"
    header, arrays = _open(path, asked)
    if header.get("kind") != "result":
        raise ResultFileError(
            f"{asked}: this safetensors file is not a saved result (its header does not say so); "
            "weights are loaded with strobe.load, a lens with the fitter that saved it"
        )
    if wrong := [name for name, kind in _SAYS.items() if not isinstance(header.get(name), kind)]:
        raise ResultFileError(f"{asked}: the header is damaged (no {', '.join(wrong)}); save the result again")
    if header["format"] > FORMAT:
        raise ResultFileError(_newer(asked, "file format", header["format"], FORMAT))
    cls = _class(header, asked)
    if wanted is not None and not issubclass(cls, wanted):
        raise ResultFileError(
            f"{asked}: the file holds a {cls.__name__}; use {cls.__name__}.load, or load_result for any class"
        )
    if header["version"] > cls.version:
        raise ResultFileError(_newer(asked, cls.__name__, header["version"], cls.version))

    def build(kind: str, values: dict[str, Any]) -> Any:
        if kind == "Provenance":
            return _provenance(values, asked)
        nested = result_class(kind)
        if nested is None:
            raise ResultFileError(
                f"{asked}: it holds a {kind}, which no imported module defines; import that module first"
            )
        return _make(nested, values, asked)

    try:
        values = codec.decode(header["fields"], arrays, build)
    except (ValueError, KeyError) as error:
        if isinstance(error, ResultFileError):
            raise
        raise ResultFileError(f"{asked}: the header is damaged ({error}); save the result again") from error
    return _make(cls, values, asked)


def _open(path: Path, asked: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise ResultFileError(f"{asked}: there is no such file; check the path, or save a result there")
    if path.is_dir():
        raise ResultFileError(f"{asked}: this is a folder; give the .safetensors file inside it")
    size = path.stat().st_size
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get(_ENTRY, "{}"))
            if not isinstance(header, dict) or header.get("kind") != "result":
                # Weights may be larger than the memory: nothing of them is read to say that they are no result.
                return {}, {}
            return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ResultFileError(
            f"{asked}: its {size} bytes are not a whole safetensors file ({error}); "
            "the copy or download may have been cut short: copy it again"
        ) from error


def _class(header: dict[str, Any], asked: str) -> type[Result]:
    name, module = header["class"], header["module"]
    if (cls := result_class(name)) is None and module.partition(".")[0] == "strobe":
        # The class is ours and its module has not been imported yet. A file must not choose what else is imported.
        try:
            import_module(module)
        except ImportError as error:
            raise ResultFileError(
                f"{asked}: it holds a {name} of {module}, which cannot be imported ({error})"
            ) from error
        cls = result_class(name)
    if cls is None:
        raise ResultFileError(f"{asked}: it holds a {name}, which no imported module defines; import {module} first")
    return cls


def _make(cls: type[Result], values: dict[str, Any], asked: str) -> Result:
    known = {f.name: f for f in fields(cls)}
    if unknown := sorted(values.keys() - known.keys()):
        raise ResultFileError(
            f"{asked}: {cls.__name__} has no field {', '.join(unknown)}; the file is of another strobe version"
        )
    required = {name for name, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
    if missing := sorted(required - values.keys()):
        raise ResultFileError(
            f"{asked}: the file has no {', '.join(missing)}; it is of another version: make the result again"
        )
    return cls(**values)


def _provenance(values: dict[str, Any], asked: str) -> Provenance:
    if unknown := sorted(values.keys() - {f.name for f in fields(Provenance)}):
        raise ResultFileError(
            f"{asked}: its provenance has {', '.join(unknown)}; the file is of another strobe version"
        )
    return Provenance(**values)


def _newer(asked: str, what: str, found: int, known: int) -> str:
    return f"{asked}: {what} version {found}, and this strobe reads up to {known}; pip install --upgrade strobe"
