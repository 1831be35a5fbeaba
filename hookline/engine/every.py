"""When something happens: one value instead of arithmetic in every hook."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Every"]


@dataclass(frozen=True)
class Every:
    """True at iterations ``period - 1, 2 * period - 1, ...``: whenever another ``period`` steps are finished.

    Iterations count from 0, so with a period of 20 the first time is the end of iteration 19. The timeline depends on
    the iteration only, hence a resumed run fires at the same moments as one that never stopped.

    Args:
        period: distance in iterations; 0 means never.
        first: fire only once this many iterations are finished; None for no such limit.
        last: fire at the end of the last iteration too, whatever the period; needs ``max_iter`` in the call.

    Raises:
        ValueError: if the period or the first iteration is negative.
        TypeError: if the period is not a whole number.
    """

    period: int
    first: int | None = None
    last: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.period, bool) or not isinstance(self.period, int):
            raise TypeError(f"a period must be a whole number of iterations, got {self.period!r}")
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
        if self.period == 0 or done % self.period:
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
