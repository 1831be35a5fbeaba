"""Which scalars of the storage a writer has not written yet."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from hookline.engine.events import get_event_storage, has_event_storage

__all__ = ["NewScalars", "restored_names"]


class NewScalars:
    """Takes the newest value of every scalar once, and all values of rare ones, such as those of evaluations.

    Several evaluations may lie between two times of writing, and none shall be lost. What is put in every step, such as
    the learning rate, is taken once.

    Args:
        window_size: smoothed metrics are medians over that many iterations.
    """

    def __init__(self, window_size: int = 20) -> None:
        self._window_size = window_size
        self._last = -1
        self._names: set[str] = set()

    def begin(self, last: int, names: Iterable[str]) -> None:
        """Take what was written before as known.

        Args:
            last: the last iteration that was written.
            names: what was written for it; other metrics of it are still new, such as a resumed evaluation's.
        """
        self._last, self._names = last, set(names)

    @property
    def known(self) -> tuple[int, set[str]]:
        """The last iteration that was taken, and the names that were for it."""
        return self._last, set(self._names)

    def take(self) -> dict[int, dict[str, float]]:
        """Return what is new since the last call: values by name, by iteration in rising order."""
        new: dict[int, dict[str, float]] = {}
        storage = get_event_storage()
        histories, is_smoothed = storage.histories(), storage.smoothing_hints()
        for name, (value, iteration) in storage.latest_with_smoothing_hint(self._window_size).items():
            if iteration > self._last or (iteration == self._last and name not in self._names):
                new.setdefault(iteration, {})[name] = value
                if not is_smoothed[name]:
                    for earlier, at in _rare(histories[name].newer_than(self._last)):
                        new.setdefault(at, {})[name] = earlier
        if not new:
            return new
        last = max(new)
        self._names = {*new[last], *(self._names if last == self._last else ())}
        self._last = last
        return dict(sorted(new.items()))


def _rare(values: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """Give back the values if no two of them are of steps in a row."""
    return values if all(later - sooner > 1 for (_, sooner), (_, later) in pairwise(values)) else []


def restored_names(iteration: int) -> set[str]:
    """Name the scalars whose newest value is that of an iteration, which an earlier run has written.

    Args:
        iteration: the one before the first step.
    """
    if not has_event_storage():
        return set()
    return {name for name, (_, last) in get_event_storage().latest().items() if last == iteration}
