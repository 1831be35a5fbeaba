"""An equal-weight average of the weights late in training."""

from __future__ import annotations

import math

from hookline.engine.hooks.average import AverageHook

__all__ = ["SWAHook", "swa_share"]


def swa_share(updates: int) -> float:
    """Give the share of the new weights in an average in which all count the same.

    Args:
        updates: how many weights are in the average.
    """
    return 1.0 / (updates + 1)


class SWAHook(AverageHook):
    """Keeps the mean of the weights after every ``period``-th step, from a start on (stochastic weight averaging).

    It wants a learning rate that stays high from the start on, constant or cyclic with this period; the schedule sets
    it. BN statistics do not follow from averaged weights: measure them with
    :class:`~hookline.engine.hooks.precise_bn.PreciseBN`.

    Args:
        start: the number of finished steps after which weights are first taken in, or, below 1, that share of the run.
        period: steps between two of them.

    Raises:
        ValueError: if the start is negative or no whole number above 1, or the period is not positive.

    Source: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", 2018, algorithm 1.
    """

    def __init__(self, start: float, period: int = 1) -> None:
        super().__init__()
        if not (math.isfinite(start) and start >= 0) or (start >= 1 and start != int(start)):
            raise ValueError(f"start={start}: expected a number of steps, or a share of the run in [0, 1)")
        if period < 1:
            raise ValueError(f"period={period}: expected a number of steps of at least 1")
        self.start = start
        self.period = period

    def share(self, updates: int) -> float:
        """Give the share of this step's weights in the new average."""
        return swa_share(updates)

    def is_due(self, iteration: int) -> bool:
        """Tell whether the weights of this step are taken in."""
        start = math.ceil(self.start * self.trainer.max_iter) if self.start < 1 else int(self.start)
        behind = iteration + 1 - start
        return behind >= 0 and behind % self.period == 0
