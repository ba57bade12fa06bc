"""`piecewise_linear_cycles`: fixed points and k-cycles of a ReLU network, each solved for and not approached.

SCYFI (Eisenmann, Monfared, Goering & Durstewitz 2023, arXiv 2310.17561, algorithm 1): guess which ReLUs are open at
each of the k steps; with that the map applied k times is affine and its one fixed point a linear solve away; roll it
out and see which ReLUs really are open. If they are those guessed, it is a cycle of the map; if not, what was realised
is the next guess. This is Newton's method on a piecewise-linear map, so it needs few iterations and ends exactly.

Ours: guesses go in batches, half of them drawn independently at each step and half along short orbits, and the search
of an order ends when several batches bring nothing new.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

from strobe.core.provenance import Provenance
from strobe.probes.dynamics.cycles import Cycles
from strobe.probes.dynamics.piecewise_linear import PiecewiseLinear

Tick = Callable[[int, int, str], None]

# Relative to the size of the cycle: two solves of one cycle agree far better, two cycles differ far more.
_SAME = 1e-6
# How far the roll-out may miss its start after k steps, relative: more is a solve that rounding decided.
_CLOSED = 1e-7
# Conditions worse than this leave too few digits to tell a cycle from none.
_SINGULAR = 1e13


class _Solved(NamedTuple):
    orbits: Float64[np.ndarray, "found order size"]
    singular: int
    solves: int


def piecewise_linear_cycles(
    map: PiecewiseLinear,
    max_order: int = 4,
    *,
    starts: int = 64,
    iterations: int = 60,
    patience: int = 3,
    max_batches: int = 30,
    reach: float | int = 10.0,
    control: bool = True,
    seed: int = 0,
    progress: Tick | None = None,
) -> Cycles:
    """Every fixed point (order 1) and cycle of `map` up to `max_order` steps that the search comes to.

    `starts` guesses go together, each for up to `iterations` solves; an order is left after `patience` batches without
    a new cycle, or after `max_batches`. First guesses are realised in the box [-reach, reach]^M. `control`: the same
    search with W1's entries permuted. Nothing proves that all were found; `Cycles.summary` says how often each was.

    Raises ValueError for an order below 1.
    """
    if max_order < 1 or starts < 2:
        raise ValueError(f"cycles up to order {max_order} from {starts} starts were asked for; give 1 and 2 or more")
    tick = progress or (lambda done, total, what: None)
    settings = {
        "max_order": max_order,
        "starts": starts,
        "iterations": iterations,
        "patience": patience,
        "max_batches": max_batches,
        "reach": float(reach),
    }
    other = None
    if control:
        other = piecewise_linear_cycles(
            map.shuffled(seed),
            max_order,
            starts=starts,
            iterations=iterations,
            patience=patience,
            max_batches=max_batches,
            reach=reach,
            control=False,
            seed=seed,
        )
    rng = np.random.default_rng(seed)
    orbits: list[np.ndarray] = []
    hits: list[int] = []
    singular = solves = 0
    exhausted: list[int] = []
    for order in range(1, max_order + 1):
        idle = batches = 0
        while idle < patience and batches < max_batches:
            found = _search(map, _guesses(map, order, starts, float(reach), rng), iterations)
            singular, solves, batches = singular + found.singular, solves + found.solves, batches + 1
            new = [_count(orbit, orbits, hits) for orbit in found.orbits]
            idle = 0 if any(new) else idle + 1
            tick(order, max_order, f"order {order}: {sum(len(o) == order for o in orbits)} found")
        if batches == max_batches and idle < patience:
            exhausted.append(order)
    return Cycles(
        map=map.name,
        max_order=max_order,
        orbits=orbits,
        multipliers=[np.linalg.eigvals(_around(map, orbit)).astype(np.complex128) for orbit in orbits],
        hits=np.array(hits, dtype=np.int64),
        solves=solves,
        singular=singular,
        exhausted=exhausted,
        control=other,
        provenance=Provenance(
            model=map.name,
            seed=seed,
            settings=settings,
            control="the same search with the entries of W1 permuted" if control else None,
        ),
    )


def _guesses(
    map: PiecewiseLinear, order: int, starts: int, reach: float, rng: np.random.Generator
) -> Bool[np.ndarray, "starts order units"]:
    drawn = map.pattern(rng.uniform(-reach, reach, (starts - starts // 2, order, map.size)))
    z, along = rng.uniform(-reach, reach, (starts // 2, map.size)), []
    # A few steps first, to be where orbits go; one that runs away starts from its last finite place.
    for _ in range(int(rng.integers(0, 3 * order + 10))):
        after = map.step(z)
        z = np.where((np.abs(after) < 1e6).all(1, keepdims=True), after, z)
    for _ in range(order):
        along.append(map.pattern(z))
        after = map.step(z)
        z = np.where((np.abs(after) < 1e6).all(1, keepdims=True), after, z)
    return np.concatenate([drawn, np.stack(along, 1)])


def _search(map: PiecewiseLinear, guess: Bool[np.ndarray, "starts order units"], iterations: int) -> _Solved:
    found: list[np.ndarray] = []
    singular = solves = 0
    order, tried = guess.shape[1], set[bytes]()
    for _ in range(iterations):
        # What follows from a guess is a function of it, so one that was tried leads where it led before.
        keys = [np.packbits(one).tobytes() for one in guess]
        guess = guess[[i for i, key in enumerate(keys) if key not in tried]]
        tried.update(keys)
        if not len(guess):
            break
        start, good = _solve(map, guess)
        solves, singular = solves + len(guess), singular + int((~good).sum())
        orbit, closed = _rolled(map, start[good], order)
        realised = map.pattern(orbit)
        same = np.equal(realised, guess[good]).all((1, 2))
        found += list(orbit[same & closed])
        guess = realised[~same & np.isfinite(orbit).all((1, 2))]
    return _Solved(np.array(found).reshape(len(found), order, map.size), singular, solves)


def _rolled(map: PiecewiseLinear, start: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """The orbits [n, order, M] from `start`, and which of them are back there after `order` steps."""
    orbit, z = np.empty((len(start), order, map.size)), start
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(order):
            orbit[:, t] = z
            z = map.step(z)
        scale = np.maximum(1, np.abs(orbit).max((1, 2), initial=0))
        return orbit, np.abs(z - start).max(1, initial=0) <= _CLOSED * scale


def _solve(map: PiecewiseLinear, guess: Bool[np.ndarray, "starts order units"]) -> tuple[np.ndarray, np.ndarray]:
    """Where the map under each guess returns to after its steps [starts, M], and which guesses have such a place."""
    F, c = _composed(map, guess)
    left = np.eye(map.size) - F
    with np.errstate(all="ignore"):
        good = np.isfinite(F).all((1, 2)) & np.isfinite(c).all(1)
        conditions = np.linalg.cond(np.where(np.expand_dims(good, (1, 2)), left, np.eye(map.size)))
    good &= np.isfinite(conditions) & (conditions < _SINGULAR)
    start = np.zeros_like(c)
    start[good] = np.linalg.solve(left[good], c[good][..., None])[..., 0]
    return start, good


def _composed(map: PiecewiseLinear, guess: Bool[np.ndarray, "starts order units"]) -> tuple[np.ndarray, np.ndarray]:
    F = np.broadcast_to(np.eye(map.size), (len(guess), map.size, map.size))
    c = np.zeros((len(guess), map.size))
    with np.errstate(over="ignore", invalid="ignore"):
        for t in range(guess.shape[1]):
            F_t, c_t = map.affine(guess[:, t])
            F, c = F_t @ F, (F_t @ c[..., None])[..., 0] + c_t
    return F, c


def _around(map: PiecewiseLinear, orbit: Float64[np.ndarray, "order size"]) -> Float64[np.ndarray, "size size"]:
    """The Jacobian once around the cycle."""
    return _composed(map, map.pattern(orbit)[None])[0][0]


def _count(orbit: np.ndarray, orbits: list[np.ndarray], hits: list[int]) -> bool:
    """Count a hit of a known cycle, or add the new one at its lowest order; returns whether it is new."""
    tolerance = _SAME * max(1.0, float(np.abs(orbit).max()))
    for k in range(1, len(orbit)):
        if len(orbit) % k == 0 and np.abs(orbit[k:] - orbit[:-k]).max() <= tolerance:
            orbit = orbit[:k]
            break
    for i, known in enumerate(orbits):
        if len(known) == len(orbit) and (np.abs(known - orbit[0]).max(1) <= tolerance).any():
            hits[i] += 1
            return False
    orbits.append(orbit.copy())
    hits.append(1)
    return True
