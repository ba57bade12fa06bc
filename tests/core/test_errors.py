"""Oracle: misspellings whose intended name is known, and Python's own exception classes."""

import pytest

from strobe.core import errors
from strobe.core.errors import did_you_mean, nearest

NAMES = [
    f"blocks.{i}.{point}" for i in range(12) for point in ("hook_resid_pre", "hook_resid_post", "mixer.hook_state")
]


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("blocks.3.mixer.hook_sate", "blocks.3.mixer.hook_state"),
        ("blocks.11.hook_resid_poste", "blocks.11.hook_resid_post"),
        ("block.7.hook_resid_pre", "blocks.7.hook_resid_pre"),
        # The right point on another module: only the last part matches.
        ("backbone.transformer.h.0.time_mixing.hook_state", "blocks.0.mixer.hook_state"),
    ],
)
def test_the_intended_name_comes_first(asked: str, meant: str):
    assert nearest(asked, NAMES)[0] == meant


def test_nothing_close_offers_nothing():
    assert nearest("temperature", NAMES) == []
    assert did_you_mean("temperature", NAMES) == ""


def test_at_most_n_and_none_twice():
    found = nearest("blocks.1.hook_resid_pre", [*NAMES, *NAMES], n=4)
    assert len(found) == len(set(found)) == 4


@pytest.mark.parametrize(
    ("candidates", "text"),
    [
        (["state"], "; did you mean 'state'?"),
        (["state", "states"], "; did you mean 'state' or 'states'?"),
        (["state", "states", "stated"], "; did you mean 'state', 'stated' or 'states'?"),
    ],
)
def test_names_are_listed_as_a_sentence(candidates: list[str], text: str):
    assert did_you_mean("state", candidates) == text


def test_who_catches_pythons_classes_catches_ours():
    assert issubclass(errors.HookError, ValueError)
    assert issubclass(errors.CheckpointError, ValueError)
    assert issubclass(errors.ResultFileError, ValueError)
    assert issubclass(errors.SeamError, RuntimeError)
    assert issubclass(errors.CaptureTooLarge, RuntimeError)
    assert issubclass(errors.ExportError, RuntimeError)
