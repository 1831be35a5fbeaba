"""Where measurements go: console, a file of JSON lines, TensorBoard. Writers read the storage and know nothing else."""

from __future__ import annotations

import json
import logging
import os
import time
from datetime import timedelta
from typing import IO, Any

from hookline.engine.events import EventStorage, get_event_storage
from hookline.engine.history import HistoryBuffer
from hookline.engine.losses import peak_memory
from hookline.engine.news import NewScalars, restored_names
from hookline.io import PathManager

__all__ = ["CommonMetricPrinter", "EventWriter", "JSONWriter", "TensorboardXWriter"]

ETA_WINDOW = 200  # iterations whose median time stands for the time to come
HANDOVER_S = 20.0  # longest time that TensorBoard's scalars wait for each other
HANDOVER_COUNT = 20  # and how many may wait


class EventWriter:
    """Something that writes what :func:`~hookline.engine.events.get_event_storage` holds, whenever it is told to."""

    def begin(self, start_iter: int) -> None:
        """Get ready before the first step; what an earlier run wrote about this step and later ones is void.

        Args:
            start_iter: the first step, 0 for a fresh start.
        """

    def write(self) -> None:
        """Write what is new in the storage.

        Raises:
            NotImplementedError: always; for subclasses.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement write()")

    def close(self) -> None:
        """Finish; nothing is written after this."""


class CommonMetricPrinter(EventWriter):
    """Logs one line with the remaining time, iteration, losses, times, learning rate and memory.

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
            *[f"{name}: {value:.4g}" for name, (value, _) in shown.items() if "loss" in name],
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
    are done, and written, again.

    Args:
        json_file: path of the file, such as ``metrics.json``.
        window_size: smoothed metrics are medians over that many iterations.
    """

    def __init__(self, json_file: str, window_size: int = 20) -> None:
        self._path = str(json_file)
        self._news = NewScalars(window_size)
        self._file: IO[str] | None = None

    def begin(self, start_iter: int) -> None:
        """Cut off what will be written again.

        Args:
            start_iter: the first step; with 0 all whole lines stay.
        """
        known = start_iter - 1, restored_names(start_iter - 1)
        if os.path.isfile(self._path):
            last, names = _cut_lines(self._path, start_iter if start_iter > 0 else None)
            if last < start_iter:
                known = last, names
        self._news.begin(*known)

    def write(self) -> None:
        """Append a line for every iteration with new metrics; most often this is one."""
        new = self._news.take()
        if not new:
            return
        if self._file is None:
            PathManager.mkdirs(os.path.dirname(self._path) or ".")
            self._file = PathManager.open(self._path, "a")
        for iteration, scalars in new.items():
            self._file.write(json.dumps({"iteration": iteration, **scalars}, sort_keys=True) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file; a later write opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


class TensorboardXWriter(EventWriter):
    """Writes scalars, images and histograms as TensorBoard events.

    All scalars of an iteration are one event, and some of these wait for each other before they are handed to
    TensorBoard's own writer, whose thread would otherwise hold up the training loop every time.

    Args:
        log_dir: folder of the event files.
        window_size: smoothed metrics are medians over that many iterations.
        kwargs: further arguments of ``torch.utils.tensorboard.SummaryWriter``.
    """

    def __init__(self, log_dir: str, window_size: int = 20, **kwargs: Any) -> None:
        self._log_dir = str(log_dir)
        self._kwargs = kwargs
        self._news = NewScalars(window_size)
        self._waiting: list[tuple[dict[str, float], int, float]] = []
        self._writer: Any = None
        self._last_picture = 0

    def begin(self, start_iter: int) -> None:
        """Let TensorBoard drop events of the first step and later ones, which will come again.

        Args:
            start_iter: the first step, 0 for a fresh start.
        """
        self._news.begin(start_iter - 1, restored_names(start_iter - 1))
        if start_iter > 0:
            self._kwargs.setdefault("purge_step", start_iter)

    def write(self) -> None:
        """Take new scalars, and write new images and histograms."""
        storage, now = get_event_storage(), time.time()
        self._waiting.extend((scalars, iteration, now) for iteration, scalars in self._news.take().items())
        if len(self._waiting) >= HANDOVER_COUNT or (self._waiting and now - self._waiting[0][2] >= HANDOVER_S):
            self._hand_over()
        for picture in storage.pictures():
            if picture.number > self._last_picture:
                self._open().add_image(picture.name, picture.image, picture.iteration)
                self._last_picture = picture.number
        for histogram in storage.histograms():
            self._open().add_histogram_raw(histogram.name, global_step=histogram.iteration, **histogram.fields)

    def flush(self) -> None:
        """Bring everything written so far to the disk."""
        self._hand_over()
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Close the event file; a later write opens another one."""
        self._hand_over()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _hand_over(self) -> None:
        if not self._waiting:
            return
        from tensorboard.compat.proto.summary_pb2 import Summary

        writer = self._open().file_writer
        for scalars, iteration, moment in self._waiting:
            values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
            writer.add_summary(Summary(value=values), iteration, moment)
        self._waiting.clear()

    def _open(self) -> Any:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # as heavy as all of the engine: only where it is used

            self._writer = SummaryWriter(self._log_dir, **self._kwargs)
        return self._writer


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


def _cut_lines(path: str, from_iteration: int | None) -> tuple[int, set[str]]:
    """Truncate a file of JSON lines at ``from_iteration`` of its last run, and at a last line without an end.

    Returns:
        The iteration of the last line left, -1 without any, and the names written for it.
    """
    end, last, names = 0, -1, set[str]()
    cut: tuple[int, int, set[str]] | None = None
    with open(path, "r+b") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            entry = _parse(line)
            iteration = entry.get("iteration", last)
            if iteration < last:  # another run began here, in the same file
                cut = None
            if from_iteration is not None and iteration >= from_iteration and cut is None:
                cut = (end, last, names)
            names = set(entry) | (names if iteration == last else set())
            end, last = end + len(line), iteration
        if cut is not None:
            end, last, names = cut
        if end < os.path.getsize(path):
            file.truncate(end)
    return last, names


def _parse(line: bytes) -> dict[str, Any]:
    """Read the metrics of a line; one of another kind has none."""
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) and isinstance(entry.get("iteration"), int) else {}
