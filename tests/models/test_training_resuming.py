"""Oracle: the run that was not interrupted, to the bit; the interruption is a real SIGKILL."""

import os
import pickle
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_training
import torch
from tiny_training import CONFIG, TOKENS, TinyModel, same_weights, trained

import strobe
from strobe.models.training import CHECKPOINT_FILE, random_windows, train

KILLED = replace(CONFIG, optimizer="muon", eval_every=4)


def _killed_child(out_dir: Path, when: str) -> None:
    """Run in a child process: train, and die by SIGKILL at update 8, or half-way through writing a checkpoint."""

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    if when == "writing":
        save = torch.save

        def half_of_the_second(state, path):
            if state["progress"]["step"] == 5:
                return save(state, path)
            Path(path).write_bytes(b"PK half")
            return die()

        torch.save = half_of_the_second
    trained(
        out_dir, KILLED, dropout=0.2, on_progress=lambda done, *_: die() if done == 8 and when == "updating" else None
    )


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="SIGKILL is POSIX")
def test_a_killed_run_resumes_to_the_same_bits(tmp_path):
    found = [Path(strobe.__file__).parents[1], Path(tiny_training.__file__).parent]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, found))}
    with ExitStack() as stack:
        children = {
            when: stack.enter_context(
                subprocess.Popen([sys.executable, __file__, str(tmp_path / when), when], env=environment)
            )
            for when in ("updating", "writing")
        }
        whole, uninterrupted = trained(tmp_path / "whole", KILLED, dropout=0.2)
    assert uninterrupted.resumed_from is None and len(uninterrupted.losses) == KILLED.steps
    for when, child in children.items():
        assert child.returncode == -signal.SIGKILL
        resumed, report = trained(tmp_path / when, KILLED, dropout=0.2)
        assert report.resumed_from == 5 and report.losses == uninterrupted.losses
        assert same_weights(resumed, whole)


def test_a_cancelled_run_keeps_its_work_and_resumes_to_the_same_bits(tmp_path):
    class Cancelled(Exception):
        pass

    def cancel_at_7(done, total, message):
        assert total == 12 and "loss" in message and "tokens/s" in message
        if done == 7:
            raise Cancelled

    with pytest.raises(Cancelled):
        trained(tmp_path / "a", dropout=0.2, on_progress=cancel_at_7)
    seen = []
    resumed, report = trained(tmp_path / "a", dropout=0.2, on_progress=lambda done, *_: seen.append(done))
    assert report.resumed_from == 7 and seen == [8, 9, 10, 11, 12]
    assert same_weights(resumed, trained(tmp_path / "b", dropout=0.2)[0])


def test_a_finished_run_is_loaded_and_not_repeated(tmp_path):
    first, report = trained(tmp_path)
    calls = []
    second, again = trained(tmp_path, on_progress=lambda *a: calls.append(a))
    assert same_weights(first, second) and again.losses == report.losses and not calls
    _, anew = trained(tmp_path, resume=False, on_progress=lambda *a: calls.append(a))
    assert len(calls) == 12 and anew.resumed_from is None


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    trained(tmp_path)
    with pytest.raises(ValueError, match=r"that run had learning_rate=0.01 \(now 0.02\); use its settings"):
        trained(tmp_path, replace(CONFIG, learning_rate=0.02))
    with pytest.raises(ValueError, match="first batch is not the first batch given now"):
        train(TinyModel(), random_windows(TOKENS[1:], CONFIG), CONFIG, out_dir=tmp_path)
    assert trained(tmp_path, replace(CONFIG, checkpoint_every=2))[1].resumed_from == 12


def test_no_code_is_run_from_a_checkpoint(tmp_path):
    class Payload:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"progress": Payload()}, tmp_path / CHECKPOINT_FILE)
    with pytest.raises(pickle.UnpicklingError):
        trained(tmp_path)
    assert not (tmp_path / "ran").exists()


if __name__ == "__main__":
    _killed_child(Path(sys.argv[1]), sys.argv[2])
