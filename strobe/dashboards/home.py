"""Where strobe keeps what a user made: results of jobs, and lenses trained here."""

import os
from pathlib import Path


def home() -> Path:
    """``$STROBE_HOME``, else ``$XDG_DATA_HOME/strobe``, else ``~/.local/share/strobe``."""
    if named := os.environ.get("STROBE_HOME"):
        return Path(named).expanduser()
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "strobe"
