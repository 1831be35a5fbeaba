"""An exponential moving average of the weights."""

from __future__ import annotations

import math

from hookline.engine.hooks.average import AverageHook

__all__ = ["EMAHook", "ema_share"]


def ema_share(updates: int, decay: float, warmup: bool) -> float:
    """Give the share of the new weights in an exponential moving average.

    Args:
        updates: how many updates there were before.
        decay: how much of the average stays, in [0, 1).
        warmup: let at most ``(1 + updates) / (10 + updates)`` stay.
    """
    return 1.0 - (min(decay, (1 + updates) / (10 + updates)) if warmup else decay)


class EMAHook(AverageHook):
    """Keeps ``average = d * average + (1 - d) * weight`` over the steps, beginning with the weights before the first.

    In update t (from 0) ``d`` is the decay, with warm-up at most ``(1 + t) / (10 + t)``, so that the random weights of
    the beginning are forgotten sooner. What is averaged, and how it is evaluated and saved, says
    :class:`~hookline.engine.hooks.average.AverageHook`.

    Args:
        decay: ``d``, in [0, 1).
        half_life: instead of the decay, steps after which a weight counts half.
        warmup: see above.

    Raises:
        ValueError: if not one of decay and half-life is given, or out of its range.

    Source: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992; the warm-up is that of
    TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, decay: float | None = None, *, half_life: float | None = None, warmup: bool = True) -> None:
        super().__init__()
        if (decay is None) == (half_life is None):
            raise ValueError(f"decay={decay} and half_life={half_life}: give one of them")
        if half_life is not None:
            if not (math.isfinite(half_life) and half_life > 0):
                raise ValueError(f"half_life={half_life}: expected a number of steps above 0")
            decay = 0.5 ** (1.0 / half_life)
        assert decay is not None
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay={decay}: expected a number in [0, 1)")
        self.decay = decay
        self._warmup = warmup

    def share(self, updates: int) -> float:
        """Give the share of this step's weights in the new average."""
        return ema_share(updates, self.decay, self._warmup)

    def before_train(self) -> None:
        """Begin with the weights of the model, unless a checkpoint brought averages."""
        super().before_train()
        if not self.ready:
            self.begin()
