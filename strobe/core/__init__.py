"""What every other layer stands on: results, provenance, figures' look, names, errors. No torch here."""

from strobe.core.errors import CaptureTooLarge, CheckpointError, ExportError, HookError, ResultFileError, SeamError
from strobe.core.provenance import Provenance
from strobe.core.result import Result, load_result

__all__ = [
    "CaptureTooLarge",
    "CheckpointError",
    "ExportError",
    "HookError",
    "Provenance",
    "Result",
    "ResultFileError",
    "SeamError",
    "load_result",
]
