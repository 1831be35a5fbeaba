"""The course of one metric, with the statistics that writers show."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

__all__ = ["HistoryBuffer", "median"]


class HistoryBuffer:
    """The newest values of one scalar and the iterations they belong to.

    Args:
        max_length: how many values are kept at least; older ones are dropped, though :meth:`global_avg` counts them.
    """

    def __init__(self, max_length: int = 10_000) -> None:
        self._max_length = max_length
        self._values: list[float] = []
        self._iterations: list[int] = []
        self._dropped_count = 0
        self._dropped_sum = 0.0

    def __len__(self) -> int:
        return len(self._values)

    def update(self, value: float, iteration: int | None = None) -> None:
        """Append a value.

        Args:
            value: the new value.
            iteration: where it belongs; counted from the values so far when left out.
        """
        self._values.append(value)
        self._iterations.append(self._dropped_count + len(self._iterations) if iteration is None else iteration)
        if len(self._values) >= 2 * self._max_length:  # rarely, so that appending stays cheap
            self._drop()

    def amend(self, value: float, iteration: int) -> None:
        """Replace the value of an iteration, or append it when there is none.

        Args:
            value: what counts from now on.
            iteration: one of the newest iterations.
        """
        if not self._iterations or iteration > self._iterations[-1]:
            self.update(value, iteration)
            return
        place = bisect_left(self._iterations, iteration)
        if self._iterations[place] != iteration:
            self.update(value, iteration)
            return
        self._values[place] = value

    def latest(self) -> float:
        """Return the newest value."""
        return self._values[-1]

    def latest_iteration(self) -> int:
        """Return the iteration of the newest value."""
        return self._iterations[-1]

    def median(self, window_size: int) -> float:
        """Return the median of the newest ``window_size`` values."""
        return median(self._values[-window_size:])

    def avg(self, window_size: int) -> float:
        """Return the mean of the newest ``window_size`` values."""
        newest = self._values[-window_size:]
        return math.fsum(newest) / len(newest)

    def global_avg(self) -> float:
        """Return the mean of all values since the start of this process."""
        return (self._dropped_sum + math.fsum(self._values)) / (self._dropped_count + len(self._values))

    def values(self) -> list[tuple[float, int]]:
        """Return (value, iteration) of everything kept, oldest first."""
        return list(zip(self._values, self._iterations, strict=True))

    def newer_than(self, iteration: int) -> list[tuple[float, int]]:
        """Return (value, iteration) of what was put behind an iteration, oldest first.

        Args:
            iteration: the last one that does not count.
        """
        start = len(self._iterations)
        while start > 0 and self._iterations[start - 1] > iteration:
            start -= 1
        return list(zip(self._values[start:], self._iterations[start:], strict=True))

    def count_within(self, iterations: int) -> int:
        """Return how many values lie within the newest ``iterations`` iterations.

        A metric that is put every tenth step thus is smoothed over as much time as one put in every step.

        Args:
            iterations: length of the window that ends with the newest value.
        """
        oldest = self._iterations[-1] - iterations
        newest = self._iterations[-iterations:]
        return len(newest) if newest[0] > oldest else sum(i > oldest for i in newest)

    def smoothed(self, iterations: int) -> float:
        """Return the median over the newest ``iterations`` iterations."""
        return self.median(self.count_within(iterations))

    def tail(self, length: int) -> dict[str, list[float] | list[int]]:
        """Return the newest values as plain lists, for a checkpoint."""
        return {"values": self._values[-length:], "iterations": self._iterations[-length:]}

    def extend(self, values: Sequence[float], iterations: Sequence[int]) -> None:
        """Append what :meth:`tail` gave."""
        for value, iteration in zip(values, iterations, strict=True):
            self.update(float(value), int(iteration))

    def _drop(self) -> None:
        dropped = self._values[: -self._max_length]
        self._dropped_count += len(dropped)
        self._dropped_sum += math.fsum(dropped)
        del self._values[: len(dropped)]
        del self._iterations[: len(dropped)]


def median(values: Sequence[float]) -> float:
    """Return the middle value, the mean of the two middle ones, or NaN when one of the values is NaN.

    Args:
        values: at least one number.
    """
    ordered = sorted(values)
    if math.isnan(sum(ordered)) and any(map(math.isnan, ordered)):
        return math.nan
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
