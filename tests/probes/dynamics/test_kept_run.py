"""Oracle: the same training in one piece, to the bit, whatever way it was stopped."""

import numpy as np
import pytest
import torch

from strobe.probes.dynamics.kept_run import KeptRun, kept_in


def train(run, stop=None, updates=9):
    """Twelve numbers by Adam on draws of both kinds of generator; `stop` raises in the body of that update."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)
    rng, draw = np.random.default_rng(0), torch.Generator().manual_seed(0)
    loop = run.loop("it", updates, {"a": 1}, model=model, optimizer=optimizer, schedule=schedule, rng=rng, draw=draw)
    seen = loop.noted({"seen": []})["seen"]
    for update in loop:
        x = torch.randn(5, 3, generator=draw) + float(rng.normal())
        if update == stop:
            raise RuntimeError("the machine is gone")
        loss = model(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        seen.append(update)
        loop.did(float(loss.detach()), "it")
    return loop, torch.cat([p.detach().flatten() for p in model.parameters()])


def stopping(after):
    def tick(done, total, what):
        if done == after:
            raise KeyboardInterrupt

    return tick


def test_a_training_that_was_stopped_twice_ends_in_the_same_bits(tmp_path):
    whole, expected = train(KeptRun(None))
    for after in (2, 7):
        with pytest.raises(KeyboardInterrupt):
            train(KeptRun(tmp_path, stopping(after)))
        (kept,) = kept_in(tmp_path)
        assert (kept["step"], kept["finished"], len(kept["losses"])) == (after, False, after)
    loop, found = train(KeptRun(tmp_path))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert loop.losses == whole.losses
    assert loop.notes["seen"] == list(range(9))
    assert loop.seconds > kept["seconds"] > 0
    # What is finished is opened and not made again.
    again, same = train(KeptRun(tmp_path), stop=0)
    torch.testing.assert_close(same, expected, rtol=0, atol=0)
    assert again.step == 9


def test_a_process_that_died_goes_on_from_its_last_writing(tmp_path):
    _, expected = train(KeptRun(None))
    with pytest.raises(KeyboardInterrupt):
        train(KeptRun(tmp_path, stopping(4)))
    with pytest.raises(RuntimeError, match="machine is gone"):
        train(KeptRun(tmp_path), stop=6)
    assert kept_in(tmp_path)[0]["step"] == 4
    torch.testing.assert_close(train(KeptRun(tmp_path))[1], expected, rtol=0, atol=0)


def test_another_number_of_updates_is_another_training(tmp_path):
    train(KeptRun(tmp_path))
    shorter, _ = train(KeptRun(tmp_path), updates=3)
    assert shorter.step == 3
    assert [kept["updates"] for kept in kept_in(tmp_path)] == [9, 3]


def test_a_body_that_does_not_say_that_an_update_is_made_is_refused():
    model = torch.nn.Linear(1, 1)
    with pytest.raises(AssertionError, match="has to end with did"):
        for _ in KeptRun(None).loop("it", 3, {}, model=model):
            pass


def test_how_far_all_are_counts_one_that_ended_early_in_full():
    told = []
    run = KeptRun(None, lambda done, total, what: told.append((done, total)), total=8)
    for stop in (1, 3):
        loop = run.loop(f"to {stop}", 4, {})
        for update in loop:
            if update == stop:
                loop.finish()
            loop.did(0.0, "it")
    assert told == [(1, 8), (4, 8), (5, 8), (6, 8), (7, 8), (8, 8)]
