"""What strobe raises beyond ValueError and TypeError, and the nearest names that its messages offer.

Every class here is also one of Python's own (ValueError, RuntimeError, ArithmeticError), so that a caller who knows
none of them still catches them.
"""

from collections.abc import Iterable
from difflib import SequenceMatcher


class HookError(ValueError):
    """A hook that does not exist, did not fire, or returned what it must not."""


class SeamError(RuntimeError):
    """A model of another library does not have the tensors or the calls that our mixer was going to take over."""


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, of another architecture, or not safe to load."""


class ResultFileError(ValueError):
    """A saved result that is missing, damaged, newer than this version of strobe, or of another class."""


class CaptureTooLarge(RuntimeError):
    """A run refused before it starts, because what it was asked to keep does not fit in memory."""


class NonFiniteActivation(ArithmeticError):
    """A forward pass that ended in NaN; the message says where it began."""


class ExportError(RuntimeError):
    """A figure that cannot be written in the format asked for."""


def nearest(name: str, candidates: Iterable[str], n: int = 3) -> list[str]:
    """Up to `n` of `candidates` that look most like `name`, best first; none if nothing is close.

    Names made of parts (``blocks.3.mixer.hook_state``) are compared as a whole and by their last part, so that a right
    name on a wrong path is still found.

    >>> nearest("blocks.3.mixer.hook_stat", ["blocks.3.mixer.hook_state", "hook_embed"])
    ['blocks.3.mixer.hook_state']
    """
    scored = [(_likeness(name, candidate), candidate) for candidate in dict.fromkeys(candidates)]
    close = sorted((pair for pair in scored if pair[0] >= _CLOSE), key=lambda pair: (-pair[0], pair[1]))
    return [candidate for _, candidate in close[:n]]


def did_you_mean(name: str, candidates: Iterable[str], n: int = 3) -> str:
    """The end of an error message: ``"; did you mean 'a' or 'b'?"``, or ``""`` when nothing is close.

    >>> did_you_mean("hook_embd", ["hook_embed", "ln_final.hook_scale"])
    "; did you mean 'hook_embed'?"
    """
    names = [repr(candidate) for candidate in nearest(name, candidates, n)]
    if not names:
        return ""
    return f"; did you mean {' or '.join([', '.join(names[:-1]), names[-1]] if len(names) > 1 else names)}?"


# difflib's own cutoff for close matches.
_CLOSE = 0.6


def _likeness(name: str, candidate: str) -> float:
    whole = SequenceMatcher(None, name, candidate).ratio()
    last = SequenceMatcher(None, name.rpartition(".")[2], candidate.rpartition(".")[2]).ratio()
    # The whole name decides among equals; a matching last part alone is worth a suggestion, ranked below.
    return max(whole, 0.9 * last)
