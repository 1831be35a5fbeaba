"""Where measurements go: console, a file of JSON lines, TensorBoard. Writers read the storage and know nothing else.

W&B and MLflow are in modules of their own, ``writers_wandb`` and ``writers_mlflow``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from datetime import timedelta
from typing import IO

from hookline.engine.events import EventStorage, get_event_storage
from hookline.engine.history import HistoryBuffer
from hookline.engine.losses import peak_memory
from hookline.engine.metrics_file import cut_lines
from hookline.engine.news import NewScalars, restored_names
from hookline.engine.writers_base import EventWriter
from hookline.engine.writers_tensorboard import TensorboardXWriter
from hookline.io import PathManager

__all__ = ["CommonMetricPrinter", "EventWriter", "JSONWriter", "TensorboardXWriter"]

ETA_WINDOW = 200  # iterations whose median time stands for the time to come


class CommonMetricPrinter(EventWriter):
    """Logs one line with the remaining time, iteration, losses, norm of the gradients, times, learning rate and memory.

    Args:
        max_iter: the number of steps of the run; without it the remaining time is left out.
        window_size: losses are medians over that many iterations.
    """

    def __init__(self, max_iter: int | None = None, window_size: int = 20) -> None:
        self.logger = logging.getLogger(__name__)
        self._max_iter = max_iter
        self._window_size = window_size
        self._last: tuple[int, float] | None = None

    def write(self) -> None:
        """Log the line, except after the last step, when nothing is new."""
        storage = get_event_storage()
        iteration = storage.iter
        if iteration == self._max_iter:
            return
        histories = storage.histories()
        eta = self._eta(storage, histories)
        shown = storage.latest_with_smoothing_hint(self._window_size)
        rate = f"{shown['lr'][0]:.5g}" if "lr" in shown else "N/A"
        parts = [
            eta,
            f"iter: {iteration}",
            *[f"{name}: {value:.4g}" for name, (value, _) in shown.items() if "loss" in name or name == "grad_norm"],
            *_times(histories, "time", self._window_size),
            *_times(histories, "data_time", self._window_size),
            f"lr: {rate}",
            _memory(histories),
        ]
        self.logger.info(" %s", "  ".join(part for part in parts if part))

    def _eta(self, storage: EventStorage, histories: dict[str, HistoryBuffer]) -> str:
        """Estimate the remaining time, and record it as ``eta_seconds``."""
        now, previous = (storage.iter, time.perf_counter()), self._last
        self._last = now
        if self._max_iter is None:
            return ""
        remaining = self._max_iter - storage.iter - 1
        if "time" in histories:
            seconds = histories["time"].median(ETA_WINDOW) * remaining
            storage.put_scalar("eta_seconds", seconds, smoothing_hint=False)
        elif previous is not None and now[0] > previous[0]:
            seconds = (now[1] - previous[1]) / (now[0] - previous[0]) * remaining
        else:
            return ""
        return f"eta: {timedelta(seconds=int(seconds))}"


class JSONWriter(EventWriter):
    """Appends one JSON object per line and iteration to a file, with the metrics that are new.

    On resume the lines of the first step and later ones are cut off, and so is a half-written last line: these steps
    are done, and written, again. Lines that could not be written, on a full disk say, are kept for the next time.

    Args:
        json_file: path of the file, such as ``metrics.json``.
        window_size: smoothed metrics are medians over that many iterations.
        continued: the last run in the file goes on, even if it begins at step 0 because it was killed before its
            first checkpoint. Otherwise a run that begins at 0 is another one, and all lines stay.
    """

    def __init__(self, json_file: str, window_size: int = 20, *, continued: bool = False) -> None:
        self._path = str(json_file)
        self._news = NewScalars(window_size)
        self._continued = continued
        self._file: IO[str] | None = None
        self._unwritten: list[str] = []

    def begin(self, start_iter: int) -> None:
        """Cut off what will be written again.

        Args:
            start_iter: the first step; with 0 all whole lines stay, unless the run is ``continued``.
        """
        known = start_iter - 1, restored_names(start_iter - 1)
        if os.path.isfile(self._path):
            last, names = cut_lines(self._path, start_iter if start_iter > 0 or self._continued else None)
            if last < start_iter:
                known = last, names
        self._news.begin(*known)

    def catch_up(self) -> None:
        """Write what was measured in the step before the first one and is not in the file."""
        self.write()

    def write(self) -> None:
        """Append a line for every iteration with new metrics; most often this is one.

        Raises:
            OSError: if that fails; the lines are tried again the next time.
        """
        for iteration, scalars in self._news.take().items():
            self._unwritten.append(json.dumps({"iteration": iteration, **scalars}, sort_keys=True) + "\n")
        if not self._unwritten:
            return
        if self._file is None:
            PathManager.mkdirs(os.path.dirname(self._path) or ".")
            self._file = PathManager.open(self._path, "a")
        size = self._file.tell()
        try:
            self._file.write("".join(self._unwritten))
            self._file.flush()
        except OSError:
            self._forget_half(size)
            raise
        self._unwritten.clear()

    def close(self) -> None:
        """Close the file; a later write opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _forget_half(self, size: int) -> None:
        """Cut off what a failing write left, so that the next one does not begin in the middle of a line."""
        file, self._file = self._file, None
        with contextlib.suppress(OSError):  # closing writes once more what is in the buffer
            assert file is not None
            file.close()
        with contextlib.suppress(OSError):
            os.truncate(self._path, size)


def _times(histories: dict[str, HistoryBuffer], name: str, window_size: int) -> list[str]:
    """Format the mean and the newest value of a duration in seconds."""
    if name not in histories:
        return []
    history = histories[name]
    return [f"{name}: {history.avg(window_size):.4f}", f"last_{name}: {history.latest():.4f}"]


def _memory(histories: dict[str, HistoryBuffer]) -> str:
    """Format the most memory that torch had on a GPU, in MiB: over all ranks where the trainer asks them."""
    memory = histories["max_mem"].latest() if "max_mem" in histories else peak_memory()
    return f"max_mem: {memory:.0f}M" if memory else ""
