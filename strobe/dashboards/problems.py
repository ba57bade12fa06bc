"""Which errors are the user's to mend, and may be shown as they are; of the others only an id is shown.

strobe's own errors say what was asked, what was found and what to do, and are ValueErrors or of `strobe.core.errors`.
The text of any other error may hold anything, so it goes to the log.
"""

import traceback

from strobe.core.errors import CaptureTooLarge, ExportError, SeamError

_OURS = (ValueError, IndexError, CaptureTooLarge, ExportError, SeamError, FloatingPointError)


def is_users(error: BaseException) -> bool:
    """Whether `error` was raised by strobe's own code to tell the user something."""
    if not isinstance(error, _OURS):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    return not frames or "strobe" in frames[-1].filename.replace("\\", "/").split("/")
