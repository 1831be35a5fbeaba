"""How fast an inference runs and how long it still takes."""

from __future__ import annotations

import datetime
import logging
import sys
import time
from types import TracebackType

from tqdm import tqdm

from hookline.distributed import get_world_size, is_main_process

__all__ = ["InferenceProgress"]

logger = logging.getLogger(__name__)

_LINE_PERIOD_S = 5.0
_WARMUP_BATCHES = 5


class InferenceProgress:
    """Show the progress of a loop over batches: a bar on a terminal, else log lines; a summary at the end.

    The first batches count for the bar but not for the speed: caches fill and kernels are chosen in them.

    Args:
        total: number of batches of this rank; None where the loader does not tell.
    """

    def __init__(self, total: int | None) -> None:
        self.total = total
        self._warmup = _WARMUP_BATCHES if total is None else min(_WARMUP_BATCHES, max(0, total - 1))
        self._done = 0
        self._seconds = [0.0, 0.0, 0.0]
        self._start = self._last_line = time.perf_counter()
        self._bar: tqdm | None = None

    def __enter__(self) -> InferenceProgress:
        count = "?" if self.total is None else self.total
        logger.info(f"Start inference on {count} batches per process, {get_world_size()} processes")
        if is_main_process() and sys.stderr.isatty():
            self._bar = tqdm(total=self.total, desc="Inference", unit="batch", leave=False)
        self._start = self._last_line = time.perf_counter()
        return self

    def step(self, data_s: float, compute_s: float, eval_s: float) -> None:
        """Count one batch.

        Args:
            data_s: seconds that the loader took.
            compute_s: seconds that the model took.
            eval_s: seconds that the evaluator took.
        """
        self._done += 1
        if self._done == self._warmup:
            self._seconds = [0.0, 0.0, 0.0]
            self._start = time.perf_counter()
        else:
            self._seconds = [a + b for a, b in zip(self._seconds, (data_s, compute_s, eval_s), strict=True)]
        if self._bar is not None:
            self._bar.update()
        elif self._done > self._warmup and time.perf_counter() - self._last_line >= _LINE_PERIOD_S:
            self._last_line = time.perf_counter()
            logger.info(self._line())

    def _counted(self) -> int:
        """Batches that count for the speed."""
        return self._done - self._warmup if self._done >= self._warmup else self._done

    def _line(self) -> str:
        counted = max(1, self._counted())
        data_s, compute_s, eval_s = (seconds / counted for seconds in self._seconds)
        total_s = (time.perf_counter() - self._start) / counted
        text = (
            f"Inference done {self._done}/{'?' if self.total is None else self.total}. "
            f"Dataloading: {data_s:.4f} s/iter. Inference: {compute_s:.4f} s/iter. Eval: {eval_s:.4f} s/iter. "
            f"Total: {total_s:.4f} s/iter."
        )
        if self.total is not None:
            text += f" ETA={datetime.timedelta(seconds=int(total_s * (self.total - self._done)))}"
        return text

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if kind is not None:
            return
        counted = max(1, self._counted())
        elapsed = time.perf_counter() - self._start
        for name, seconds in (
            ("Total inference time", elapsed),
            ("Total inference pure compute time", self._seconds[1]),
        ):
            logger.info(
                f"{name}: {datetime.timedelta(seconds=int(seconds))} "
                f"({seconds / counted:.6f} s / iter per process, on {get_world_size()} processes)"
            )
