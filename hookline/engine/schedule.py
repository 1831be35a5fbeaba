"""Schedules: pure functions from progress in [0, 1) to a factor, composed with a warm-up in front.

fvcore's schedules are offered here under their own names, beside those of :mod:`hookline.engine.curves` and
:mod:`hookline.engine.cycles`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable

from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    ConstantParamScheduler,
    CosineParamScheduler,
    ExponentialParamScheduler,
    LinearParamScheduler,
    ParamScheduler,
    PolynomialDecayParamScheduler,
    StepParamScheduler,
    StepWithFixedGammaParamScheduler,
)

from hookline.engine.curves import (
    FixedStepParamScheduler,
    FlatCosineParamScheduler,
    MultiStepParamScheduler,
    PerEpochParamScheduler,
    PolynomialParamScheduler,
)
from hookline.engine.cycles import CosineRestartParamScheduler, CyclicParamScheduler, OneCycleParamScheduler

__all__ = [
    "CHECKED_STEPS",
    "CompositeParamScheduler",
    "ConstantParamScheduler",
    "CosineParamScheduler",
    "CosineRestartParamScheduler",
    "CyclicParamScheduler",
    "ExponentialParamScheduler",
    "FixedStepParamScheduler",
    "FlatCosineParamScheduler",
    "LinearParamScheduler",
    "MultiStepParamScheduler",
    "OneCycleParamScheduler",
    "ParamScheduler",
    "PerEpochParamScheduler",
    "PolynomialDecayParamScheduler",
    "PolynomialParamScheduler",
    "StepParamScheduler",
    "StepWithFixedGammaParamScheduler",
    "WarmupParamScheduler",
    "check_schedule",
    "value_at",
]

WARMUPS = ("linear", "constant", "exponential")
CHECKED_STEPS = 1000


class WarmupParamScheduler(ParamScheduler):
    """Puts a warm-up in front of any schedule.

    With ``w`` = warmup_length, ``f`` = warmup_factor and the schedule ``s``, the value at progress ``p`` is

    * ``p < w``, linear: on the line from ``f * s(0)`` at 0 to the value at which the schedule goes on at ``w``;
    * ``p < w``, exponential: between the same ends, growing by the same factor in every step;
    * ``p < w``, constant: ``f * s(0)``;
    * ``p >= w``: ``s(p)``, or ``s((p - w) / (1 - w))`` with ``rescale_interval``.

    Args:
        scheduler: the schedule that follows.
        warmup_factor: factor of the schedule's first value at the very start.
        warmup_length: progress at which the warm-up ends, in [0, 1], such as ``1000 / max_iter``; with
            ``num_updates`` in its unit.
        warmup_method: ``linear``, ``constant`` or ``exponential``.
        rescale_interval: run the schedule from its beginning after the warm-up, instead of from where it would be.
        num_updates: the length of the run in the unit of ``warmup_length``: in iterations ``"${train.max_iter}"``, or
            in epochs. Then the warm-up keeps its length when the run's is changed.

    Raises:
        ValueError: if the method is unknown, the warm-up longer than the run, or the factor negative or not finite.

    Source: Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", section 2.2.
    """

    def __init__(
        self,
        scheduler: Callable[[float], float],
        warmup_factor: float,
        warmup_length: float,
        warmup_method: str = "linear",
        rescale_interval: bool = False,
        num_updates: float | None = None,
    ) -> None:
        if warmup_method not in WARMUPS:
            near = difflib.get_close_matches(str(warmup_method), WARMUPS, n=1)
            raise ValueError(f"warmup_method={warmup_method!r}: expected {' or '.join(near or WARMUPS)}")
        self._length = _share_of_run(warmup_length, num_updates)
        if not math.isfinite(warmup_factor) or warmup_factor < 0:
            raise ValueError(f"warmup_factor={warmup_factor}: expected a finite number of at least 0")
        self._scheduler = scheduler
        self._rescale = rescale_interval
        self._start = warmup_factor * scheduler(0.0)
        self._end = self._start
        if warmup_method != "constant":
            self._end = scheduler(0.0 if rescale_interval else min(self._length, 1.0 - self.WHERE_EPSILON))
        self._grows = warmup_method == "exponential"
        if self._grows and (self._start <= 0 or self._end <= 0):
            raise ValueError(
                f"warmup_method='exponential' goes from {self._start} to {self._end}: expected both above 0, see "
                f"warmup_factor={warmup_factor}"
            )

    def __call__(self, where: float) -> float:
        """Return the value at a progress.

        Args:
            where: progress in [0, 1).
        """
        if where < self._length:
            share = where / self._length
            if self._grows:
                return self._start * (self._end / self._start) ** share
            return self._start + (self._end - self._start) * share
        if self._rescale and self._length < 1.0:
            return self._scheduler((where - self._length) / (1.0 - self._length))
        return self._scheduler(where)


def value_at(scheduler: Callable[[float], float], iteration: int, length: int) -> float:
    """Return a schedule's factor in an iteration; past the end that of the last one.

    Args:
        scheduler: a function of progress.
        iteration: from 0.
        length: iterations of the run.
    """
    return scheduler(min(iteration, length - 1) / length)


def check_schedule(scheduler: Callable[[float], float], length: int, key: str) -> None:
    """Look at a schedule all over the run, before the run begins.

    Args:
        scheduler: a function of progress.
        length: iterations of the run.
        key: the setting that it drives, for the message.

    Raises:
        ValueError: if a factor is negative or not finite.
    """
    count = min(length, CHECKED_STEPS)
    for index in range(count):
        iteration = index * (length - 1) // max(count - 1, 1)
        factor = value_at(scheduler, iteration, length)
        if not math.isfinite(factor) or factor < 0:
            raise ValueError(
                f"the schedule of {key} gives {factor} at iteration {iteration} of {length}: expected finite factors "
                "of at least 0"
            )


def _share_of_run(warmup_length: float, num_updates: float | None) -> float:
    if num_updates is not None and not num_updates > 0:
        raise ValueError(f"num_updates={num_updates}: expected a length above 0")
    share = warmup_length if num_updates is None else warmup_length / num_updates
    if not 0.0 <= share <= 1.0:
        expected = "a share of the run in [0, 1], or num_updates, the length of the run in its unit"
        if num_updates is not None:
            expected = f"at most num_updates={num_updates}"
        raise ValueError(f"warmup_length={warmup_length}: the warm-up must end within the run; expected {expected}")
    return float(share)
