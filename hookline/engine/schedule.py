"""Schedules: pure functions from progress in [0, 1) to a factor, composed with a warm-up in front.

fvcore's schedules are offered here under their own names.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    ConstantParamScheduler,
    CosineParamScheduler,
    ExponentialParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
    PolynomialDecayParamScheduler,
    StepParamScheduler,
    StepWithFixedGammaParamScheduler,
)

__all__ = [
    "CompositeParamScheduler",
    "ConstantParamScheduler",
    "CosineParamScheduler",
    "ExponentialParamScheduler",
    "LinearParamScheduler",
    "MultiStepParamScheduler",
    "ParamScheduler",
    "PolynomialDecayParamScheduler",
    "StepParamScheduler",
    "StepWithFixedGammaParamScheduler",
    "WarmupParamScheduler",
]

WARMUPS = ("linear", "constant")


class WarmupParamScheduler(ParamScheduler):
    """Puts a warm-up in front of any schedule.

    With ``w`` = warmup_length, ``f`` = warmup_factor and the schedule ``s``, the value at progress ``p`` is

    * ``p < w``, linear: on the line from ``f * s(0)`` at 0 to the value at which the schedule goes on at ``w``;
    * ``p < w``, constant: ``f * s(0)``;
    * ``p >= w``: ``s(p)``, or ``s((p - w) / (1 - w))`` with ``rescale_interval``.

    Args:
        scheduler: the schedule that follows.
        warmup_factor: factor of the schedule's first value at the very start.
        warmup_length: progress at which the warm-up ends, in [0, 1]; such as ``1000 / max_iter``.
        warmup_method: ``linear`` or ``constant``.
        rescale_interval: run the schedule from its beginning after the warm-up, instead of from where it would be.

    Raises:
        ValueError: if the method is unknown or the length is not in [0, 1].

    Source: Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", section 2.2.
    """

    def __init__(
        self,
        scheduler: Callable[[float], float],
        warmup_factor: float,
        warmup_length: float,
        warmup_method: str = "linear",
        rescale_interval: bool = False,
    ) -> None:
        if warmup_method not in WARMUPS:
            near = difflib.get_close_matches(str(warmup_method), WARMUPS, n=1)
            raise ValueError(f"unknown warmup_method {warmup_method!r}; expected {' or '.join(near or WARMUPS)}")
        if not 0.0 <= warmup_length <= 1.0:
            raise ValueError(f"warmup_length is the share of the run in [0, 1], got {warmup_length}")
        self._scheduler = scheduler
        self._length = float(warmup_length)
        self._rescale = rescale_interval
        self._start = warmup_factor * scheduler(0.0)
        self._end = self._start
        if warmup_method == "linear":
            self._end = scheduler(0.0 if rescale_interval else min(self._length, 1.0 - self.WHERE_EPSILON))

    def __call__(self, where: float) -> float:
        """Return the value at a progress.

        Args:
            where: progress in [0, 1).
        """
        if where < self._length:
            return self._start + (self._end - self._start) * (where / self._length)
        if self._rescale:
            return self._scheduler((where - self._length) / (1.0 - self._length))
        return self._scheduler(where)
