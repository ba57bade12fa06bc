"""flash-linear-attention, carried to the machine in a folder: it is no dependency and is never installed.

``--fla FOLDER``, or STROBE_FLA: a folder with the wheels of flash-linear-attention 0.6, fla-core and einops (as
``pip download --no-deps`` leaves them), or one that they were unpacked into. Where transformers can import the package
it takes it for its own fallback: so rows of whole models are measured before it is put on the path.
"""

import sys
import tempfile
import zipfile
from importlib import import_module, invalidate_caches
from pathlib import Path
from typing import Any


def functions(folder: str | None) -> tuple[Any, Any] | None:
    """(chunk_simple_gla, chunk_gated_delta_rule) out of `folder`, or as installed; None where there is neither.

    Raises FileNotFoundError for a `folder` that is not there, and what the import raises for one without the package.
    """
    if folder is not None:
        _onto_the_path(Path(folder))
    else:
        try:
            import_module("fla")
        except ImportError:
            return None
    simple, gated = import_module("fla.ops.simple_gla"), import_module("fla.ops.gated_delta_rule")
    return simple.chunk_simple_gla, gated.chunk_gated_delta_rule


def _onto_the_path(folder: Path) -> None:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"flash-linear-attention was to be found in {folder}, which is no folder; give one with its wheels, or "
            "leave --fla and STROBE_FLA out"
        )
    place = folder
    if wheels := sorted(folder.glob("*.whl")):
        # Unpacked: Triton reads the source of a kernel from its file, and a wheel is an archive.
        place = Path(tempfile.mkdtemp(prefix="strobe-fla-"))
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(place)
    sys.path.insert(0, str(place))
    invalidate_caches()
