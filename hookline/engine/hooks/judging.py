"""What hooks that judge a run by one of its metrics have in common."""

from __future__ import annotations

import difflib
import logging

from hookline.distributed import broadcast, get_world_size, is_main_process
from hookline.engine.every import Every
from hookline.engine.hook_base import HookBase

__all__ = ["JudgingHook"]

logger = logging.getLogger(__name__)


class JudgingHook(HookBase):
    """Looks at a metric whenever it was measured; for subclasses, whose state holds all that :meth:`judge` changes.

    Where every rank registers it, rank 0, which has the results, decides for all of them. A value counts once: an old
    one that is still in the storage is none.

    Args:
        period: iterations between two looks, the period of the measurement.
        metric: its name, such as ``bbox/AP``.
        mode: ``max`` if larger is better, ``min`` if smaller is.

    Raises:
        ValueError: if the mode is neither.
    """

    purpose = "judge the run by"

    def __init__(self, period: int | Every, metric: str, mode: str) -> None:
        if mode not in ("max", "min"):
            raise ValueError(f"mode={mode!r}: expected 'max' or 'min'")
        self._every = Every.of(period)
        self._metric = metric
        self._sign = 1.0 if mode == "max" else -1.0
        self._seen_iter = -1  # of the newest value that was judged

    def judge(self, value: float, iteration: int) -> None:
        """Take in a new value.

        Args:
            value: of the metric; may be not finite.
            iteration: where it was measured.

        Raises:
            NotImplementedError: always; for subclasses.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement judge()")

    @property
    def state_key(self) -> str:
        """The name of this hook's state in a checkpoint: one for each metric."""
        return f"{type(self).__qualname__}.{self._metric}"

    def before_step(self) -> None:
        """Look at an evaluation that a resumed run made up for before its first step."""
        start_iter = self.trainer.start_iter
        if self.trainer.iter == start_iter > 0 and self._every(start_iter - 1):
            self._look(start_iter - 1)

    def after_step(self) -> None:
        """Look at the metric when it is time; the last iteration is left to the end."""
        iteration = self.trainer.iter
        if self._every(iteration) and iteration + 1 != self.trainer.max_iter:
            self._look(iteration)

    def _look(self, finished_iter: int) -> None:
        """Judge the newest value if it is new, and give all ranks the outcome.

        Args:
            finished_iter: the last finished step.
        """
        is_shared = get_world_size() > 1 and self.trainer._is_shared(self)
        if is_main_process() or not is_shared:
            self._judge_newest()
        if is_shared:
            self.load_state_dict(broadcast(self.state_dict()))

    def _judge_newest(self) -> None:
        found = self.trainer.storage.latest().get(self._metric)
        if found is None:
            self._warn_of_missing()
            return
        value, iteration = found
        if iteration > self._seen_iter:
            self._seen_iter = iteration
            self.judge(value, iteration)

    def _warn_of_missing(self) -> None:
        """Name what could have been meant."""
        names = sorted(name for name, smoothed in self.trainer.storage.smoothing_hints().items() if not smoothed)
        near = difflib.get_close_matches(self._metric, names, n=3) or names
        logger.warning("no metric %r to %s; there are: %s", self._metric, self.purpose, ", ".join(near) or "none")
