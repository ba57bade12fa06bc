"""Which positions of a sequence someone wants to look at."""

from collections.abc import Sequence
from typing import Literal

Positions = Sequence[int] | slice | Literal["all"]


def resolve_positions(positions: Positions | None, time: int) -> list[int]:
    """`positions` as absolute indices in the order asked for; None is none, negative ints count from the end.

    Raises IndexError for a position outside the sequence, naming both, and ValueError for a word other than "all".
    """
    if positions is None:
        return []
    if isinstance(positions, str):
        if positions != "all":
            raise ValueError(f"positions {positions!r}: give a list of ints, a slice, or 'all'")
        return list(range(time))
    if isinstance(positions, slice):
        return list(range(time))[positions]
    absolute = []
    for position in positions:
        if not -time <= int(position) < time:
            raise IndexError(f"position {int(position)} was asked for, but there are {time} tokens (0 to {time - 1})")
        absolute.append(int(position) % time)
    return absolute
