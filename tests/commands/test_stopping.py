"""Oracle: the signal that a terminal sends on Ctrl-C, and the file that is there afterwards."""

import re
import signal

import pytest
from cutting import ctrl_c_at
from tiny_text import save_tiny_gru

from strobe import cli
from strobe.commands.common.stopping import stoppable
from strobe.core.result import load_result
from strobe.probes.repetition import greedy_loop, loops

TEXT = "a = 1\nb = 2\n" * 4


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny_gru(tmp_path_factory.mktemp("models") / "tiny", TEXT * 9, 258)


@pytest.fixture
def interrupted(monkeypatch):
    """A function that has Ctrl-C pressed `times` in the middle of the `nth` round of drawing tokens."""
    real, rounds = loops.draw_each, []

    def at(nth: int, times: int = 1) -> None:
        def draw(streams, drawn):
            rounds.append(len(rounds))
            for _ in range(times if len(rounds) == nth else 0):
                signal.raise_signal(signal.SIGINT)
            real(streams, drawn)

        monkeypatch.setattr(loops, "draw_each", draw)

    return at


def loop(tiny, out) -> int:
    asked = ["repetition", "loop", tiny, "--text", TEXT, "--tokens", 20, "--out", out]
    return cli.main([str(a) for a in asked])


def test_what_was_found_by_then_is_written_and_the_status_says_that_it_was_stopped(tiny, tmp_path, capsys, interrupted):
    from strobe.models import load_checkpoint

    before = signal.getsignal(signal.SIGINT)
    interrupted(9)
    assert loop(tiny, tmp_path / "l.json") == 130
    kept = load_result(tmp_path / "l.safetensors")
    # The round that was interrupted is finished first.
    assert kept.new == greedy_loop(load_checkpoint(tiny), TEXT, max_new_tokens=20).new[:9]
    said = capsys.readouterr()
    assert "cut short after 9 of 20 new tokens" in said.out and "stopped; what was found by then" in said.out
    assert "stopping at the next step" in said.err and "interrupted" in said.err
    assert (tmp_path / "l.json").is_file() and signal.getsignal(signal.SIGINT) is before


def test_pressed_again_it_ends_at_once_and_before_the_first_step_nothing_is_written(tiny, tmp_path, interrupted):
    interrupted(9, times=2)
    assert loop(tiny, tmp_path / "l.json") == 130
    assert not list(tmp_path.iterdir())


def test_stopped_before_anything_was_found_nothing_is_written(tiny, tmp_path, monkeypatch):
    from strobe.dashboards import repetition_work

    def nothing(model, what, settings, progress, partial):
        signal.raise_signal(signal.SIGINT)
        progress(0, 1, "first step")

    monkeypatch.setattr(repetition_work, "run", nothing)
    assert loop(tiny, tmp_path / "l.json") == 130
    assert not list(tmp_path.iterdir())


def test_away_from_the_main_thread_it_only_shows_progress():
    import threading

    seen = []

    def work() -> None:
        with stoppable() as tick:
            tick(0, 1, "a step")
            seen.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]


@pytest.mark.parametrize(
    ("asked", "nth"),
    [
        (["memory", "--tokens", 16384, "--rows", 1, "--train-length", 64, "--text", TEXT * 420], 2),
        (["memory", "--analysis", "loss", "--tokens", 64, "--rows", 6, "--train-length", 16, "--text", TEXT * 40], 2),
        (["cells", "--importance", 0, "--text", TEXT], 2),
        (["fixed-points", "--what", "cycles", "--text", "a", "--initial", 16], 3),
        (["fixed-points", "--what", "block", "--text", "ab"], 60),
    ],
)
def test_commands_keep_what_a_watcher_was_shown(tiny, tmp_path, monkeypatch, capsys, asked, nth):
    """Ctrl-C at the `nth` step that the command reports."""
    steps = ctrl_c_at(monkeypatch, nth)
    command, *options = asked
    assert cli.main([str(a) for a in [command, tiny, *options, "--out", tmp_path / "kept.json"]]) == 130
    kept = load_result(tmp_path / "kept.safetensors")
    assert re.match(r"cut short after \d+ of \d+", kept.partial) and len(steps) == nth
    assert "stopped; what was found by then" in capsys.readouterr().out
