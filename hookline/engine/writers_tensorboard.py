"""TensorBoard: scalars, images, histograms and the hyper-parameters of a run as one set of event files."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from hookline.engine.events import get_event_storage
from hookline.engine.news import NewScalars, restored_names
from hookline.engine.writers_base import EventWriter

__all__ = ["TensorboardXWriter"]

HANDOVER_S = 20.0  # longest time that TensorBoard's scalars wait for each other
HANDOVER_COUNT = 20  # and how many may wait


class TensorboardXWriter(EventWriter):
    """Writes scalars, images and histograms as TensorBoard events, and the hyper-parameters if they are given.

    All scalars of an iteration are one event, and some of these wait for each other before they are handed to
    TensorBoard's own writer, whose thread would otherwise hold up the training loop every time. Everything is brought
    to the disk before a checkpoint is written, so a killed run has no gap.

    Args:
        log_dir: folder of the event files.
        window_size: smoothed metrics are medians over that many iterations.
        hparams: hyper-parameters by name, for TensorBoard's table of runs; numbers, texts and truth values.
        continued: the run in the folder goes on, even if it begins at step 0 because it was killed before its first
            checkpoint.
        kwargs: further arguments of ``torch.utils.tensorboard.SummaryWriter``.
    """

    def __init__(
        self,
        log_dir: str,
        window_size: int = 20,
        *,
        hparams: Mapping[str, Any] | None = None,
        continued: bool = False,
        **kwargs: Any,
    ) -> None:
        self._log_dir = str(log_dir)
        self._kwargs = kwargs
        self._hparams = dict(hparams or {})
        self._continued = continued
        self._news = NewScalars(window_size)
        self._waiting: list[tuple[dict[str, float], int, float]] = []
        self._writer: Any = None
        self._last_picture = 0
        self._restored: tuple[int, set[str]] | None = None
        self._purge: dict[str, int] = {}

    def begin(self, start_iter: int) -> None:
        """Let TensorBoard drop events that will come again: those behind what the checkpoint counts as written.

        Args:
            start_iter: the first step, 0 for a fresh start.
        """
        last, names = self._restored or (start_iter - 1, restored_names(start_iter - 1))
        self._restored = None
        self._news.begin(last, names)
        self._purge = {"purge_step": last + 1} if start_iter > 0 or self._continued else {}

    def catch_up(self) -> None:
        """Write what was measured behind what the checkpoint counts as written."""
        self.write()

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

    def state_dict(self) -> dict[str, Any]:
        """Bring everything to the disk and return what it is."""
        self.flush()
        last, names = self._news.known
        return {"last": last, "names": sorted(names)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Know again what was written."""
        self._restored = int(state["last"]), set(state["names"])

    def conclude(self, finished: bool) -> None:
        """Note that the run is complete.

        Args:
            finished: whether it is.
        """
        self._hand_over()
        if finished and self._hparams and self._writer is not None:
            _, _, end = self._hparams_summaries()
            self._writer.file_writer.add_summary(end)

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

            self._writer = SummaryWriter(self._log_dir, **{**self._purge, **self._kwargs})
            self._purge = {}  # once: another file would drop what this one holds
            if self._hparams:
                # TensorBoard keeps the first one that it finds in a run, and takes the run's scalars for its metrics
                _, start, _ = self._hparams_summaries()
                self._writer.file_writer.add_summary(start)
        return self._writer

    def _hparams_summaries(self) -> tuple[Any, Any, Any]:
        """Make what describes an experiment, a run of it, and the run's success."""
        from torch.utils.tensorboard.summary import hparams

        return hparams(self._hparams, {})
