"""Where measurements go: console, a file of JSON lines, TensorBoard. Writers read the storage and know nothing else."""

from __future__ import annotations

import json
import logging
import os
import time
from datetime import timedelta
from typing import IO, Any

import torch

from hookline.engine.events import EventStorage, get_event_storage, has_event_storage
from hookline.engine.history import HistoryBuffer
from hookline.io import PathManager

__all__ = ["CommonMetricPrinter", "EventWriter", "JSONWriter", "TensorboardXWriter"]

ETA_WINDOW = 1000  # iterations whose median time stands for the time to come


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
        losses = [f"{k}: {h.smoothed(self._window_size):.4g}" for k, h in histories.items() if "loss" in k and len(h)]
        rate = f"{histories['lr'].latest():.5g}" if "lr" in histories else "N/A"
        parts = [
            self._eta(storage, histories),
            f"iter: {iteration}",
            *losses,
            *_times(histories, "time", self._window_size),
            *_times(histories, "data_time", self._window_size),
            f"lr: {rate}",
            _memory(),
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
        self._window_size = window_size
        self._last_write = -1
        self._last_names: set[str] = set()  # written for that iteration
        self._file: IO[str] | None = None

    def begin(self, start_iter: int) -> None:
        """Cut off what will be written again.

        Args:
            start_iter: the first step; with 0 all whole lines stay.
        """
        self._last_write, self._last_names = start_iter - 1, _restored(start_iter - 1)
        if os.path.isfile(self._path):
            last, names = _cut_lines(self._path, start_iter if start_iter > 0 else None)
            if last <= self._last_write:
                self._last_write, self._last_names = last, names

    def write(self) -> None:
        """Append a line for every iteration with new metrics; most often this is one."""
        lines: dict[int, dict[str, float]] = {}
        for name, (value, iteration) in get_event_storage().latest_with_smoothing_hint(self._window_size).items():
            late = iteration == self._last_write and name not in self._last_names  # such as a resumed evaluation
            if iteration > self._last_write or late:
                lines.setdefault(iteration, {"iteration": iteration})[name] = value
        if not lines:
            return
        if self._file is None:
            PathManager.mkdirs(os.path.dirname(self._path) or ".")
            self._file = PathManager.open(self._path, "a")
        for iteration in sorted(lines):
            self._file.write(json.dumps(lines[iteration], sort_keys=True) + "\n")
        self._file.flush()
        last = max(lines)
        self._last_names = set(lines[last]) | (self._last_names if last == self._last_write else set())
        self._last_write = last

    def close(self) -> None:
        """Close the file; a later write opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None


class TensorboardXWriter(EventWriter):
    """Writes scalars, images and histograms as TensorBoard events.

    Args:
        log_dir: folder of the event files.
        window_size: smoothed metrics are medians over that many iterations.
        kwargs: further arguments of ``torch.utils.tensorboard.SummaryWriter``.
    """

    def __init__(self, log_dir: str, window_size: int = 20, **kwargs: Any) -> None:
        self._log_dir = str(log_dir)
        self._window_size = window_size
        self._kwargs = kwargs
        self._writer: Any = None
        self._last_write = -1
        self._last_names: set[str] = set()
        self._last_picture = 0

    def begin(self, start_iter: int) -> None:
        """Let TensorBoard drop events of the first step and later ones, which will come again.

        Args:
            start_iter: the first step, 0 for a fresh start.
        """
        self._last_write, self._last_names = start_iter - 1, _restored(start_iter - 1)
        if start_iter > 0:
            self._kwargs.setdefault("purge_step", start_iter)

    def write(self) -> None:
        """Write all new scalars of an iteration as one event, then new images and histograms."""
        storage = get_event_storage()
        new: dict[int, dict[str, float]] = {}
        for name, (value, iteration) in storage.latest_with_smoothing_hint(self._window_size).items():
            late = iteration == self._last_write and name not in self._last_names  # such as a resumed evaluation
            if iteration > self._last_write or late:
                new.setdefault(iteration, {})[name] = value
        for iteration in sorted(new):
            self._add_scalars(new[iteration], iteration)
            if iteration > self._last_write:
                self._last_write, self._last_names = iteration, set()
            self._last_names.update(new[iteration])
        for picture in storage.pictures():
            if picture.number > self._last_picture:
                self._open().add_image(picture.name, picture.image, picture.iteration)
                self._last_picture = picture.number
        for histogram in storage.histograms():
            self._open().add_histogram_raw(histogram.name, global_step=histogram.iteration, **histogram.fields)

    def close(self) -> None:
        """Close the event file; a later write opens another one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _add_scalars(self, scalars: dict[str, float], iteration: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in scalars.items()]
        self._open().file_writer.add_summary(Summary(value=values), iteration)

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


def _memory() -> str:
    """Format the most memory that torch had on the device, in MiB."""
    if not torch.cuda.is_initialized():  # asking whether there is a GPU costs as much as the whole line
        return ""
    return f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M"


def _restored(iteration: int) -> set[str]:
    """Name the scalars whose newest value is that of an iteration, which an earlier run has written."""
    if not has_event_storage():
        return set()
    return {name for name, (_, last) in get_event_storage().latest().items() if last == iteration}


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
