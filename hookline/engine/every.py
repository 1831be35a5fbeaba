"""When something happens: one value instead of arithmetic in every hook."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

__all__ = ["Every"]

_FINEST_SHARE = 10_000  # shares of an epoch such as 0.1 or 1 / 3 are meant exactly, not as the nearest float


@dataclass(frozen=True)
class Every:
    """True at iterations ``period - 1, 2 * period - 1, ...``: whenever another ``period`` steps are finished.

    Iterations count from 0, so with a period of 20 the first time is the end of iteration 19. The timeline depends on
    the iteration only, hence a resumed run fires at the same moments as one that never stopped.

    A period that is no whole number, such as an epoch of 7 5/8 steps, is a ``Fraction``: the k-th time is the first
    iteration at whose end ``k * period`` steps are finished.

    Args:
        period: distance in iterations; 0 means never.
        first: fire only once this many iterations are finished; None for no such limit.
        last: fire at the end of the last iteration too, whatever the period; needs ``max_iter`` in the call.

    Raises:
        ValueError: if the period or the first iteration is negative.
        TypeError: if the period is neither a whole number nor a fraction.
    """

    period: int | Fraction
    first: int | None = None
    last: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.period, bool) or not isinstance(self.period, int | Fraction):
            raise TypeError(f"a period must be a whole number of iterations, or a Fraction, got {self.period!r}")
        if self.period < 0:
            raise ValueError(f"a period must be 0 (never) or positive, got {self.period}")
        if self.first is not None and self.first < 0:
            raise ValueError(f"the first iteration must not be negative, got {self.first}")

    def __call__(self, iteration: int, max_iter: int | None = None) -> bool:
        """Tell whether it is time at the end of ``iteration``.

        Args:
            iteration: the iteration being finished, from 0.
            max_iter: the number of iterations of the run, for ``last``.
        """
        done = iteration + 1
        if self.last and max_iter is not None and done >= max_iter:
            return True
        if self.period == 0 or done // self.period == iteration // self.period:
            return False
        return self.first is None or done >= self.first

    @classmethod
    def of(cls, period: int | Every, *, last: bool = False) -> Every:
        """Turn a plain period into a value; a ready-made value passes through.

        Args:
            period: iterations, or a value that says more.
            last: see the class; only for a plain period.
        """
        return period if isinstance(period, Every) else cls(period, last=last)

    @classmethod
    def epochs(cls, count: float, iterations_per_epoch: Fraction, *, first: int | None = None) -> Every:
        """Make a value that fires when another ``count`` epochs are finished, the k-th time in ``ceil(k * period)``.

        Args:
            count: distance in epochs, also a share of one; 0 means never.
            iterations_per_epoch: its exact length, such as ``Fraction(epoch_length, batch_size)``.
            first: see the class.

        Raises:
            ValueError: if the distance is negative, not finite, or so small that it would be never.
        """
        if not math.isfinite(count) or count < 0:
            raise ValueError(f"a period in epochs must be 0 (never) or positive, got {count}")
        share = Fraction(count).limit_denominator(_FINEST_SHARE)
        if count and not share:
            raise ValueError(f"the shortest period is 1 / {_FINEST_SHARE} epochs, got {count}; 0 means never")
        return cls(share * iterations_per_epoch, first)
