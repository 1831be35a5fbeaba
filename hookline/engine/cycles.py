"""Schedules with cycles, as functions from progress to a value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

from fvcore.common.param_scheduler import ParamScheduler

from hookline.engine.curves import BORDER, SHAPES, check_value, named_shape

__all__ = ["CosineRestartParamScheduler", "CyclicParamScheduler", "OneCycleParamScheduler"]


class CosineRestartParamScheduler(ParamScheduler):
    """Half-cosines one after the other, each from its start down to ``end_value``.

    Args:
        periods: lengths of the cycles, in any unit.
        num_updates: the length of the run in the same unit, at most the sum of the periods, which is the default.
        restart_weights: start of each cycle as a factor of ``start_value``; all 1 by default.
        start_value: at the beginning of a cycle of weight 1.
        end_value: to which each cycle falls.

    Raises:
        ValueError: if the numbers of periods and weights differ, the periods end before the run, or a value is
            negative or not finite.

    Source: Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", equation 5.
    """

    def __init__(
        self,
        periods: Sequence[float],
        num_updates: float | None = None,
        restart_weights: Sequence[float] | None = None,
        start_value: float = 1.0,
        end_value: float = 0.0,
    ) -> None:
        if not periods or any(not math.isfinite(period) or period <= 0 for period in periods):
            raise ValueError(f"periods={list(periods)}: expected lengths above 0, at least one")
        weights = [1.0] * len(periods) if restart_weights is None else list(restart_weights)
        if len(weights) != len(periods):
            raise ValueError(f"restart_weights={weights}: expected one for each of {len(periods)} periods")
        total = sum(periods) if num_updates is None else num_updates
        if not 0 < total <= sum(periods):
            raise ValueError(f"num_updates={num_updates}: expected at most the sum of periods, {sum(periods)}")
        self._ends = [end / total for end in accumulate(periods)]
        self._lengths = [period / total for period in periods]
        self._starts = [start_value * check_value("restart_weights", weight) for weight in weights]
        self._end = check_value("end_value", end_value)
        check_value("start_value", start_value)

    def __call__(self, where: float) -> float:
        """Return the value at a progress."""
        last = len(self._ends) - 1
        cycle = next((i for i, end in enumerate(self._ends[:-1]) if where + BORDER < end), last)
        share = (where - self._ends[cycle]) / self._lengths[cycle] + 1.0
        return SHAPES["cos"](self._starts[cycle], self._end, min(max(share, 0.0), 1.0))


class OneCycleParamScheduler(ParamScheduler):
    """Up to a peak, down to a very small value. For momentum, which goes the other way, give values that do.

    Args:
        start_value: at the beginning; torch's ``1 / div_factor``.
        peak_value: at the peak, 1 where the optimizer's setting is the largest one.
        end_value: at the end; torch's ``1 / (div_factor * final_div_factor)``.
        pct_start: share of the run at which the peak is.
        anneal_strategy: ``cos`` or ``linear``.
        three_phase: come back to ``start_value`` as fast as it went up, then go on to ``end_value``.
        num_updates: the steps of the run. With it the last step has ``end_value`` and every phase ends one step
            earlier, as in torch; without it ``end_value`` is the limit behind the last step.

    Raises:
        ValueError: if a value is negative or not finite, the strategy unknown, or the phases do not fit into the run.

    Source: Smith and Topin, "Super-convergence: very fast training of neural networks using large learning rates".
    """

    def __init__(
        self,
        start_value: float = 1 / 25,
        peak_value: float = 1.0,
        end_value: float = 1 / 25e4,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        three_phase: bool = False,
        num_updates: int | None = None,
    ) -> None:
        values = [check_value("start_value", start_value), check_value("peak_value", peak_value)]
        values += [start_value] * three_phase + [check_value("end_value", end_value)]
        step = 0.0 if num_updates is None else 1.0 / num_updates
        ends = [0.0, pct_start - step]
        ends += [2 * pct_start - 2 * step] * three_phase + [1.0 - step]
        if not math.isfinite(pct_start) or any(later <= sooner for sooner, later in pairwise(ends)):
            raise ValueError(
                f"pct_start={pct_start}, num_updates={num_updates}: each phase must be longer than a step, expected a "
                f"share above {step:g} and below {0.5 if three_phase else 1 - step:g}"
            )
        self._shape = named_shape("anneal_strategy", anneal_strategy)
        self._values, self._ends = values, ends

    def __call__(self, where: float) -> float:
        """Return the value at a progress."""
        last = len(self._ends) - 2
        phase = next((i for i in range(last) if where <= self._ends[i + 1]), last)
        start, end = self._ends[phase], self._ends[phase + 1]
        share = min((where - start) / (end - start), 1.0)
        return self._shape(self._values[phase], self._values[phase + 1], share)


class CyclicParamScheduler(ParamScheduler):
    """Cycles from 1 to ``target_ratio[0]`` and on to ``target_ratio[1]``, all of the same length.

    Args:
        target_ratio: at the top and at the end of a cycle, as factors; for momentum such as ``(0.85 / 0.95, 1)``.
        cyclic_times: how many cycles a run has.
        step_ratio_up: share of a cycle that goes to the first of them.
        anneal_strategy: ``cos`` or ``linear``.
        gamma: how much of the way from 1 to the top is left in each further cycle, in (0, 1].

    Raises:
        ValueError: if an argument is not in its range.

    Source: Smith, "Cyclical learning rates for training neural networks"; the arguments are those of mmcv.
    """

    def __init__(
        self,
        target_ratio: Sequence[float] = (10.0, 1e-4),
        cyclic_times: int = 1,
        step_ratio_up: float = 0.4,
        anneal_strategy: str = "cos",
        gamma: float = 1.0,
    ) -> None:
        if len(target_ratio) != 2:
            raise ValueError(f"target_ratio={list(target_ratio)}: expected two factors, of the top and of the end")
        self._top, self._end = (check_value("target_ratio", ratio) for ratio in target_ratio)
        if isinstance(cyclic_times, bool) or not isinstance(cyclic_times, int) or cyclic_times < 1:
            raise ValueError(f"cyclic_times={cyclic_times!r}: expected a whole number of at least 1")
        if not 0.0 < step_ratio_up < 1.0:
            raise ValueError(f"step_ratio_up={step_ratio_up}: expected a share of a cycle in (0, 1)")
        if not 0.0 < gamma <= 1.0:
            raise ValueError(f"gamma={gamma}: expected a factor in (0, 1]")
        self._times, self._up, self._gamma = cyclic_times, step_ratio_up, gamma
        self._shape = named_shape("anneal_strategy", anneal_strategy)

    def __call__(self, where: float) -> float:
        """Return the value at a progress."""
        position = min(where, 1.0) * self._times
        cycle = min(int(position + BORDER), self._times - 1)
        share = max(position - cycle, 0.0)
        top = 1.0 + (self._top - 1.0) * self._gamma**cycle
        if share < self._up:
            return self._shape(1.0, top, share / self._up)
        return self._shape(top, self._end, (share - self._up) / (1.0 - self._up))
