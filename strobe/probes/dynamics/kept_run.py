"""`KeptRun`: where the trainings of a case study stand, kept in a folder, so that one that was stopped goes on.

A case study is a few trainings and then measurements. Each training is a `Loop`: an iterator of the updates that are
still to be made. It knows everything that decides the rest of them (weights, optimiser, random generators, what was
noted on the way), writes that every few seconds and when the study is stopped, and puts it back the next time, so that
a run in two pieces ends in the bits of a run in one.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from strobe.core.atomic import replacing

Tick = Callable[[int, int, str], None]
"""Called with (done, total, what) between pieces of work; it may raise to cancel."""

# Seconds of the processor between two writings.
_EVERY = 10.0


class KeptRun:
    """The trainings of one study. `folder`: where they are kept (None: nowhere); it is made. `total`: how many updates
    they make in all, for `progress`."""

    def __init__(self, folder: str | Path | None, progress: Tick | None = None, *, total: int = 0) -> None:
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        self.total, self._progress, self._loops = total, progress, list[Loop]()

    @property
    def seconds(self) -> float:
        """Of the processor, spent in all its loops, in whichever process."""
        return sum(loop.seconds for loop in self._loops)

    def loop(self, name: str, updates: int, settings: dict[str, Any], **holds: Any) -> "Loop":
        """The training `name` of `updates` updates, put back to where it stood.

        `settings`: plain values that decide it; one of other settings is another training, with a file of its own.
        `holds`: what changes on the way: modules, optimisers, schedules, and numpy's and torch's random generators.
        """
        loop = Loop(self, name, updates, settings, holds)
        self._loops.append(loop)
        return loop

    def tick(self, what: str) -> None:
        """Say how far all the loops are. Raises what `progress` raises."""
        if self._progress is not None:
            made = sum(loop.updates if loop.finished else loop.step for loop in self._loops)
            self._progress(made, max(self.total, made), what)


class Loop:
    """Iterates over the updates still to be made; the body ends with `did`. `losses`: of every update that was made.
    `notes`: plain values and tensors that the caller keeps with it. The update that ends it early calls `finish`."""

    def __init__(self, run: KeptRun, name: str, updates: int, settings: dict[str, Any], holds: dict[str, Any]) -> None:
        self.run, self.name, self.updates, self.holds = run, name, updates, holds
        self.step, self.finished, self.seconds, self.begun = 0, False, 0.0, time.time()
        self.losses, self.notes = list[float](), dict[str, Any]()
        decides = json.dumps([name, updates, settings], sort_keys=True)
        digest = hashlib.sha256(decides.encode()).hexdigest()[:16]
        self._file = None if run.folder is None else run.folder / f"{digest}.pt"
        self._written = time.process_time()
        if self._file is not None and self._file.is_file():
            self._restore(torch.load(self._file, map_location="cpu", weights_only=True))

    def __iter__(self) -> Iterator[int]:
        if self.finished:
            return
        self._began = time.process_time()
        while self.step < self.updates and not self.finished:
            before = self.step
            yield before
            assert self.step == before + 1, "the body of a loop has to end with did()"
        self.finished = True
        self._count()
        self._write()

    def noted(self, first: dict[str, Any]) -> dict[str, Any]:
        """The caller's own values, kept with the training: those of a training that goes on, `first` of a new one."""
        self.notes = self.notes or first
        return self.notes

    def did(self, loss: float, what: str) -> None:
        """One update is made. Raises what the run's progress raises, once the training is kept."""
        self.step += 1
        self.losses.append(loss)
        try:
            self.run.tick(what)
        except BaseException:
            self._count()
            self._write()
            raise
        if time.process_time() - self._written > _EVERY:
            self._count()
            self._write()

    def finish(self) -> None:
        """Nothing is left to do: the update that is being made is the last."""
        self.finished = True

    def _count(self) -> None:
        now = time.process_time()
        self.seconds, self._began = self.seconds + now - self._began, now

    def _write(self) -> None:
        self._written = time.process_time()
        if self._file is None:
            return
        kept = {
            "name": self.name,
            "begun": self.begun,
            "updates": self.updates,
            "step": self.step,
            "finished": self.finished,
            "seconds": self.seconds,
            "losses": self.losses,
            "notes": self.notes,
            "holds": {name: _state(held) for name, held in self.holds.items()},
        }
        with replacing(self._file) as temporary:
            torch.save(kept, temporary)

    def _restore(self, kept: dict[str, Any]) -> None:
        for name, held in self.holds.items():
            _put_back(held, kept["holds"][name])
        self.step, self.finished, self.seconds = kept["step"], kept["finished"], kept["seconds"]
        self.begun = kept["begun"]
        self.losses, self.notes = kept["losses"], kept["notes"]


def _state(held: Any) -> Any:
    if isinstance(held, np.random.Generator):
        return json.dumps(held.bit_generator.state)
    return held.get_state() if isinstance(held, torch.Generator) else held.state_dict()


def _put_back(held: Any, state: Any) -> None:
    if isinstance(held, np.random.Generator):
        held.bit_generator.state = json.loads(state)
    elif isinstance(held, torch.Generator):
        held.set_state(state)
    else:
        held.load_state_dict(state)


def kept_in(folder: str | Path) -> list[dict[str, Any]]:
    """What each training kept in `folder` has come to, in the order in which they were begun: its ``name``, ``updates``
    that it is to make, ``step`` it stands at, whether it is ``finished``, ``seconds`` and ``losses``."""
    if not Path(folder).is_dir():
        return []
    kept = [torch.load(file, map_location="cpu", weights_only=True) for file in Path(folder).glob("*.pt")]
    return sorted(kept, key=lambda one: one["begun"])
